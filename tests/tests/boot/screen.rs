//! A machine on a terminal, and who sits there.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::pty::{Winsize, openpty};

use tests::hang::Guarded;

use crate::program::Boot;

/// The prompt of the guest's shell.
pub const PROMPT: &str = "root@replex:~# ";

/// The keyboard and the screen of a running machine.
pub struct Screen {
    terminal: File,
    /// The terminal's output, read by a thread so that the machine never waits for a reader.
    output: Receiver<Vec<u8>>,
    /// Output that has been shown and not been searched yet.
    shown: String,
}

impl Screen {
    /// A terminal of 33 rows and 101 columns, and the side of it that programs have.
    pub fn open() -> (Self, OwnedFd) {
        let size = Winsize {
            ws_row: 33,
            ws_col: 101,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let terminal = File::from(pty.master);
        let screen = Self {
            output: read(terminal.try_clone().unwrap()),
            terminal,
            shown: String::new(),
        };
        (screen, pty.slave)
    }

    /// Reads until `text` is shown and returns what came before.
    pub fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(at);
                return before;
            }
            let Ok(chunk) = self.output.recv() else {
                panic!("ended before {text:?}: {}", self.shown);
            };
            self.shown.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// Types `command` at the prompt and returns what is shown until the next one, the echo included.
    pub fn command(&mut self, command: &str) -> String {
        self.type_keys(&format!("{command}\r"));
        self.expect(PROMPT)
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }
}

/// Reads `terminal` on a thread, until nobody has its other side any more.
fn read(mut terminal: File) -> Receiver<Vec<u8>> {
    let (sender, output) = channel();
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(len @ 1..) = terminal.read(&mut chunk) {
            if sender.send(chunk[..len].to_vec()).is_err() {
                break;
            }
        }
    });
    output
}

/// Starts `boot` on `terminal`.
pub fn start(boot: &Boot, terminal: &OwnedFd) -> Guarded {
    let clone = || terminal.try_clone().unwrap();
    let mut command = boot.command();
    command.stdin(clone()).stdout(clone()).stderr(clone());
    Guarded::new(command.spawn().unwrap())
}
