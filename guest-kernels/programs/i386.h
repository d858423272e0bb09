/*
 * The numbers of Linux's system calls for i386 (arch/x86/entry/syscalls/syscall_32.tbl).
 *
 * Where there are several, this is the one whose arguments are as wide as those of 64-bit processors: setgroups32, fchown32, setuid32,
 * setgid32, fcntl64, clock_settime64.
 */
#ifndef I386_H
#define I386_H

/* The processor, for messages. */
#define MACHINE "i386"

enum syscall {
	SYS_EXIT = 1,
	SYS_FORK = 2,
	SYS_READ = 3,
	SYS_WRITE = 4,
	SYS_OPEN = 5,
	SYS_CLOSE = 6,
	SYS_UNLINK = 10,
	SYS_EXECVE = 11,
	SYS_CHDIR = 12,
	SYS_LSEEK = 19,
	SYS_MOUNT = 21,
	SYS_MKDIR = 39,
	SYS_RMDIR = 40,
	SYS_IOCTL = 54,
	SYS_CHROOT = 61,
	SYS_DUP2 = 63,
	SYS_SETSID = 66,
	SYS_SETHOSTNAME = 74,
	SYS_SYMLINK = 83,
	SYS_MMAP = 90,
	SYS_WAIT4 = 114,
	SYS_POLL = 168,
	SYS_RT_SIGPROCMASK = 175,
	SYS_SETGROUPS = 206,
	SYS_FCHOWN = 207,
	SYS_SETUID = 213,
	SYS_SETGID = 214,
	SYS_GETDENTS64 = 220,
	SYS_FCNTL = 221,
	SYS_SIGNALFD4 = 327,
	SYS_PIPE2 = 331,
	SYS_FINIT_MODULE = 350,
	SYS_SOCKET = 359,
	SYS_CLOCK_SETTIME = 404,
};

#endif
