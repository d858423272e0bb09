//! The guest: its kernel, base archive and modules, fetched if need be.

use std::path::Path;

use anyhow::{Context, Result, bail};
use guest_kernels::{FetchError, Guest, GuestImages, Stage};
use vmm::{Kernel, loader::Cache};

use crate::{args::KernelArgs, file, message::report_progress, progress::Unpacking};

/// Returns the kernel and the base archive of `guest`. Fetches them if need be.
///
/// # Errors
/// If the guest cannot be fetched.
pub fn fetch(guest: Guest) -> Result<GuestImages> {
    guest_kernels::fetch(guest, &mut report).with_context(|| format!("guest {guest}"))
}

/// Returns the archive with the modules `drivers` of `guest`. Fetches it if need be. A kernel of the user's is to have its drivers.
/// They may replace an incomplete guest in the cache, so they come before [`fetch`].
///
/// # Errors
/// If the guest cannot be fetched.
pub fn modules(args: &KernelArgs, guest: Guest, drivers: &[&str]) -> Result<Vec<u8>> {
    if args.kernel.is_some() || drivers.is_empty() {
        return Ok(Vec::new());
    }
    guest_kernels::modules_archive(guest, drivers, &mut report)
        .with_context(|| format!("modules of guest {guest}"))
}

fn report(stage: &Stage) {
    report_progress(&stage.to_string());
}

/// The folder of unpacked kernels in the user's cache.
const UNPACKED: &str = "vmlinux";
/// The size in bytes of the largest kernel file that is read. One with debugging information has some hundred MiB.
const MOST_KERNEL: u64 = 1 << 30;

/// Reads the kernel at `path` and unpacks it.
///
/// # Errors
/// If it cannot be read, or is no kernel for this machine.
pub fn read_kernel(path: &Path) -> Result<Kernel> {
    let name = || format!("kernel {}", path.display());
    let Ok(file) = file::read(path, MOST_KERNEL).with_context(name)? else {
        bail!("{}: larger than {} GiB", name(), MOST_KERNEL >> 30);
    };
    let cache = unpacked()?;
    let mut unpacking = Unpacking::of(path);
    Kernel::read(file, cache.as_ref(), &mut |bytes| unpacking.done(bytes)).with_context(name)
}

/// The cache of unpacked kernels, if there is a place for it.
fn unpacked() -> Result<Option<Cache>, FetchError> {
    match guest_kernels::cache_folder() {
        Ok(folder) => Ok(Some(Cache::in_dir(folder.join(UNPACKED)))),
        Err(FetchError::NoCacheDir) => Ok(None),
        Err(error) => Err(error),
    }
}
