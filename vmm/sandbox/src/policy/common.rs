//! What every thread needs: memory, time, locks, open descriptors, and to end.
//!
//! The lists hold the old and the new spelling of a call, so that they fit glibc and musl of any age.

use nix::libc;

use super::{Call, Condition, Test, is, lacks};

/// No mapping may be executable. All that a machine executes is mapped before its threads are confined.
const NOT_EXECUTABLE: Condition = lacks(2, libc::PROT_EXEC as u32);

/// PR_SET_VMA: to name anonymous memory, as allocators do.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// What the allocator, locks, time, panics and the end of a thread or process need.
pub(super) const PROCESS: &[Call] = &[
    Call::only(libc::SYS_mmap, &[&[NOT_EXECUTABLE]]),
    Call::only(libc::SYS_mprotect, &[&[NOT_EXECUTABLE]]),
    Call::any(libc::SYS_munmap),
    Call::any(libc::SYS_mremap),
    Call::any(libc::SYS_madvise),
    Call::any(libc::SYS_brk),
    Call::any(libc::SYS_futex),
    Call::any(libc::SYS_membarrier),
    Call::any(libc::SYS_rseq),
    Call::any(libc::SYS_set_robust_list),
    Call::any(libc::SYS_sched_yield),
    Call::any(libc::SYS_sched_getaffinity),
    Call::any(libc::SYS_getcpu),
    Call::any(libc::SYS_clock_gettime),
    Call::any(libc::SYS_clock_getres),
    Call::any(libc::SYS_gettimeofday),
    Call::any(libc::SYS_time),
    Call::any(libc::SYS_nanosleep),
    Call::any(libc::SYS_clock_nanosleep),
    Call::any(libc::SYS_restart_syscall),
    Call::any(libc::SYS_getrandom),
    Call::any(libc::SYS_getpid),
    Call::any(libc::SYS_gettid),
    Call::any(libc::SYS_getuid),
    Call::any(libc::SYS_geteuid),
    Call::any(libc::SYS_getgid),
    Call::any(libc::SYS_getegid),
    Call::any(libc::SYS_rt_sigaction),
    Call::any(libc::SYS_rt_sigprocmask),
    Call::any(libc::SYS_rt_sigreturn),
    Call::any(libc::SYS_sigaltstack),
    // abort() and raise().
    Call::only(
        libc::SYS_tgkill,
        &[&[Condition {
            argument: 0,
            test: Test::IsOwnProcess,
        }]],
    ),
    Call::only(
        libc::SYS_prctl,
        &[
            &[is(0, libc::PR_SET_NAME as u32)],
            &[is(0, libc::PR_GET_NAME as u32)],
            &[is(0, PR_SET_VMA)],
        ],
    ),
    Call::any(libc::SYS_exit),
    Call::any(libc::SYS_exit_group),
];

/// The requests of tcgetattr(3) and tcsetattr(3), by which whichever thread ends the process restores the terminal: TCGETS and TCSETS,
/// and TCGETS2 and TCSETS2, which glibc has used since 2.42.
pub(super) const RESTORE_TERMINAL: [&[Condition]; 4] = [
    &[is(1, libc::TCGETS as u32)],
    &[is(1, libc::TCSETS as u32)],
    &[is(1, 0x802c_542a)],
    &[is(1, 0x402c_542b)],
];

/// The requests of a thread with sockets: those that restore the terminal, and that a socket is not to wait.
pub(super) const SOCKET_REQUESTS: Call = Call::only(
    libc::SYS_ioctl,
    &[
        RESTORE_TERMINAL[0],
        RESTORE_TERMINAL[1],
        RESTORE_TERMINAL[2],
        RESTORE_TERMINAL[3],
        &[is(1, libc::FIONBIO as u32)],
    ],
);

/// What is done with descriptors that are open.
pub(super) const DESCRIPTORS: &[Call] = &[
    Call::any(libc::SYS_read),
    Call::any(libc::SYS_readv),
    Call::any(libc::SYS_write),
    Call::any(libc::SYS_writev),
    // Guest memory is a file, too, into which large pieces are written.
    Call::any(libc::SYS_pread64),
    Call::any(libc::SYS_pwrite64),
    Call::any(libc::SYS_close),
    Call::any(libc::SYS_fstat),
    Call::any(libc::SYS_poll),
    Call::any(libc::SYS_ppoll),
    Call::only(
        libc::SYS_fcntl,
        &[
            &[is(1, libc::F_GETFD as u32)],
            &[is(1, libc::F_SETFD as u32)],
            &[is(1, libc::F_GETFL as u32)],
            &[is(1, libc::F_SETFL as u32)],
            &[is(1, libc::F_DUPFD_CLOEXEC as u32)],
        ],
    ),
];

/// The calls that fail with EPERM, where a policy does not allow them, since who makes them can do without: looks at files and
/// limits, which a backtrace takes and the allocator may; and new threads and processes, for which libc blocks all signals, so that
/// nobody would see why the process ends.
pub(crate) const REFUSED: &[Call] = &[
    Call::any(libc::SYS_open),
    Call::any(libc::SYS_openat),
    Call::any(libc::SYS_openat2),
    Call::any(libc::SYS_stat),
    Call::any(libc::SYS_lstat),
    Call::any(libc::SYS_newfstatat),
    Call::any(libc::SYS_statx),
    Call::any(libc::SYS_access),
    Call::any(libc::SYS_faccessat),
    Call::any(libc::SYS_faccessat2),
    Call::any(libc::SYS_readlink),
    Call::any(libc::SYS_readlinkat),
    Call::any(libc::SYS_getcwd),
    Call::any(libc::SYS_sysinfo),
    Call::any(libc::SYS_uname),
    Call::any(libc::SYS_prlimit64),
    Call::any(libc::SYS_getrlimit),
    Call::any(libc::SYS_clone),
    Call::any(libc::SYS_clone3),
    Call::any(libc::SYS_fork),
    Call::any(libc::SYS_vfork),
];
