//! [`name_of`]: the names of system calls that matter here, for messages.

use nix::libc::{self, c_long};

/// Makes a table of the numbers and names of system calls.
macro_rules! calls {
    ($($name:ident)*) => {
        &[$((libc::$name, stringify!($name))),*]
    };
}

/// The calls that a thread which is no longer ours would try, and those of our policies.
const CALLS: &[(c_long, &str)] = calls! {
    SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect SYS_munmap
    SYS_brk SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev
    SYS_access SYS_pipe SYS_select SYS_sched_yield SYS_mremap SYS_mincore SYS_madvise SYS_shmget SYS_shmat SYS_dup SYS_dup2
    SYS_nanosleep SYS_getpid SYS_socket SYS_connect SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown
    SYS_bind SYS_listen SYS_getsockname SYS_getpeername SYS_socketpair SYS_setsockopt SYS_getsockopt SYS_clone SYS_fork
    SYS_vfork SYS_execve SYS_exit SYS_wait4 SYS_kill SYS_uname SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_truncate
    SYS_ftruncate SYS_getdents SYS_getcwd SYS_chdir SYS_rename SYS_mkdir SYS_rmdir SYS_creat SYS_link SYS_unlink SYS_symlink
    SYS_readlink SYS_chmod SYS_fchmod SYS_chown SYS_fchown SYS_umask SYS_gettimeofday SYS_getrlimit SYS_sysinfo SYS_ptrace
    SYS_getuid SYS_getgid SYS_setuid SYS_setgid SYS_geteuid SYS_getegid SYS_capset SYS_rt_sigtimedwait SYS_sigaltstack SYS_mknod
    SYS_personality SYS_statfs SYS_fstatfs SYS_prctl SYS_arch_prctl SYS_setrlimit SYS_chroot SYS_mount SYS_umount2
    SYS_init_module SYS_gettid SYS_setxattr SYS_getxattr SYS_removexattr SYS_tkill SYS_time SYS_futex SYS_sched_getaffinity
    SYS_getdents64 SYS_restart_syscall SYS_timer_create SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_exit_group
    SYS_epoll_wait SYS_epoll_ctl SYS_tgkill SYS_keyctl SYS_openat SYS_mkdirat SYS_mknodat SYS_fchownat SYS_newfstatat
    SYS_unlinkat SYS_renameat SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmodat SYS_faccessat SYS_ppoll SYS_unshare
    SYS_set_robust_list SYS_utimensat SYS_epoll_pwait SYS_timerfd_create SYS_fallocate SYS_accept4 SYS_eventfd2
    SYS_epoll_create1 SYS_dup3 SYS_pipe2 SYS_preadv SYS_pwritev SYS_perf_event_open SYS_prlimit64 SYS_syncfs SYS_setns
    SYS_getcpu SYS_process_vm_readv SYS_process_vm_writev SYS_finit_module SYS_renameat2 SYS_seccomp SYS_getrandom
    SYS_memfd_create SYS_bpf SYS_execveat SYS_userfaultfd SYS_membarrier SYS_copy_file_range SYS_preadv2 SYS_pwritev2
    SYS_pkey_mprotect SYS_statx SYS_rseq SYS_pidfd_send_signal SYS_io_uring_setup SYS_pidfd_open SYS_clone3 SYS_openat2
    SYS_pidfd_getfd SYS_faccessat2 SYS_epoll_pwait2 SYS_landlock_create_ruleset
};

/// The name of the system call with this number, or "unknown".
pub(crate) fn name_of(number: c_long) -> &'static str {
    let known = CALLS.iter().find(|(known, _)| *known == number);
    let name = known.map_or("unknown", |(_, name)| *name);
    name.strip_prefix("SYS_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_names_of_the_manual() {
        assert_eq!(name_of(41), "socket");
        assert_eq!(name_of(59), "execve");
        assert_eq!(name_of(437), "openat2");
        assert_eq!(name_of(-1), "unknown");
    }
}
