/*
 * The numbers of Linux's system calls for x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
 */
#ifndef AMD64_H
#define AMD64_H

/* The processor, for messages. */
#define MACHINE "x86-64"

enum syscall {
	SYS_READ = 0,
	SYS_WRITE = 1,
	SYS_OPEN = 2,
	SYS_CLOSE = 3,
	SYS_POLL = 7,
	SYS_LSEEK = 8,
	SYS_MMAP = 9,
	SYS_RT_SIGPROCMASK = 14,
	SYS_IOCTL = 16,
	SYS_DUP2 = 33,
	SYS_SOCKET = 41,
	SYS_FORK = 57,
	SYS_EXECVE = 59,
	SYS_EXIT = 60,
	SYS_WAIT4 = 61,
	SYS_FCNTL = 72,
	SYS_CHDIR = 80,
	SYS_MKDIR = 83,
	SYS_RMDIR = 84,
	SYS_UNLINK = 87,
	SYS_SYMLINK = 88,
	SYS_FCHOWN = 93,
	SYS_SETUID = 105,
	SYS_SETGID = 106,
	SYS_SETSID = 112,
	SYS_SETGROUPS = 116,
	SYS_CHROOT = 161,
	SYS_MOUNT = 165,
	SYS_SETHOSTNAME = 170,
	SYS_GETDENTS64 = 217,
	SYS_CLOCK_SETTIME = 227,
	SYS_SIGNALFD4 = 289,
	SYS_PIPE2 = 293,
	SYS_FINIT_MODULE = 313,
};

#endif
