//! [`catch_violations`]: the handler of SIGSYS, for system calls that a policy denies.
//!
//! A denied call means that a guest has taken over a thread, or that a policy lacks something. Neither can go on: the handler
//! says which thread has made which call, and ends the process. It allocates nothing, takes no lock, and makes no call but write
//! and exit_group, which every policy allows, besides those of [`before_exit`].

use std::{cell::Cell, sync::OnceLock};

use nix::{
    errno::Errno,
    libc::{self, REG_RAX, c_int, c_long, c_void, siginfo_t, ucontext_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use crate::policy::name_of;

/// `si_code` of a SIGSYS that a filter has raised (SYS_SECCOMP in <asm-generic/siginfo.h>).
const SYS_SECCOMP: c_int = 1;

thread_local! {
    /// The kind of this thread.
    static THREAD: Cell<&'static str> = const { Cell::new("unknown") };
}

/// The status with which the process ends.
static STATUS: OnceLock<u8> = OnceLock::new();
/// What is done before the process ends.
static BEFORE_EXIT: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Notes the kind of the calling thread.
pub(crate) fn name_thread(name: &'static str) {
    THREAD.set(name);
}

/// Lets each denied system call, of whatever thread, end the process with `status` and a message on standard error. The first call
/// in a process counts.
///
/// # Errors
/// If the host refuses the handler of SIGSYS.
pub fn catch_violations(status: u8) -> Result<(), Errno> {
    STATUS.get_or_init(|| status);
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    // SAFETY: `handle` only does what a handler may: it looks at what the kernel passes, writes, and ends the process.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

/// Has `restore` called before a denied system call ends the process, such as to restore the terminal. It runs in a handler of
/// a signal, so it may allocate nothing and take no lock. The first call in a process counts.
pub fn before_exit(restore: impl Fn() + Send + Sync + 'static) {
    BEFORE_EXIT.get_or_init(|| Box::new(restore));
}

extern "C" fn handle(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `info` is the kernel's.
    let code = unsafe { (*info).si_code };
    // SAFETY: the kernel calls with a `ucontext_t` of the interrupted code. A denied call leaves its number in RAX.
    let number = unsafe { (*context.cast::<ucontext_t>()).uc_mcontext.gregs[REG_RAX as usize] };
    if let Some(restore) = BEFORE_EXIT.get() {
        restore();
    }
    let mut message = Message::default();
    if code == SYS_SECCOMP {
        message.add("replex: sandbox: system call ");
        message.add_number(number);
        message.add(" (");
        message.add(name_of(number as c_long));
        message.add(") denied to the thread ");
        message.add(THREAD.get());
        message
            .add("; the guest attacks this host, or this is a bug of replex: please report it\n");
    } else {
        message.add("replex: ended by SIGSYS, which somebody has sent\n");
    }
    let text = message.text();
    // SAFETY: writes bytes that are there. If that fails, nobody can be told.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    let status = STATUS.get().copied().unwrap_or(1);
    // SAFETY: ends the process and runs nothing of it any more.
    unsafe { libc::_exit(status.into()) }
}

/// A message on the stack.
struct Message {
    bytes: [u8; 256],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl Message {
    /// Adds as much of `text` as there is room for.
    fn add(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            if let Some(free) = self.bytes.get_mut(self.len) {
                *free = byte;
                self.len += 1;
            }
        }
    }

    /// Adds a number, decimal; a negative one by its sign alone.
    fn add_number(&mut self, number: i64) {
        let Ok(number) = u64::try_from(number) else {
            return self.add("-");
        };
        if number >= 10 {
            self.add_number((number / 10) as i64);
        }
        let digit = [b'0' + (number % 10) as u8];
        self.add(str::from_utf8(&digit).unwrap_or("?"));
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_text_and_numbers_and_end_where_there_is_no_room() {
        let mut message = Message::default();
        message.add("a");
        for number in [0, 7, 10, 437, i64::MAX, -1] {
            message.add(" ");
            message.add_number(number);
        }
        assert_eq!(message.text(), b"a 0 7 10 437 9223372036854775807 -");
        message.add(&"x".repeat(300));
        assert_eq!(message.text().len(), 256);
    }
}
