//! Signals that end the program, or tell of another size of the terminal's window: a thread waits for them. At an end it restores
//! the terminal and exits.
//!
//! No signal handler is installed, so nothing has to be async-signal-safe, and the terminal is restored even while the
//! machine's thread is busy or blocked.

use std::{fs, io, process, sync::Arc};

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
/// status 128 + the signal's number. When the window has another size, it calls `resized`, if that is given.
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
    let ignored = ignored();
    let ends = |signal: &Signal| ignored & 1 << (*signal as i32 - 1) == 0;
    let mut signals: SigSet = ENDING.into_iter().filter(ends).collect();
    if resized.is_some() {
        signals.add(Signal::SIGWINCH);
    }
    signals.thread_block()?;
    threads.start(ThreadKind::Other("signals"), move || {
        wait(&signals, terminal.as_deref(), resized);
    })?;
    Ok(())
}

/// The signals that this process ignores, as nohup(1) and shells have it, a bit each from signal 1 on (proc_pid_status(5), SigIgn).
/// A blocked signal would be delivered in spite of that.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn wait(signals: &SigSet, terminal: Option<&SavedTerminal>, resized: Option<Box<dyn Fn() + Send>>) {
    // sigwait fails only for a set that holds no signal.
    while let Ok(signal) = signals.wait() {
        if let (Signal::SIGWINCH, Some(resized)) = (signal, &resized) {
            resized();
            continue;
        }
        if let Some(terminal) = terminal {
            terminal.restore();
        }
        process::exit(i32::from(status::SIGNAL) + signal as i32);
    }
}
