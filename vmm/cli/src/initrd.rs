//! The initrd: the guest's own or the user's, with the archives around it that tell its init what this boot is for and bring
//! files of the user's.

use std::path::Path;

use anyhow::{Context, Result, bail};
use guest_kernels::{ALIGNMENT, AddedArchives};

use crate::{
    args::MachineArgs,
    file::{self, TooLong},
};

/// Reads the initrd at `path`, if there is one, and puts `archives` behind it and `added` around all.
///
/// # Errors
/// If it cannot be read, or is larger than the machine's memory.
pub fn read(
    path: Option<&Path>,
    machine: &MachineArgs,
    added: AddedArchives,
    archives: Vec<Vec<u8>>,
) -> Result<Vec<u8>> {
    let own = match path {
        Some(path) => read_own(machine, path)?,
        None => Vec::new(),
    };
    let all = [added.before, own].into_iter();
    let all = all.chain(archives).chain([added.behind]);
    let mut all = all.filter(|archive| !archive.is_empty());
    let mut initrd = all.next().unwrap_or_default();
    for archive in all {
        append(&mut initrd, &archive);
    }
    Ok(initrd)
}

/// Puts `archive` behind `initrd`.
pub fn append(initrd: &mut Vec<u8>, archive: &[u8]) {
    initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
    initrd.extend(archive);
}

fn read_own(machine: &MachineArgs, path: &Path) -> Result<Vec<u8>> {
    let name = || format!("initrd {}", path.display());
    match file::read(path, machine.mem).with_context(name)? {
        Ok(bytes) => Ok(bytes),
        Err(TooLong) => bail!("{}: does not fit in --mem {}M", name(), machine.mem >> 20),
    }
}
