//! Memory files, which can be mapped in several places at once.

use std::ffi::CStr;
use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Creates a memfd of `bytes` zeros, sealed so that nobody can change its size under a mapping.
///
/// # Errors
/// The host's, where it grants no file or no such size.
pub fn create(name: &CStr, bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create(
        name,
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.set_len(bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Whether `file` is a memfd that nobody can shrink under a mapping.
pub(crate) fn cannot_shrink(file: &File) -> bool {
    let seals = fcntl(file, FcntlArg::F_GET_SEALS);
    seals.is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK))
}
