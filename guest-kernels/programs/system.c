/* See system.h. */
#include "system.h"

arg syscall4(int number, arg a, arg b, arg c, arg d)
{
	return syscall5(number, a, b, c, d, 0);
}

arg syscall3(int number, arg a, arg b, arg c)
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
		int done = syscall3(SYS_WRITE, fd, (arg)bytes, len);

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
	arg memory = map(len);

	if (memory < 0 && memory > -4096)
		fail(CANNOT_EXECUTE, "command", "no memory");
	return (void *)memory;
}

int read_file(const char *path, struct text *text)
{
	int fd = syscall3(SYS_OPEN, (arg)path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
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
		done = syscall3(SYS_READ, fd, (arg)text->bytes + text->len, size - text->len);
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
	syscall4(SYS_RT_SIGPROCMASK, SIG_SETMASK, (arg)&mask, 0, sizeof(mask));
}
