#!/bin/sh
# The yardstick of networks: one server outside, which xtask plays. Each line is "BENCH name seconds".
# Needs gcc and libc6-dev in the guest. The kernel's command line has yard.address (the guest's),
# yard.server (ADDRESS:PORT) and yard.mtu.
mount -t proc proc /proc 2>/dev/null; mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp 2>/dev/null
cd /tmp
for word in $(cat /proc/cmdline); do
  case $word in
  yard.address=*) address=${word#*=} ;;
  yard.server=*) server=${word#*=} ;;
  yard.mtu=*) mtu=${word#*=} ;;
  esac
done
cat > network.c <<'C'
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define PIECE (1 << 18)
static struct sockaddr_in server;
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static void failed(const char *name) {
  printf("BENCH-FAILED %s\n", name);
  perror(name);
  exit(1);
}
static void set_up(const char *address, int mtu) {
  struct ifreq card;
  struct sockaddr_in *in = (struct sockaddr_in *)&card.ifr_addr;
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  memset(&card, 0, sizeof card);
  strcpy(card.ifr_name, "eth0");
  card.ifr_mtu = mtu;
  if (ioctl(s, SIOCSIFMTU, &card))
    failed("mtu");
  in->sin_family = AF_INET;
  inet_pton(AF_INET, address, &in->sin_addr);
  if (ioctl(s, SIOCSIFADDR, &card))
    failed("address");
  inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
  if (ioctl(s, SIOCSIFNETMASK, &card))
    failed("mask");
  card.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(s, SIOCSIFFLAGS, &card))
    failed("up");
  close(s);
}
/* A connection on which the server does what the letter says. */
static int call(const char *name, char what, uint64_t len) {
  int yes = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  char request[9] = {what};
  memcpy(request + 1, &len, 8);
  if (connect(s, (struct sockaddr *)&server, sizeof server))
    failed(name);
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (write(s, request, 9) != 9)
    failed(name);
  return s;
}
/* The server takes all of it, and says so at the end. */
static void sends(const char *name, uint64_t len) {
  static char piece[PIECE];
  int s = call(name, 't', len);
  for (uint64_t left = len; left;) {
    ssize_t n = write(s, piece, left < PIECE ? left : PIECE);
    if (n <= 0)
      failed(name);
    left -= n;
  }
  char done;
  if (read(s, &done, 1) != 1)
    failed(name);
  close(s);
}
static void receives(const char *name, uint64_t len) {
  char *piece = malloc(PIECE);
  int s = call(name, 'g', len);
  for (uint64_t left = len; left;) {
    ssize_t n = read(s, piece, PIECE);
    if (n <= 0)
      failed(name);
    left -= n;
  }
  close(s);
  free(piece);
}
static void *one_of_eight(void *len) {
  receives("receive8", (uintptr_t)len);
  return 0;
}
int main(int argc, char **argv) {
  if (argc != 4)
    failed("arguments");
  setvbuf(stdout, 0, _IONBF, 0);
  set_up(argv[1], atoi(argv[3]));
  char *colon = strchr(argv[2], ':');
  *colon = 0;
  server.sin_family = AF_INET;
  server.sin_port = htons(atoi(colon + 1));
  inet_pton(AF_INET, argv[2], &server.sin_addr);
  const uint64_t much = 256 << 20;
  double start;
  /* Addresses are looked for, and windows grow. */
  receives("warm", 8 << 20);
  sends("warm", 8 << 20);
  start = now(), sends("send", much);
  printf("BENCH send %.4f\n", now() - start);
  start = now(), receives("receive", much);
  printf("BENCH receive %.4f\n", now() - start);
  pthread_t threads[8];
  start = now();
  for (int i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, one_of_eight, (void *)(uintptr_t)(much / 8));
  for (int i = 0; i < 8; i++)
    pthread_join(threads[i], 0);
  printf("BENCH receive8 %.4f\n", now() - start);
  int s = call("roundtrips", 'e', 0);
  char byte = 1;
  start = now();
  for (int i = 0; i < 5000; i++)
    if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1)
      failed("roundtrips");
  printf("BENCH roundtrips %.4f\n", now() - start);
  close(s);
  start = now();
  for (int i = 0; i < 1000; i++) {
    s = call("connections", 'g', 1);
    if (read(s, &byte, 1) != 1)
      failed("connections");
    close(s);
  }
  printf("BENCH connections %.4f\n", now() - start);
  return 0;
}
C
gcc -O2 -pthread -o network network.c || echo "BENCH-FAILED gcc"
echo "BENCH uptime $(cut -d' ' -f1 /proc/uptime)"
./network "$address" "$server" "$mtu"
echo "BENCH end $(cut -d' ' -f1 /proc/uptime)"
reboot -f
