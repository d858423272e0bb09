//! The user's terminal: raw mode, and back.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic,
    sync::Arc,
};

use nix::{
    libc,
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};
use sandbox::before_exit;

use crate::fatal;

/// A terminal that was made raw, and the settings to restore.
#[derive(Debug)]
pub struct SavedTerminal {
    terminal: OwnedFd,
    settings: libc::termios,
    raw: libc::termios,
}

impl SavedTerminal {
    /// Restores the terminal's settings. Harmless when repeated; works from any thread.
    pub fn restore(&self) {
        self.set(self.settings);
    }

    /// Makes the terminal raw again.
    pub fn make_raw(&self) {
        self.set(self.raw);
    }

    fn set(&self, settings: libc::termios) {
        // If the terminal is gone there is nothing to set.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &Termios::from(settings));
    }
}

/// A guard that keeps a terminal raw: every key goes to the guest, ctrl-c included, and output is not processed.
#[derive(Debug)]
pub struct RawMode {
    saved: Arc<SavedTerminal>,
}

impl RawMode {
    /// Makes `terminal` raw.
    ///
    /// # Errors
    /// If it is not a terminal, or its settings cannot be changed.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let settings = tcgetattr(&terminal)?;
        let mut raw = settings.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        let saved = SavedTerminal {
            terminal,
            settings: settings.into(),
            raw: raw.into(),
        };
        Ok(Self {
            saved: Arc::new(saved),
        })
    }

    /// Returns the saved settings, for those who restore the terminal when this cannot be dropped: the panic hook and the signal
    /// thread.
    pub fn saved(&self) -> Arc<SavedTerminal> {
        Arc::clone(&self.saved)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.saved.restore();
    }
}

/// Restores the terminal before a signal or a denied system call ends the program, and before the message of a panic is printed.
pub fn restore_on_sudden_end(raw: &RawMode) {
    let saved = raw.saved();
    fatal::before_end(move || saved.restore());
    let saved = raw.saved();
    before_exit(move || saved.restore());
    let saved = raw.saved();
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        saved.restore();
        report(info);
    }));
}

/// Returns the rows and columns of `terminal`, or none if it is not a terminal or does not know them.
pub fn window_size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a `winsize` through its argument and does nothing else; `size` is one, and ours.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::unix::process::ExitStatusExt as _,
        process::{self, Command},
        ptr,
    };

    use nix::{
        pty::{Winsize, openpty},
        sys::{signal::Signal, termios::LocalFlags},
    };

    use super::*;

    fn local_flags(terminal: &OwnedFd) -> LocalFlags {
        tcgetattr(terminal).unwrap().local_flags
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let pty = openpty(None, None).unwrap();
        let before = local_flags(&pty.slave);
        assert!(before.contains(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO));
        let raw = RawMode::enter(&pty.slave).unwrap();
        assert!(
            !local_flags(&pty.slave)
                .intersects(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO)
        );
        drop(raw);
        assert_eq!(local_flags(&pty.slave), before);
    }

    #[test]
    fn a_panic_restores_the_terminal() {
        let pty = openpty(None, None).unwrap();
        let before = local_flags(&pty.slave);
        let slave = pty.slave.try_clone().unwrap();
        let panicked = panic::catch_unwind(|| {
            let _raw = RawMode::enter(&slave).unwrap();
            // Without a message from the panic hook.
            panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(local_flags(&pty.slave), before);
    }

    /// The variable that tells the process below how to end.
    const END: &str = "REPLEX_TEST_END";

    /// The process that ends suddenly. Without the variable this test has nothing to do.
    #[test]
    fn child() {
        fn recurse(depth: u64) -> u64 {
            let room = std::hint::black_box([depth; 1000]);
            match room[0] {
                u64::MAX => 0,
                depth => recurse(depth + 1) + room[1],
            }
        }
        let Ok(end) = env::var(END) else {
            return;
        };
        fatal::catch().unwrap();
        let raw = RawMode::enter(io::stdin()).unwrap();
        restore_on_sudden_end(&raw);
        match end.as_str() {
            "abort" => process::abort(),
            "overflow" => assert!(recurse(0) > 0),
            // SAFETY: none: the process is to end here, and does nothing else.
            _ => unsafe { ptr::null_mut::<u8>().wrapping_add(16).write_volatile(1) },
        }
    }

    #[test]
    fn faults_of_our_own_restore_the_terminal_and_end_the_process_as_ever() {
        for (end, signal, message) in [
            ("abort", Signal::SIGABRT, ""),
            ("overflow", Signal::SIGABRT, "has overflowed its stack"),
            ("fault", Signal::SIGSEGV, ""),
        ] {
            let pty = openpty(None, None).unwrap();
            let before = local_flags(&pty.slave);
            let output = Command::new(env::current_exe().unwrap())
                .args(["--exact", "terminal::tests::child", "--nocapture"])
                .env(END, end)
                .stdin(pty.slave.try_clone().unwrap())
                .output()
                .unwrap();
            let status = output.status;
            assert_eq!(status.signal(), Some(signal as i32), "{end}: {status}");
            assert!(String::from_utf8_lossy(&output.stderr).contains(message));
            assert_eq!(local_flags(&pty.slave), before, "{end}");
        }
    }

    #[test]
    fn a_saved_terminal_restores_from_another_thread() {
        let pty = openpty(None, None).unwrap();
        let before = local_flags(&pty.slave);
        let raw = RawMode::enter(&pty.slave).unwrap();
        let saved = raw.saved();
        std::thread::spawn(move || saved.restore()).join().unwrap();
        assert_eq!(local_flags(&pty.slave), before);
    }

    #[test]
    fn files_are_no_terminals() {
        let file = tempfile::tempfile().unwrap();
        assert!(RawMode::enter(&file).is_err());
        assert_eq!(window_size(&file), None);
    }

    #[test]
    fn the_window_size_is_read() {
        let size = Winsize {
            ws_row: 50,
            ws_col: 132,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        assert_eq!(window_size(&pty.slave), Some((50, 132)));
    }
}
