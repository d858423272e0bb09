/*
 * prepare: the program by which /init begins. One process does what would take a shell some twenty, each of which costs
 * the machine's start several milliseconds.
 *
 * It sets the clock by /replex/clock, if it is there: the time at some value of the TSC, which is the host's, and the TSC's
 * frequency. It mounts the file systems that every program expects, sets the name of the machine, brings the loopback interface up,
 * inserts the kernel modules of /replex/modules in the order of the numbers in their names, and gives eth0 the address that
 * /replex/network names, if it does. What cannot be done it leaves out, with a message on standard error.
 */

#include "system.h"

#define MS_NOSUID 2
#define MS_NODEV 4
#define MS_NOEXEC 8

#define AF_INET 2
#define SOCK_DGRAM 2
#define SOCK_CLOEXEC 02000000
#define SIOCADDRT 0x890b
#define SIOCGIFFLAGS 0x8913
#define SIOCSIFFLAGS 0x8914
#define SIOCSIFADDR 0x8916
#define SIOCSIFNETMASK 0x891c
#define IFF_UP 1
#define RTF_UP 1
#define RTF_GATEWAY 2

#define CLOCK_REALTIME 0

#define HOSTNAME "replex"
#define CLOCK "/replex/clock"
#define MODULES "/replex/modules"
#define NETWORK "/replex/network"

/* Says what could not be done. */
static void complain(const char *what, int error)
{
	char text[256], *end;

	if (length(what) > 200)
		return;
	end = append(append(text, what), ": error ");
	end = append(append_number(end, -error), "\n");
	write_all(2, text, end - text);
}

/* Complains of an error, and returns whether there was none. */
static int done(const char *what, int result)
{
	if (result < 0)
		complain(what, result);
	return result >= 0;
}

/* Takes the next word of a line. */
static char *word(char **at)
{
	char *word = *at;

	while (**at && **at != ' ' && **at != '\n')
		++*at;
	if (**at)
		*(*at)++ = 0;
	return word;
}

/* The time when the TSC was `tsc`, and the TSC's frequency. */
struct clock {
	u64 tsc, seconds, nanoseconds, khz;
};

/* A time as system calls take it (struct __kernel_timespec). */
struct time {
	u64 seconds, nanoseconds;
};

/* Most attempts at setting the clock without an interruption. */
#define ATTEMPTS 16

static u64 number64(const char *text)
{
	u64 value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (*text - '0');
	return value;
}

static u64 read_tsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

/* Divides by a number that is greater than the upper half of `dividend`. */
static u32 divide(u64 dividend, u32 divisor, u32 *remainder)
{
	u32 quotient;

	asm("divl %4" : "=a"(quotient), "=d"(*remainder) : "0"((u32)dividend), "1"((u32)(dividend >> 32)), "r"(divisor) : "cc");
	return quotient;
}

/* Reads the file of the clock. Returns whether it is there and makes sense. */
static int read_clock(struct clock *clock)
{
	struct text file;
	char *at;

	if (!read_file(CLOCK, &file))
		return 0;
	at = file.bytes;
	clock->tsc = number64(word(&at));
	clock->seconds = number64(word(&at));
	clock->nanoseconds = number64(word(&at));
	clock->khz = number64(word(&at));
	return clock->khz && !(clock->khz >> 32) && clock->nanoseconds < 1000000000;
}

/* Computes the time when the TSC is `tsc`. Returns whether it can be told. */
static int time_at(const struct clock *clock, u64 tsc, struct time *time)
{
	u64 cycles = tsc - clock->tsc;
	u32 khz = clock->khz, ms, rest, ns;

	if (tsc < clock->tsc || cycles >> 32 >= khz)
		return 0;
	ms = divide(cycles, khz, &rest);
	ns = divide((u64)rest * 1000000, khz, &rest);
	ns += (u32)clock->nanoseconds + ms % 1000 * 1000000;
	time->seconds = clock->seconds + ms / 1000 + ns / 1000000000;
	time->nanoseconds = ns % 1000000000;
	return 1;
}

/*
 * Sets the clock, several times if the machine paused between the reading of the TSC and the setting: for more than an eighth
 * of a millisecond, which is what such a pause would put it back by.
 */
static void set_clock(void)
{
	struct clock clock;
	struct time time;
	u64 tsc;
	int attempt;

	if (!read_clock(&clock))
		return;
	for (attempt = 0; attempt < ATTEMPTS; attempt++) {
		tsc = read_tsc();
		if (!time_at(&clock, tsc, &time) ||
		    !done("clock", syscall3(SYS_CLOCK_SETTIME, CLOCK_REALTIME, (arg)&time, 0)) ||
		    read_tsc() - tsc < clock.khz / 8)
			return;
	}
}

struct filesystem {
	const char *type, *folder;
	int flags;
	const char *options;
};

static const struct filesystem filesystems[] = {
	{ "devtmpfs", "/dev", 0, "" },
	{ "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "" },
	{ "sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, "" },
	{ "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620" },
	{ "tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777" },
	{ "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755" },
};

/* An entry of a folder, as getdents64 returns it. */
struct entry {
	u64 inode, offset;
	unsigned short len;
	unsigned char type;
	char name[];
};

/* Room for the entries of a folder. */
static char entries[1 << 16];

/* Reads the first entries of a folder. Returns their length in bytes. */
static int list(const char *folder)
{
	int fd = syscall3(SYS_OPEN, (arg)folder, O_RDONLY | O_CLOEXEC, 0), len;

	if (fd < 0)
		return 0;
	len = syscall3(SYS_GETDENTS64, fd, (arg)entries, sizeof(entries));
	syscall3(SYS_CLOSE, fd, 0, 0);
	return len < 0 ? 0 : len;
}

/* Whether archives have put something into a folder. A file system would hide that. */
static int is_filled(const char *folder)
{
	int at, len = list(folder), count = 0;

	for (at = 0; at < len; at += ((struct entry *)(entries + at))->len)
		count++;
	/* There are "." and "..". */
	return count > 2;
}

static void mount_all(void)
{
	const struct filesystem *fs;
	u32 at;

	for (at = 0; at < sizeof(filesystems) / sizeof(*filesystems); at++) {
		fs = &filesystems[at];
		syscall3(SYS_MKDIR, (arg)fs->folder, 0755, 0);
		if (equal(fs->type, "tmpfs") && is_filled(fs->folder))
			continue;
		done(fs->folder, syscall5(SYS_MOUNT, (arg)fs->type, (arg)fs->folder, (arg)fs->type, fs->flags, (arg)fs->options));
	}
}

/* Inserts the module in the file at `path`. */
static void insert(const char *path)
{
	int fd = syscall3(SYS_OPEN, (arg)path, O_RDONLY | O_CLOEXEC, 0);

	done(path, fd < 0 ? fd : syscall3(SYS_FINIT_MODULE, fd, (arg)"", 0));
	syscall3(SYS_CLOSE, fd, 0, 0);
	syscall3(SYS_UNLINK, (arg)path, 0, 0);
}

/* The entry whose name begins with `number` of four digits, or null. */
static const struct entry *numbered(int len, int number)
{
	const struct entry *entry;
	int at, digit, value;

	for (at = 0; at < len; at += entry->len) {
		entry = (struct entry *)(entries + at);
		value = 0;
		for (digit = 0; digit < 4 && entry->name[digit] >= '0' && entry->name[digit] <= '9'; digit++)
			value = value * 10 + entry->name[digit] - '0';
		if (digit == 4 && value == number)
			return entry;
	}
	return 0;
}

static void insert_modules(void)
{
	int len = list(MODULES), number;
	const struct entry *entry;
	char path[sizeof(MODULES) + 257];

	for (number = 0; (entry = numbered(len, number)); number++) {
		*append(append(append(path, MODULES), "/"), entry->name) = 0;
		insert(path);
	}
	syscall3(SYS_RMDIR, (arg)MODULES, 0, 0);
}

/* An IPv4 address without a port (struct sockaddr_in). */
struct address {
	unsigned short family, port;
	unsigned char bytes[4];
	char zero[8];
};

/* A request about an interface (struct ifreq). */
struct interface {
	char name[16];
	union {
		struct address address;
		short flags;
		/* The longest member, struct ifmap, has two pointers' widths and eight bytes. */
		char room[2 * sizeof(long) + 8];
	};
};

/* A route (struct rtentry). */
struct route {
	unsigned long pad1;
	struct address destination, gateway, mask;
	unsigned short flags;
	short pad2;
	unsigned long pad3;
	void *pad4;
	short metric;
	char *device;
	unsigned long mtu, window;
	unsigned short rtt;
};

static int bring_up(int socket, const char *name)
{
	struct interface interface = { 0 };
	int result;

	append(interface.name, name);
	result = syscall3(SYS_IOCTL, socket, SIOCGIFFLAGS, (arg)&interface);
	if (result < 0)
		return result;
	interface.flags |= IFF_UP;
	return syscall3(SYS_IOCTL, socket, SIOCSIFFLAGS, (arg)&interface);
}

static struct address parse(const char *text)
{
	struct address address = { .family = AF_INET };
	int at = 0;

	for (; *text && at < 4; text++) {
		if (*text == '.')
			at++;
		else
			address.bytes[at] = address.bytes[at] * 10 + (*text - '0');
	}
	return address;
}

static int set_address(int socket, int request, const char *text)
{
	struct interface interface = { "eth0", { parse(text) } };

	return syscall3(SYS_IOCTL, socket, request, (arg)&interface);
}

static int add_router(int socket, const char *text)
{
	struct route route = { 0 };

	route.destination.family = route.mask.family = AF_INET;
	route.gateway = parse(text);
	route.flags = RTF_UP | RTF_GATEWAY;
	return syscall3(SYS_IOCTL, socket, SIOCADDRT, (arg)&route);
}

static void write_resolver(const char *text)
{
	int fd = syscall3(SYS_OPEN, (arg)"/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (!done("/etc/resolv.conf", fd))
		return;
	write_all(fd, "nameserver ", 11);
	write_all(fd, text, length(text));
	write_all(fd, "\n", 1);
	syscall3(SYS_CLOSE, fd, 0, 0);
}

/* Sets eth0 up by the line "ADDRESS NETMASK ROUTER RESOLVER". */
static void set_up_network(int socket)
{
	struct text file;
	char *at;

	if (!read_file(NETWORK, &file))
		return;
	at = file.bytes;
	if (done("eth0: address", set_address(socket, SIOCSIFADDR, word(&at))) &&
	    done("eth0: netmask", set_address(socket, SIOCSIFNETMASK, word(&at))) &&
	    done("eth0", bring_up(socket, "eth0")) && done("eth0: router", add_router(socket, word(&at))))
		write_resolver(word(&at));
}

void start(int argc, char **argv)
{
	int socket;

	(void)argc, (void)argv;
	set_clock();
	mount_all();
	done("hostname", syscall3(SYS_SETHOSTNAME, (arg)HOSTNAME, length(HOSTNAME), 0));
	insert_modules();
	socket = syscall3(SYS_SOCKET, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* A kernel may be without a network. */
	if (socket >= 0) {
		done("lo", bring_up(socket, "lo"));
		set_up_network(socket);
	}
	quit(0);
}
