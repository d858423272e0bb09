//! Shared parts of the tests: runs of the program, and tiny guests for it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

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

/// An ELF32 for the i386 with `code` at 1 MiB, entered at its start.
pub fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    const START: u32 = 0x10_0000;
    let len = code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    let words = [1, START, 52, 0, 0, 52 | 32 << 16, 1, 0];
    let segment = [1, HEADERS, START, START, len, len, 7, 4096];
    for word in words.into_iter().chain(segment) {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
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

/// A bzImage of protocol 2.12 with `payload`, which `code` precedes at the start of the protected-mode code.
pub fn bzimage(code: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]); // boot_flag, jump
    put(0x202, b"HdrS\x0c\x02"); // header, version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000u32.to_le_bytes()); // code32_start
    put(0x238, &255u32.to_le_bytes()); // cmdline_size
    put(0x248, &(code.len() as u32).to_le_bytes()); // payload_offset
    put(0x24c, &(payload.len() as u32).to_le_bytes()); // payload_length
    file.extend(code);
    file.extend(payload);
    file
}

/// A flat kernel with a Multiboot header that places it at 1 MiB, entered behind the header.
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    const START: u32 = 0x10_0000;
    const HEADER: u32 = 32;
    let (magic, flags) = (0x1bad_b002u32, 1 << 16);
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let header = [magic, flags, sum, START, START, 0, 0, START + HEADER];
    let header = header.into_iter().flat_map(u32::to_le_bytes);
    header.chain(code.iter().copied()).collect()
}
