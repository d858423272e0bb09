/* See relay.h. */
#include "relay.h"

static void close(int *fd)
{
	if (*fd >= 0)
		syscall3(SYS_CLOSE, *fd, 0, 0);
	*fd = -1;
}

/* Ends a relay: the other end of what it has written to sees its end. */
static void finish(struct relay *relay)
{
	close(&relay->from);
	close(&relay->to);
}

/* Moves what can be moved without waiting. Returns whether that was anything. */
static int move(struct relay *relay)
{
	int done;

	if (relay->to < 0)
		return 0;
	if (relay->start < relay->end) {
		done = syscall3(SYS_WRITE, relay->to, (arg)relay->bytes + relay->start, relay->end - relay->start);
		if (done > 0)
			relay->start += done;
		else if (done != -EAGAIN && done != -EINTR)
			finish(relay);
		return done > 0;
	}
	done = syscall3(SYS_READ, relay->from, (arg)relay->bytes, RELAY);
	relay->start = 0;
	relay->end = done > 0 ? done : 0;
	if (done != -EAGAIN && done != -EINTR && done <= 0)
		finish(relay);
	return done > 0;
}

int move_some(struct relay *relay)
{
	int times = 0;

	while (times < 32 && move(relay))
		times++;
	return times > 0;
}

struct pollfd awaited(const struct relay *relay)
{
	struct pollfd poll = { -1, 0, 0 };

	if (relay->to >= 0) {
		poll.fd = relay->start < relay->end ? relay->to : relay->from;
		poll.events = relay->start < relay->end ? POLLOUT : POLLIN;
	}
	return poll;
}

void drain(struct relay *relay)
{
	struct pollfd poll;

	while (relay->to >= 0) {
		if (move(relay))
			continue;
		if (relay->start == relay->end)
			return;
		poll = awaited(relay);
		syscall3(SYS_POLL, (arg)&poll, 1, -1);
	}
}

static void make_nonblocking(int fd)
{
	int flags = syscall3(SYS_FCNTL, fd, F_GETFL, 0);

	syscall3(SYS_FCNTL, fd, F_SETFL, flags | O_NONBLOCK);
	syscall3(SYS_FCNTL, fd, F_SETFD, FD_CLOEXEC);
}

void connect(struct relay *relay, int from, int to)
{
	relay->from = from;
	relay->to = to;
	make_nonblocking(from);
	make_nonblocking(to);
}
