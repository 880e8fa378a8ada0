#!/bin/sh
# The yardstick of disks: the second disk, read and written past the guest's own cache. Each line is
# "BENCH name seconds". Requests are timed, and apart from them (NAME-flush) what the host takes to write to its
# own disk what it was given: that is the host's, whoever runs the guest. Needs gcc and libc6-dev in the guest.
mount -t proc proc /proc 2>/dev/null; mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp 2>/dev/null
cd /tmp
cat > disk.c <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define SMALL 4096
#define LARGE (1 << 20)
#define DEPTH 16
static int fd;
static uint64_t size, seed = 88172645463325252ull;
static char *buffer;
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static uint64_t somewhere(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed % (size / SMALL) * SMALL;
}
static void failed(const char *name) {
  printf("BENCH-FAILED %s\n", name);
  exit(1);
}
static void timed(const char *name, int writes, double start) {
  double written = now();
  printf("BENCH %s %.4f\n", name, written - start);
  if (!writes)
    return;
  if (fsync(fd))
    failed(name);
  printf("BENCH %s-flush %.4f\n", name, now() - written);
}
/* One request after the other. */
static void one(const char *name, int writes, int count, size_t len) {
  double start = now();
  for (int i = 0; i < count; i++) {
    uint64_t at = len == SMALL ? somewhere() : (uint64_t)i * len % size;
    ssize_t done = writes ? pwrite(fd, buffer, len, at) : pread(fd, buffer, len, at);
    if (done != (ssize_t)len)
      failed(name);
  }
  timed(name, writes, start);
}
/* Always some at once. */
static void many(const char *name, int writes, int count) {
  static struct iocb iocbs[DEPTH];
  struct io_event events[DEPTH];
  aio_context_t context = 0;
  int sent = 0, done = 0;
  if (syscall(SYS_io_setup, DEPTH, &context))
    failed(name);
  double start = now();
  struct iocb *idle[DEPTH];
  int free = DEPTH;
  for (int i = 0; i < DEPTH; i++)
    idle[i] = &iocbs[i];
  while (done < count) {
    struct iocb *batch[DEPTH];
    int n = 0;
    while (free > 0 && sent < count) {
      struct iocb *io = idle[--free];
      memset(io, 0, sizeof *io);
      io->aio_fildes = fd;
      io->aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
      io->aio_buf = (uintptr_t)(buffer + (io - iocbs) * SMALL);
      io->aio_nbytes = SMALL;
      io->aio_offset = somewhere();
      batch[n++] = io, sent++;
    }
    if (n && syscall(SYS_io_submit, context, n, batch) != n)
      failed(name);
    int got = syscall(SYS_io_getevents, context, 1, DEPTH, events, 0);
    if (got < 1)
      failed(name);
    for (int i = 0; i < got; i++, done++) {
      if (events[i].res != SMALL)
        failed(name);
      idle[free++] = (struct iocb *)(uintptr_t)events[i].obj;
    }
  }
  timed(name, writes, start);
  syscall(SYS_io_destroy, context);
}
int main(void) {
  fd = open("/dev/vdb", O_RDWR | O_DIRECT);
  if (fd < 0 || posix_memalign((void **)&buffer, SMALL, LARGE))
    failed("open");
  memset(buffer, 0x5a, LARGE);
  size = lseek(fd, 0, SEEK_END);
  setvbuf(stdout, 0, _IONBF, 0);
  one("seqwrite", 1, 512, LARGE);
  one("seqread", 0, 512, LARGE);
  one("randread4K", 0, 10000, SMALL);
  one("randwrite4K", 1, 10000, SMALL);
  many("randread4K16", 0, 40000);
  many("randwrite4K16", 1, 40000);
  return 0;
}
C
gcc -O2 -o disk disk.c || echo "BENCH-FAILED gcc"
echo "BENCH uptime $(cut -d' ' -f1 /proc/uptime)"
./disk
echo "BENCH end $(cut -d' ' -f1 /proc/uptime)"
reboot -f
