//! The policies of the threads that run the machine, end it and debug it.

use nix::libc;

use super::{
    Call, Condition, Policy,
    common::{DESCRIPTORS, PROCESS, RESTORE_TERMINAL, SOCKET_REQUESTS},
    has, is, is_null,
};

/// The settings of the terminal, and its size. Not TIOCSTI, by which a process types on it.
const TERMINAL: [&[Condition]; 9] = [
    RESTORE_TERMINAL[0],
    RESTORE_TERMINAL[1],
    RESTORE_TERMINAL[2],
    RESTORE_TERMINAL[3],
    &[is(1, libc::TCSETSW as u32)],
    &[is(1, libc::TCSETSF as u32)],
    &[is(1, libc::TIOCGWINSZ as u32)],
    // TCSETSW2 and TCSETSF2.
    &[is(1, 0x402c_542c)],
    &[is(1, 0x402c_542d)],
];

/// The requests of the host's kernel module (`kmod/replex.h`): type R, numbers 0x40 to 0x4f, of any size.
const KMOD: &[Condition] = &[has(1, 0xfff0, 0x5240)];

/// What the thread does that runs a processor, its board and the console.
const RUN: &[Call] = &[
    Call::only(
        libc::SYS_ioctl,
        &const {
            let mut requests = [KMOD; TERMINAL.len() + 1];
            let (terminal, _) = requests.split_at_mut(TERMINAL.len());
            terminal.copy_from_slice(&TERMINAL);
            requests
        },
    ),
    // Answers to gdb, over a connection that its thread has accepted.
    Call::only(libc::SYS_sendto, &[&[is_null(4)]]),
    Call::any(libc::SYS_shutdown),
];

/// What a thread does that waits for signals or the streams of the program.
const WAIT: &[Call] = &[
    Call::any(libc::SYS_rt_sigtimedwait),
    Call::only(libc::SYS_ioctl, &TERMINAL),
];

/// What the thread does that accepts gdb and reads from it.
const DEBUG: &[Call] = &[
    Call::any(libc::SYS_accept),
    Call::any(libc::SYS_accept4),
    Call::any(libc::SYS_recvfrom),
    Call::any(libc::SYS_setsockopt),
    Call::any(libc::SYS_shutdown),
    SOCKET_REQUESTS,
    // It removes its socket at the end; Landlock leaves it the folder of that.
    Call::any(libc::SYS_unlink),
    Call::any(libc::SYS_unlinkat),
];

impl Policy {
    /// The thread that runs guest code, a processor's: it opens nothing, connects to nothing and starts nothing.
    pub const VCPU: Self = Self {
        thread: "vcpu",
        allowed: &[PROCESS, DESCRIPTORS, RUN],
    };

    /// A thread that waits for signals, or carries bytes between streams that are open.
    pub const STREAMS: Self = Self {
        thread: "streams",
        allowed: &[PROCESS, DESCRIPTORS, WAIT],
    };

    /// The thread that accepts gdb and reads from it.
    pub const GDB: Self = Self {
        thread: "gdb",
        allowed: &[PROCESS, DESCRIPTORS, DEBUG],
    };
}
