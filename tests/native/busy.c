/*
 * Busy processes: `busy PROCESSES SECONDS`, a program for the guest.
 *
 * Each process walks 32 MiB of addresses until the time is over: 24 MiB that all have from their parent and only read, and 8 MiB that
 * it writes, so that 64 of them fit in 1 GiB. It takes a piece of 1 MiB at a time, goes over that eight times, and on to the next.
 * What it reads it knows in advance; anything else is a failure. At the end this prints how many MiB all have gone over, and the
 * process that came least far:
 *
 *   PROCESSES processes: N MiB, the least N MiB, failures N
 */
#include "linux.h"

#define SYS_FORK 2
#define SYS_WAITPID 7
#define SYS_CLOCK_GETTIME 265
#define CLOCK_MONOTONIC 1
#define STDOUT 1

#define MOST_PROCESSES 256
#define PIECE (1 << 18) /* words */
#define SHARED_PIECES 24
#define OWN_PIECES 8
#define PASSES 8

struct timespec {
	int seconds;
	int nanoseconds;
};

/* What a process has done, in memory that it shares with its parent. */
struct account {
	unsigned passes;
	unsigned failures;
};

static unsigned shared[SHARED_PIECES][PIECE];
static unsigned sums[SHARED_PIECES];
static unsigned own[OWN_PIECES][PIECE];

static int syscall3(int number, int a, int b, int c)
{
	int result;

	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

static int map_shared(unsigned size)
{
	/* Six arguments: EBP is the last. */
	int result;

	asm volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
		     : "=a"(result)
		     : "a"(SYS_MMAP2), "b"(0), "c"(size), "d"(PROT_READ | PROT_WRITE),
		       "S"(MAP_SHARED | MAP_ANONYMOUS), "D"(-1)
		     : "memory");
	return result;
}

static int now(void)
{
	struct timespec time;

	syscall3(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (int)&time, 0);
	return time.seconds;
}

static void fill(void)
{
	unsigned piece, word, value = 1;

	for (piece = 0; piece < SHARED_PIECES; piece++)
		for (word = 0; word < PIECE; word++) {
			value = value * 1664525 + 1013904223;
			shared[piece][word] = value;
			sums[piece] += value;
		}
}

/* Goes over a piece that all have. */
static int read_shared(unsigned piece)
{
	const volatile unsigned *words = shared[piece];
	unsigned word, sum = 0;

	for (word = 0; word < PIECE; word++)
		sum += words[word];
	return sum == sums[piece];
}

/* Goes over a piece of the process's own, whose words all count its passes. */
static int count_own(unsigned piece)
{
	volatile unsigned *words = own[piece];
	unsigned word, wrong = 0, expected = words[0];

	for (word = 0; word < PIECE; word++)
		wrong |= words[word]++ ^ expected;
	return !wrong;
}

static void work(unsigned number, int end, struct account *account)
{
	/* Not all in step. */
	unsigned piece = number % (SHARED_PIECES + OWN_PIECES), pass;

	do {
		for (pass = 0; pass < PASSES; pass++) {
			int right = piece < SHARED_PIECES ? read_shared(piece) :
							    count_own(piece - SHARED_PIECES);

			account->failures += !right;
			account->passes++;
		}
		piece = (piece + 1) % (SHARED_PIECES + OWN_PIECES);
	} while (now() < end);
}

static void print(const char *text)
{
	unsigned length = 0;

	while (text[length])
		length++;
	syscall3(SYS_WRITE, STDOUT, (int)text, length);
}

static void print_number(unsigned number)
{
	char digits[12];
	char *first = digits + sizeof(digits) - 1;

	*first = 0;
	do {
		*--first = '0' + number % 10;
		number /= 10;
	} while (number);
	print(first);
}

static unsigned parse(const char *text)
{
	unsigned number = 0;

	while (*text >= '0' && *text <= '9')
		number = number * 10 + *text++ - '0';
	return number;
}

__attribute__((used)) static int run(char **arguments)
{
	unsigned processes = parse(arguments[1]), number, passes = 0, least = -1, failures = 0;
	struct account *accounts = (struct account *)map_shared(MOST_PROCESSES * sizeof(*accounts));
	int end, status;

	fill();
	end = now() + parse(arguments[2]);
	for (number = 0; number < processes; number++) {
		int child = syscall3(SYS_FORK, 0, 0, 0);

		if (child < 0) {
			print("fork failed\n");
			return 1;
		}
		if (!child) {
			work(number, end, &accounts[number]);
			return 0;
		}
	}
	while (syscall3(SYS_WAITPID, -1, (int)&status, 0) > 0)
		failures += status != 0;
	for (number = 0; number < processes; number++) {
		failures += accounts[number].failures;
		passes += accounts[number].passes;
		if (accounts[number].passes < least)
			least = accounts[number].passes;
	}
	print_number(processes);
	print(" processes: ");
	print_number(passes);
	print(" MiB, the least ");
	print_number(least);
	print(" MiB, failures ");
	print_number(failures);
	print("\n");
	return failures != 0;
}

asm(".globl _start\n"
    "_start:\n"
    "	leal	4(%esp), %eax\n"
    "	pushl	%eax\n"
    "	call	run\n"
    "	movl	%eax, %ebx\n"
    "	movl	$252, %eax\n"
    "	int	$0x80\n");
