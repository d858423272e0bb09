//! [`runs_32_bit_programs`]: whether the host's kernel runs 32-bit programs.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    process::Command,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// The status of the program.
const STATUS: u8 = 42;

/// Runs a 32-bit program.
///
/// # Errors
/// The host's, why it cannot.
pub fn runs_32_bit_programs() -> io::Result<bool> {
    let mut file = File::from(memfd_create(c"replex-doctor", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&program())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    // A file that is open to be written is not executed.
    let read_only = File::open(path)?;
    drop(file);
    let status = Command::new(format!("/proc/self/fd/{}", read_only.as_raw_fd())).status()?;
    Ok(status.code() == Some(STATUS.into()))
}

/// An ELF32 for Linux that ends with [`STATUS`] (System V ABI, Intel386 Supplement; the header, a program header, and the code).
fn program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    #[rustfmt::skip]
    let code = [
        0xb8, 1, 0, 0, 0,      // mov eax, 1  ; exit
        0xbb, STATUS, 0, 0, 0, // mov ebx, STATUS
        0xcd, 0x80,            // int 0x80
    ];
    let len = HEADERS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    let header = [1, BASE + HEADERS, 52, 0, 0, 52 | 32 << 16, 1, 0];
    let segment = [1, 0, BASE, BASE, len, len, 5, 4096];
    for word in header.into_iter().chain(segment) {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests need such a host in any case.
    #[test]
    fn a_host_that_runs_32_bit_programs_is_told() {
        assert!(runs_32_bit_programs().unwrap());
    }
}
