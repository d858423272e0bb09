//! The initrd: the guest's own or the user's, with the archives around it that tell its init what this boot is for and bring
//! files of the user's.

use std::{io, path::Path};

use anyhow::{Context, Result, bail};
use guest_kernels::{ALIGNMENT, added_archives, exec_archive, winsize_archive};
use vmm::loader::Protocol;

use crate::{
    args::BootArgs,
    file::{self, TooLong},
    terminal::window_size,
};

/// Reads the initrd at `path`, if there is one, for a kernel that is entered by `protocol`, and puts the other archives around
/// it, `modules` among them.
///
/// # Errors
/// If a file cannot be used, or an option has no meaning to the kernel.
pub fn read(
    args: &BootArgs,
    path: Option<&Path>,
    protocol: Protocol,
    modules: Vec<u8>,
) -> Result<Vec<u8>> {
    check(args, path, protocol)?;
    let added = added_archives(&args.add, args.mem).context("--add")?;
    let own = match path {
        Some(path) => read_own(args, path)?,
        None => Vec::new(),
    };
    let session = match (protocol, path) {
        (Protocol::Linux, Some(_)) => session(args),
        _ => None,
    };
    let archives = [
        added.before,
        own,
        session.unwrap_or_default(),
        modules,
        added.behind,
    ];
    let mut archives = archives.into_iter().filter(|archive| !archive.is_empty());
    let mut initrd = archives.next().unwrap_or_default();
    for archive in archives {
        initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
        initrd.extend(archive);
    }
    Ok(initrd)
}

/// Refuses options that nobody would read.
fn check(args: &BootArgs, path: Option<&Path>, protocol: Protocol) -> Result<()> {
    let given = [
        ("--exec", args.exec.is_some()),
        ("--add", !args.add.is_empty()),
    ];
    let given = given.into_iter().find(|&(_, given)| given);
    match (protocol, given) {
        (Protocol::Multiboot, Some((option, _))) => {
            bail!("{option}: the kernel is one for Multiboot, which has no initramfs of Linux")
        }
        (_, Some(("--exec", _))) if path.is_none() => {
            bail!("--exec: needs an initrd; with --kernel, give --initrd")
        }
        _ => Ok(()),
    }
}

/// Makes the archive that tells init what to do, if it is to do anything special.
fn session(args: &BootArgs) -> Option<Vec<u8>> {
    match &args.exec {
        Some(command) => Some(exec_archive(command, None)),
        None => window_size(io::stdin()).map(winsize_archive),
    }
}

fn read_own(args: &BootArgs, path: &Path) -> Result<Vec<u8>> {
    let name = || format!("initrd {}", path.display());
    match file::read(path, args.mem).with_context(name)? {
        Ok(bytes) => Ok(bytes),
        Err(TooLong) => bail!("{}: does not fit in --mem {}M", name(), args.mem >> 20),
    }
}
