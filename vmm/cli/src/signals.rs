//! Signals that end the program: a thread waits for them, restores the terminal and exits.
//!
//! No signal handler is installed, so nothing has to be async-signal-safe, and the terminal is restored even while the
//! machine's thread is busy or blocked.

use std::{io, process, sync::Arc};

use nix::sys::signal::{SigSet, Signal};

use vmm::{ThreadKind, Threads, stop::status};

use crate::terminal::SavedTerminal;

/// The signals that end the program.
const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Starts a thread that waits for the signals that end the program. It restores `terminal`, if there is one, and exits with
/// status 128 + the signal's number.
///
/// Call this before other threads are started: they inherit the blocked signals.
///
/// # Errors
/// If the signals cannot be blocked or the thread cannot be started.
pub fn exit_on_signals(terminal: Option<Arc<SavedTerminal>>, threads: &Threads) -> io::Result<()> {
    let signals: SigSet = ENDING.into_iter().collect();
    signals.thread_block()?;
    threads.start(ThreadKind::Other("signals"), move || {
        wait(&signals, terminal.as_deref());
    })?;
    Ok(())
}

fn wait(signals: &SigSet, terminal: Option<&SavedTerminal>) {
    // sigwait fails only for a set that holds no signal.
    if let Ok(signal) = signals.wait() {
        if let Some(terminal) = terminal {
            terminal.restore();
        }
        process::exit(i32::from(status::SIGNAL) + signal as i32);
    }
}
