/* See system.h. */
#include "system.h"

int syscall5(int number, int a, int b, int c, int d, int e)
{
	int result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
		     : "memory", "cc");
	return result;
}

int syscall4(int number, int a, int b, int c, int d)
{
	return syscall5(number, a, b, c, d, 0);
}

int syscall3(int number, int a, int b, int c)
{
	return syscall4(number, a, b, c, 0);
}

void quit(int status)
{
	for (;;)
		syscall3(SYS_EXIT, status, 0, 0);
}

u32 length(const char *text)
{
	u32 len = 0;

	while (text[len])
		len++;
	return len;
}

int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

char *append(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

char *append_number(char *to, u32 number)
{
	char digits[10];
	int count = 0;

	do {
		digits[count++] = '0' + number % 10;
		number /= 10;
	} while (number);
	while (count)
		*to++ = digits[--count];
	return to;
}

void write_all(int fd, const char *bytes, u32 len)
{
	while (len) {
		int done = syscall3(SYS_WRITE, fd, (int)bytes, len);

		if (done == -EINTR)
			continue;
		if (done <= 0)
			return;
		bytes += done;
		len -= done;
	}
}

static void print(int fd, const char *text)
{
	write_all(fd, text, length(text));
}

void fail(int status, const char *what, const char *why)
{
	print(2, "replex: ");
	print(2, what);
	print(2, ": ");
	print(2, why);
	print(2, "\n");
	quit(status);
}

void *allocate(u32 len)
{
	int arguments[] = { 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 };
	int memory = syscall3(SYS_MMAP, (int)arguments, 0, 0);

	if (memory < 0 && memory > -4096)
		fail(CANNOT_EXECUTE, "command", "no memory");
	return (void *)memory;
}

int read_file(const char *path, struct text *text)
{
	int fd = syscall3(SYS_OPEN, (int)path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
	int size, done;

	if (fd < 0)
		return 0;
	size = syscall3(SYS_LSEEK, fd, 0, SEEK_END);
	syscall3(SYS_LSEEK, fd, 0, SEEK_SET);
	text->len = 0;
	if (size < 0)
		size = 0;
	text->bytes = allocate(size + 1);
	while (text->len < (u32)size) {
		done = syscall3(SYS_READ, fd, (int)text->bytes + text->len, size - text->len);
		if (done == -EINTR)
			continue;
		if (done <= 0)
			break;
		text->len += done;
	}
	syscall3(SYS_CLOSE, fd, 0, 0);
	return 1;
}

int number(const char *text)
{
	u32 value = 0;

	if (!*text)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || value > 0x7fffffff / 10 - 1)
			return -1;
		value = value * 10 + (*text - '0');
	}
	return value;
}

void mask_signals(u64 mask)
{
	syscall4(SYS_RT_SIGPROCMASK, SIG_SETMASK, (int)&mask, 0, sizeof(mask));
}

asm(".globl _start\n"
    "_start:\n\t"
    "xor %ebp, %ebp\n\t"
    "mov (%esp), %eax\n\t"
    "lea 4(%esp), %edx\n\t"
    "and $-16, %esp\n\t"
    "sub $8, %esp\n\t"
    "push %edx\n\t"
    "push %eax\n\t"
    "call start");
