//! Signals by which a broken program ends: something is done before they end it, such as to restore the terminal.
//!
//! The handlers are installed when the program begins, so others come first: the engine's handler of SIGSEGV passes on what is no
//! fault of emitted code, and the sandbox's of SIGSYS replaces this one. The end itself stays as it would be: the handler that was
//! there before (of Rust's runtime, which tells of a stack overflow) is called, then the default action ends the process.

use std::sync::OnceLock;

use nix::{
    errno::Errno,
    libc::{c_int, c_void, siginfo_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction},
};

const FATAL: [Signal; 6] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
];

/// The handlers that were there before.
static BEFORE: OnceLock<Vec<(Signal, SigAction)>> = OnceLock::new();
/// What is done before the end.
static LAST: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Catches the signals, before other threads and other handlers of theirs are there.
///
/// # Errors
/// If the host refuses the handlers.
pub fn catch() -> Result<(), Errno> {
    // On the stack for signals, as emitted code has a stack of its own, which may be in use up to its end.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    let mut before = Vec::new();
    for signal in FATAL {
        // SAFETY: `handle` only does what a handler may: what `before_end` requires, the handler that was there before, and system
        // calls that are safe there.
        before.push((signal, unsafe { sigaction(signal, &action) }?));
    }
    BEFORE.get_or_init(|| before);
    Ok(())
}

/// Has `last` called before a signal ends the process. It runs in a handler of a signal, so it may allocate nothing and take no
/// lock. The first call in a process counts.
pub fn before_end(last: impl Fn() + Send + Sync + 'static) {
    LAST.get_or_init(|| Box::new(last));
}

extern "C" fn handle(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    if let Some(last) = LAST.get() {
        last();
    }
    let mut before = BEFORE.get().into_iter().flatten();
    let before = before.find(|(signal, _)| *signal as c_int == number);
    match before.map(|(_, action)| action.handler()) {
        Some(SigHandler::SigAction(handler)) => handler(number, info, context),
        Some(SigHandler::Handler(handler)) => handler(number),
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => {}
    }
    let Ok(signal) = Signal::try_from(number) else {
        return;
    };
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: without a handler the signal, which is raised again, ends the process when this returns and it is no longer blocked.
    let _ends_all_the_same = unsafe { sigaction(signal, &default) };
    let _ends_all_the_same = raise(signal);
}
