/*
 * All programs here are freestanding: this header declares Linux's system calls, and the few functions that would otherwise
 * come from a library. Each processor has a header with its system calls' numbers (i386.h, amd64.h), and a file with the code
 * that makes them and `_start` (i386.c, amd64.c).
 */
#ifndef SYSTEM_H
#define SYSTEM_H

typedef unsigned int u32;
typedef unsigned long long u64;

/* An argument or the result of a system call: a number or a pointer. */
typedef long arg;

#ifdef __x86_64__
#include "amd64.h"
#else
#include "i386.h"
#endif

#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_CREAT 0100
#define O_NOCTTY 0400
#define O_TRUNC 01000
#define O_NONBLOCK 04000
#define O_CLOEXEC 02000000
#define SEEK_END 2
#define SEEK_SET 0
#define F_SETFD 2
#define F_GETFL 3
#define F_SETFL 4
#define FD_CLOEXEC 1
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define POLLIN 1
#define POLLOUT 4
#define TIOCSWINSZ 0x5414
#define SIG_SETMASK 2
#define SIGPIPE 13
#define SIGCHLD 17

#define ENOENT 2
#define EINTR 4
#define E2BIG 7
#define ENOEXEC 8
#define EAGAIN 11
#define EACCES 13
#define ENOTDIR 20

/* Exit statuses of a command that cannot be executed (POSIX, Shell Command Language, 2.8.2 Exit Status for Commands). */
#define CANNOT_EXECUTE 126
#define NOT_FOUND 127

/* The content of a file. */
struct text {
	char *bytes;
	u32 len;
};

/* The program, which `_start` calls. */
void start(int argc, char **argv);

arg syscall5(int number, arg a, arg b, arg c, arg d, arg e);
arg syscall4(int number, arg a, arg b, arg c, arg d);
arg syscall3(int number, arg a, arg b, arg c);
/* Maps `len` bytes of zeroes. Returns their address, or the negative error. */
arg map(u32 len);
void quit(int status) __attribute__((noreturn));

u32 length(const char *text);
int equal(const char *a, const char *b);

/* Copies text to `to`, without a NUL, and returns the end. */
char *append(char *to, const char *text);
char *append_number(char *to, u32 number);

/* The number that is the whole of `text`, or -1. */
int number(const char *text);

void write_all(int fd, const char *bytes, u32 len);

/* Ends the process with a message "replex: WHAT: WHY" on standard error. */
void fail(int status, const char *what, const char *why) __attribute__((noreturn));

/* Memory of `len` bytes, zeroes, that is never given back. */
void *allocate(u32 len);

/* Reads a file, with a NUL behind it. Returns whether it could be read. */
int read_file(const char *path, struct text *text);

/* Blocks these signals and no others. */
void mask_signals(u64 mask);

#endif
