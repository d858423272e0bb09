/*
 * What no applet of busybox does with large buffers or past the page cache: one static program for i386 or x86-64, without a C
 * library, so that any x86 compiler makes it.
 *
 *   probe random-read FILE MIB COUNT    COUNT reads of 4 KiB at random places of the first MIB MiB, one after the other
 *   probe random-write FILE MIB COUNT   COUNT such writes to the MIB MiB behind those
 *   probe receive PORT MIB              asks the host's server for MIB MiB and reads them
 *   probe send PORT MIB                 sends MIB MiB to the host's server and reads its answer
 *
 * Prints a number that depends on the arguments, and for reads on the data, and on nothing else.
 */

#ifdef __x86_64__
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_OPEN = 2, SYS_PREAD = 17, SYS_PWRITE = 18, SYS_EXIT = 60, SYS_FSYNC = 74 };
enum { SYS_SOCKET = 41, SYS_CONNECT = 42, SYS_SHUTDOWN = 48 };
#else
enum { SYS_EXIT = 1, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_FSYNC = 118, SYS_PREAD = 180, SYS_PWRITE = 181 };
enum { SYS_SOCKET = 359, SYS_CONNECT = 362, SYS_SHUTDOWN = 373 };
#endif
enum { O_RDWR = 2, O_DIRECT = 040000 };
enum { AF_INET = 2, SOCK_STREAM = 1, SHUT_WR = 1 };

/* The address of the host in the user networks of QEMU and replex, 10.0.2.2, in network order. */
#define HOST 0x0202000a

#define MIB (1u << 20)
#define BLOCK 4096u

static unsigned char buffer[256 << 10] __attribute__((aligned(BLOCK)));

static long call(long number, long a, long b, long c, long d)
{
	long result;

#ifdef __x86_64__
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
#else
	/* The 5th argument of pread and pwrite is the upper half of the offset, 0 here. */
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(0) : "memory");
#endif
	return result;
}

static void leave(int status)
{
	for (;;)
		call(SYS_EXIT, status, 0, 0, 0);
}

static long checked(long result)
{
	if (result < 0)
		leave(1);
	return result;
}

static unsigned number(const char *text)
{
	unsigned value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (*text++ - '0');
	return value;
}

/* Writes VALUE in decimal and a newline to the end of TEXT, and returns where it begins. */
static char *decimal(char *end, unsigned value)
{
	*--end = '\n';
	do
		*--end = '0' + value % 10;
	while (value /= 10);
	return end;
}

static void print(int to, unsigned value)
{
	char text[16];
	char *begin = decimal(text + sizeof(text), value);

	checked(call(SYS_WRITE, to, (long)begin, text + sizeof(text) - begin, 0));
}

static unsigned random_places(const char *file, unsigned mib, unsigned count, int writes)
{
	unsigned blocks = mib * (MIB / BLOCK), place = 1, sum = 0;
	long disk = checked(call(SYS_OPEN, (long)file, O_RDWR | O_DIRECT, 0, 0));

	for (unsigned i = 0; i < count; i++) {
		place = place * 1664525 + 1013904223;
		unsigned offset = (place >> 8) % blocks * BLOCK + (writes ? mib * MIB : 0);

		if (checked(call(writes ? SYS_PWRITE : SYS_PREAD, disk, (long)buffer, BLOCK, offset)) != BLOCK)
			leave(1);
		sum = sum * 31 + *(unsigned *)buffer;
	}
	if (writes)
		checked(call(SYS_FSYNC, disk, 0, 0, 0));
	return sum;
}

static long connected(unsigned port)
{
	struct {
		unsigned short family, port;
		unsigned address, zero[2];
	} to = { AF_INET, port >> 8 | port << 8, HOST, { 0, 0 } };
	long descriptor = checked(call(SYS_SOCKET, AF_INET, SOCK_STREAM, 0, 0));

	checked(call(SYS_CONNECT, descriptor, (long)&to, sizeof(to), 0));
	return descriptor;
}

/* Reads from a descriptor to the end, and returns how many bytes there were. */
static unsigned drained(long descriptor)
{
	unsigned total = 0;
	long got;

	while ((got = checked(call(SYS_READ, descriptor, (long)buffer, sizeof(buffer), 0))) != 0)
		total += got;
	return total;
}

static unsigned receive(unsigned port, unsigned mib)
{
	long server = connected(port);

	print(server, mib);
	return drained(server);
}

static unsigned send(unsigned port, unsigned mib)
{
	long server = connected(port);

	print(server, 0);
	for (unsigned left = mib * MIB; left != 0;) {
		unsigned piece = left < sizeof(buffer) ? left : sizeof(buffer);

		left -= checked(call(SYS_WRITE, server, (long)buffer, piece, 0));
	}
	checked(call(SYS_SHUTDOWN, server, SHUT_WR, 0, 0));
	long got = checked(call(SYS_READ, server, (long)buffer, 15, 0));
	buffer[got] = 0;
	return number((char *)buffer);
}

static int same(const char *one, const char *other)
{
	while (*one != 0 && *one == *other)
		one++, other++;
	return *one == *other;
}

__attribute__((used)) static void run(char **arguments)
{
	char *name = arguments[1];

	if (same(name, "random-read") || same(name, "random-write"))
		print(1, random_places(arguments[2], number(arguments[3]), number(arguments[4]), same(name, "random-write")));
	else if (same(name, "receive"))
		print(1, receive(number(arguments[2]), number(arguments[3])));
	else if (same(name, "send"))
		print(1, send(number(arguments[2]), number(arguments[3])));
	else
		leave(2);
	leave(0);
}

/* The kernel starts with the count of arguments on the stack, and the arguments behind it. */
#ifdef __x86_64__
__asm__(".globl _start\n_start:\n\tlea 8(%rsp), %rdi\n\tand $-16, %rsp\n\tcall run\n");
#else
__asm__(".globl _start\n_start:\n\tlea 4(%esp), %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\tpush %eax\n\tcall run\n");
#endif
