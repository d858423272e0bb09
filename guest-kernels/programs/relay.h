/*
 * Bytes on their way from one descriptor to another, without waiting.
 */
#ifndef RELAY_H
#define RELAY_H

#include "system.h"

/* Bytes that wait in a relay at most. */
#define RELAY 65536

/* Bytes on their way from one descriptor to another. */
struct relay {
	int from, to;
	u32 start, end;
	char bytes[RELAY];
};

struct pollfd {
	int fd;
	short events, revents;
};

/* Makes a relay between two descriptors of this process's own. */
void connect(struct relay *relay, int from, int to);

/* Moves what can be moved without waiting, but not so much that others wait for long. Returns whether that was anything. */
int move_some(struct relay *relay);

/* What a relay waits for. */
struct pollfd awaited(const struct relay *relay);

/* Passes on what a relay holds and what its pipe holds by now, and waits for whoever takes it. */
void drain(struct relay *relay);

#endif
