//! Shared parts of the tests: runs of the program, and tiny guests for it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

pub use guest_kernels::tiny::{bzimage, elf, elf64, multiboot};
use tempfile::TempDir;
use tests::signals::with_default_signals;

/// The program with its cache in a folder of its own, and the folder.
pub struct Replex {
    pub dir: TempDir,
}

impl Replex {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// `replex` with these arguments, standard input empty.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replex"));
        command
            .args(args)
            .stdin(Stdio::null())
            .env("REPLEX_CACHE", self.dir.path())
            .env_remove("RUST_LOG");
        with_default_signals(&mut command);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Writes a file and returns its name.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path: PathBuf = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a guest made of these instructions, entered with flat segments at 1 MiB.
    pub fn run_guest(&self, code: &[u8]) -> Output {
        let kernel = self.file("guest", &elf(code));
        self.run(&["boot", "--kernel", &kernel])
    }
}

/// A guest that raises RTS, sends `>`, sends back what it receives, and at ctrl-d ends with status 42.
#[rustfmt::skip]
pub const ECHO: &[u8] = &[
    0x66, 0xba, 0xfc, 0x03, // mov dx, 0x3fc  ; modem control
    0xb0, 0x03,             // mov al, 3
    0xee,                   // out dx, al
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8  ; data
    0xb0, b'>',             // mov al, '>'
    0xee,                   // out dx, al
    0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd  ; line status
    0xec,                   // in al, dx
    0xa8, 0x01,             // test al, 1
    0x74, 0xf7,             // jz again
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xec,                   // in al, dx
    0x3c, 0x04,             // cmp al, 4
    0x74, 0x03,             // je end
    0xee,                   // out dx, al
    0xeb, 0xeb,             // jmp again
    0xb0, 42,               // end: mov al, 42
    0xe6, 0xf4,             // out 0xf4, al
];
