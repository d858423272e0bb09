//! Signals of the programs that tests run.

use std::{os::unix::process::CommandExt as _, process::Command};

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has `command` begin with the signals that end a program at their defaults: a shell may have started the tests with some of them
/// ignored, as it does with what it runs in the background.
pub fn with_default_signals(command: &mut Command) {
    let reset = || {
        for end in [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
        ] {
            // SAFETY: installs no handler.
            unsafe { signal(end, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe { command.pre_exec(reset) };
}
