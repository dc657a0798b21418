// Frames as they are, past the guest's own network: what a hostile guest sends, and what reaches another one.
//   frame send CARD HEX...   sends each frame
//   frame watch CARD TEXT    prints `seen HEX` for each frame that comes with this text in it, until it is killed
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static unsigned char frame[65536];

static int fail(const char *what) {
  perror(what);
  return 1;
}

static int open_card(const char *name) {
  int card = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  struct sockaddr_ll address = {
    .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name),
  };
  if (card < 0 || address.sll_ifindex == 0) return -1;
  return bind(card, (struct sockaddr *)&address, sizeof address) == 0 ? card : -1;
}

static int send_frame(int card, const char *hex) {
  size_t length = strlen(hex) / 2;
  if (length > sizeof frame) return -1;
  for (size_t i = 0; i < length; i++) {
    unsigned byte;
    if (sscanf(hex + 2 * i, "%2x", &byte) != 1) return -1;
    frame[i] = (unsigned char)byte;
  }
  return send(card, frame, length, 0) == (ssize_t)length ? 0 : -1;
}

static int watch(int card, const char *text) {
  for (;;) {
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    ssize_t length = recvfrom(card, frame, sizeof frame, 0, (struct sockaddr *)&from, &size);
    if (length < 0) return fail("recvfrom");
    if (from.sll_pkttype == PACKET_OUTGOING || !memmem(frame, (size_t)length, text, strlen(text))) continue;
    printf("seen ");
    for (ssize_t i = 0; i < length; i++) printf("%02x", frame[i]);
    printf("\n");
    fflush(stdout);
  }
}

int main(int count, char **words) {
  if (count < 4) {
    fprintf(stderr, "usage: frame send CARD HEX... | frame watch CARD TEXT\n");
    return 2;
  }
  int card = open_card(words[2]);
  if (card < 0) return fail(words[2]);
  if (strcmp(words[1], "watch") == 0) return watch(card, words[3]);
  for (int i = 3; i < count; i++) {
    if (send_frame(card, words[i]) != 0) return fail("send");
  }
  return 0;
}
