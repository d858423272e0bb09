/* Numbers of the ABI of Linux: of i386 (arch/x86/entry/syscalls/syscall_32.tbl) or x86-64 (syscall_64.tbl), and include/uapi. */
#ifdef __x86_64__
#define SYS_READ 0
#define SYS_WRITE 1
#define SYS_MMAP 9
#define SYS_MUNMAP 11
#define SYS_RT_SIGACTION 13
#define SYS_RT_SIGRETURN 15
#define SYS_SIGALTSTACK 131
#define SYS_MODIFY_LDT 154
#define SYS_ARCH_PRCTL 158
#define SYS_EXIT_GROUP 231
#else
#define SYS_READ 3
#define SYS_WRITE 4
#define SYS_MODIFY_LDT 123
#define SYS_RT_SIGRETURN 173
#define SYS_RT_SIGACTION 174
#define SYS_SIGALTSTACK 186
#define SYS_MMAP2 192
#define SYS_EXIT_GROUP 252
#endif

/* Of i386 for both: x86-64 has no call of its own for it. */
#define SYS_SET_THREAD_AREA_I386 243

/* arch_prctl: the bases of FS and GS. */
#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004

#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define MAP_FIXED_NOREPLACE 0x100000

#define SIGILL 4
#define SIGTRAP 5
#define SIGBUS 7
#define SIGFPE 8
#define SIGSEGV 11
#define SA_SIGINFO 4
#define SA_RESTORER 0x04000000
#define SA_ONSTACK 0x08000000
#define SA_NODEFER 0x40000000
/* sigaltstack: while a handler runs there is no stack for signals, so that none counts as in use (Linux 4.7). */
#define SS_AUTODISARM 0x80000000

/* struct user_desc: seg_32bit, contents (0 data, 1 expand-down) << 1, read_exec_only << 3. */
#define USER_DESC_DATA 1
#define USER_DESC_EXPAND_DOWN (1 | 1 << 1)
#define USER_DESC_READ_ONLY (1 | 1 << 3)

/* modify_ldt: write an entry, with all bits of struct user_desc. */
#define LDT_WRITE 0x11
/* An entry with read_exec_only and seg_not_present and nothing else empties its slot. */
#define USER_DESC_EMPTY (1 << 3 | 1 << 5)

/* Vector of #GP. */
#define GENERAL_PROTECTION 13

/* Descriptor that the parent leaves open for the shared file. */
#define SHARED_FD 2
/* "No file" as an offset of the shared file. */
#define ANONYMOUS 0xffffffff

/* EFLAGS of ordinary code: the fixed bit and IF. */
#define PLAIN_EFLAGS 0x202

/* How the program tells that it could not set itself up. */
#define STATUS_MAP 70
#define STATUS_SIGNAL 71
#define STATUS_SEGMENT 72
#define STATUS_LDT 73
#define STATUS_BASE 74
