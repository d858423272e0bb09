/*
 * launch: the program of /init that runs one command and passes its streams on.
 *
 *     launch COMMAND ROOT [TERMINAL]
 *
 * COMMAND is a file of strings, each with its NUL (src/initramfs/launch.rs writes it): user, working directory, rows and
 * columns of the terminal, number of arguments, arguments, environment. ROOT is the directory that becomes the command's
 * root. With TERMINAL, the command leads a session on that terminal. Without one, its streams are pipes, which can be
 * opened again as /dev/stdout and the like, where a port of a virtio console cannot. Their other ends lead to descriptors
 * of launch's own:
 *
 *     3 ──► stdin │ command │ stdout ──► 4
 *                 │         │ stderr ──► 5
 *
 * When the command has ended, what is left in its pipes is passed on; nobody waits for other processes that hold them.
 * Then launch prints "exit STATUS" or "signal NUMBER" on its standard output. If the command cannot be executed, the child
 * says so on its own standard error and exits with 126 or 127, as shells do.
 */

#include "command.h"
#include "relay.h"
#include "system.h"

static int wait_for(int child)
{
	int status;

	while (syscall4(SYS_WAIT4, child, (arg)&status, 0, 0) == -EINTR)
		;
	return status;
}

/* Runs the command with pipes. Returns its wait status. */
static int run_with_pipes(struct command *command, const char *root)
{
	static struct relay relays[3];
	int pipes[3][2], theirs[3], stream, child, ended, status, moved;
	u64 sigchld = 1ull << (SIGCHLD - 1), sigpipe = 1ull << (SIGPIPE - 1);
	struct pollfd polls[4];

	/* An end of input that the command has closed is an error of writing, not a signal. */
	mask_signals(sigchld | sigpipe);
	ended = syscall4(SYS_SIGNALFD4, -1, (arg)&sigchld, sizeof(sigchld), O_CLOEXEC);
	for (stream = 0; stream < 3; stream++) {
		if (syscall3(SYS_PIPE2, (arg)pipes[stream], O_CLOEXEC, 0) < 0)
			quit(1);
		/* Of input, the command has the end to read from. */
		theirs[stream] = pipes[stream][stream != 0];
		if (stream)
			connect(&relays[stream], pipes[stream][0], 3 + stream);
		else
			connect(&relays[stream], 3, pipes[stream][1]);
	}
	child = syscall3(SYS_FORK, 0, 0, 0);
	if (child < 0)
		quit(1);
	if (!child) {
		for (stream = 0; stream < 3; stream++)
			syscall3(SYS_DUP2, theirs[stream], stream, 0);
		syscall3(SYS_SETSID, 0, 0, 0);
		become(command, root, theirs);
	}
	for (stream = 0; stream < 3; stream++)
		syscall3(SYS_CLOSE, theirs[stream], 0, 0);
	do {
		moved = 0;
		for (stream = 0; stream < 3; stream++) {
			moved |= move_some(&relays[stream]);
			polls[stream] = awaited(&relays[stream]);
		}
		polls[3] = (struct pollfd){ ended, POLLIN, 0 };
		syscall3(SYS_POLL, (arg)polls, 4, moved ? 0 : -1);
	} while (!polls[3].revents);
	status = wait_for(child);
	for (stream = 1; stream < 3; stream++)
		drain(&relays[stream]);
	return status;
}

/* Opens a terminal, which may not be ready yet, as the controlling one if this process leads a session without. */
static int open_terminal(const char *path)
{
	int tries, fd = -1;

	for (tries = 0; tries < 500; tries++) {
		fd = syscall3(SYS_OPEN, (arg)path, O_RDWR | O_CLOEXEC, 0);
		if (fd >= 0)
			break;
		syscall3(SYS_POLL, 0, 0, 10);
	}
	return fd;
}

struct winsize {
	unsigned short rows, columns, width, height;
};

/*
 * Becomes the command, which leads a session on a terminal. Keys have been pressed before: from the moment at which the
 * terminal is open, ctrl-c ends this process. Closes `opened` if it cannot be opened.
 */
static void become_on_terminal(struct command *command, const char *root, const char *terminal, int opened)
{
	struct winsize size = { command->rows, command->columns, 0, 0 };
	int fd, stream;

	syscall3(SYS_SETSID, 0, 0, 0);
	fd = open_terminal(terminal);
	if (fd < 0)
		quit(1);
	write_all(opened, "", 1);
	if (size.rows)
		syscall3(SYS_IOCTL, fd, TIOCSWINSZ, (arg)&size);
	for (stream = 0; stream < 3; stream++)
		syscall3(SYS_DUP2, fd, stream, 0);
	become(command, root, 0);
}

/* Runs the command on a terminal. Returns its wait status. */
static int run_on_terminal(struct command *command, const char *root, const char *terminal)
{
	int opened[2], child, status;
	char byte;

	if (syscall3(SYS_PIPE2, (arg)opened, O_CLOEXEC, 0) < 0)
		quit(1);
	child = syscall3(SYS_FORK, 0, 0, 0);
	if (child < 0)
		quit(1);
	if (!child)
		become_on_terminal(command, root, terminal, opened[1]);
	syscall3(SYS_CLOSE, opened[1], 0, 0);
	status = wait_for(child);
	/* By a signal the child may have ended before it has told. */
	if (!(status & 0x7f) && syscall3(SYS_READ, opened[0], (arg)&byte, 1) != 1)
		quit(1);
	return status;
}

/* Makes the links that programs expect in /dev. */
static void make_links(void)
{
	syscall3(SYS_SYMLINK, (arg)"/proc/self/fd", (arg)"/dev/fd", 0);
	syscall3(SYS_SYMLINK, (arg)"fd/0", (arg)"/dev/stdin", 0);
	syscall3(SYS_SYMLINK, (arg)"fd/1", (arg)"/dev/stdout", 0);
	syscall3(SYS_SYMLINK, (arg)"fd/2", (arg)"/dev/stderr", 0);
}

void start(int argc, char **argv)
{
	static struct command command;
	char line[32], *end = line;
	int status;

	if (argc < 3 || !read_command(argv[1], &command))
		quit(1);
	make_links();
	status = argc > 3 ? run_on_terminal(&command, argv[2], argv[3]) : run_with_pipes(&command, argv[2]);
	if (status & 0x7f)
		end = append_number(append(end, "signal "), status & 0x7f);
	else
		end = append_number(append(end, "exit "), status >> 8 & 0xff);
	*end++ = '\n';
	write_all(1, line, end - line);
	quit(0);
}
