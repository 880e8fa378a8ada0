/* /init for programs.sh: loads the image's modules, goes to the root on /dev/vda and becomes the
 * yardstick there. Without modules in the archive it only says that it runs: that is what the
 * measurement of the kernel's start asks for.
 *   gcc -O2 -static -o init init.c */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int fail(const char *what) {
  printf("YARDSTICK-FAILED %s: %s\n", what, strerror(errno));
  fflush(stdout);
  reboot(RB_AUTOBOOT);
  return 1;
}
static int load(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  int rc = syscall(SYS_finit_module, fd, "", 0);
  close(fd);
  return rc;
}
static int copy(const char *from, const char *to) {
  char buffer[4096];
  ssize_t n;
  int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  if (in < 0 || out < 0)
    return -1;
  while ((n = read(in, buffer, sizeof buffer)) > 0)
    if (write(out, buffer, n) != n)
      return -1;
  close(in);
  return close(out) || n < 0;
}
int main(void) {
  char line[256];
  printf("YARDSTICK-INIT\n");
  fflush(stdout);
  FILE *list = fopen("/modules.list", "r");
  if (!list) {
    reboot(RB_AUTOBOOT);
    return 0;
  }
  while (fgets(line, sizeof line, list)) {
    line[strcspn(line, "\n")] = 0;
    if (load(line) && errno != EEXIST)
      printf("%s: %s\n", line, strerror(errno)); /* what needs it says so below */
  }
  fclose(list);
  mkdir("/root", 0755);
  mkdir("/dev", 0755);
  mount("dev", "/dev", "devtmpfs", 0, 0); /* the kernel may have done it */
  /* Disks are found while other things go on. */
  for (int i = 0; mount("/dev/vda", "/root", "ext4", 0, 0); i++) {
    if (i == 500)
      return fail("mount /dev/vda");
    usleep(10000);
  }
  if (copy("/bench", "/root/bench"))
    return fail("copy the yardstick");
  if (chdir("/root") || mount(".", "/", 0, MS_MOVE, 0) || chroot("."))
    return fail("go to the root");
  char *argv[] = {"/bin/sh", "/bench", 0}, *envp[] = {"HOME=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", 0};
  execve(argv[0], argv, envp);
  return fail("execute /bin/sh");
}
