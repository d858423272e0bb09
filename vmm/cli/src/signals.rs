//! Signals that end or stop the program, or tell of another size of the terminal's window: a thread waits for them. At an end or a
//! stop it restores the terminal.
//!
//! No signal handler is installed, so nothing has to be async-signal-safe, and the terminal is restored even while the
//! machine's thread is busy or blocked.

use std::{io, mem::MaybeUninit, process, ptr, sync::Arc};

use nix::{
    libc,
    sys::signal::{SigSet, Signal, raise},
};

use vmm::{ThreadKind, Threads, stop::status};

use crate::terminal::SavedTerminal;

/// The signals that end the program.
const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Starts a thread that waits for the signals that end the program. It restores `terminal`, which is raw, if there is one, and exits
/// with status 128 + the signal's number. Between a stop (SIGTSTP) and SIGCONT the terminal is restored, too. When the window has
/// another size, the thread calls `resized`, if that is given.
///
/// Call this before other threads are started: they inherit the blocked signals.
///
/// # Errors
/// If the signals cannot be blocked or the thread cannot be started.
pub fn exit_on_signals(
    terminal: Option<Arc<SavedTerminal>>,
    resized: Option<Box<dyn Fn() + Send>>,
    threads: &Threads,
) -> io::Result<()> {
    let mut signals: SigSet = ENDING.into_iter().filter(|&end| !is_ignored(end)).collect();
    if resized.is_some() {
        signals.add(Signal::SIGWINCH);
    }
    if terminal.is_some() && !is_ignored(Signal::SIGTSTP) {
        signals.add(Signal::SIGTSTP);
        signals.add(Signal::SIGCONT);
    }
    signals.thread_block()?;
    threads.start(ThreadKind::Other("signals"), move || {
        wait(&signals, terminal.as_deref(), resized);
    })?;
    Ok(())
}

/// Whether this process ignores a signal, as nohup(1) and shells have it. If blocked, it would be delivered in spite of that.
fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction(2) only writes the present one to `action`.
    let result = unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeroes are a valid action: the default one.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

fn wait(signals: &SigSet, terminal: Option<&SavedTerminal>, resized: Option<Box<dyn Fn() + Send>>) {
    // sigwait fails only for a set that holds no signal.
    while let Ok(signal) = signals.wait() {
        match (signal, terminal) {
            (Signal::SIGWINCH, _) => {}
            (Signal::SIGTSTP, Some(terminal)) => {
                terminal.restore();
                // The whole program stops by it, as it would have by the other.
                let _ = raise(Signal::SIGSTOP);
                continue;
            }
            // The window may have changed meanwhile.
            (Signal::SIGCONT, Some(terminal)) => terminal.make_raw(),
            _ => {
                if let Some(terminal) = terminal {
                    terminal.restore();
                }
                process::exit(i32::from(status::SIGNAL) + signal as i32);
            }
        }
        if let Some(resized) = &resized {
            resized();
        }
    }
}
