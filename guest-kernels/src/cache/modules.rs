//! The modules of a guest's kernel in the cache, and the archive that brings some of them into one boot.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::{MODULES, cache_folder, download, lock};
use crate::debian::{ModuleFiles, closure};
use crate::error::{FetchError, file_error};
use crate::guest::Guest;
use crate::initramfs;
use crate::progress::Progress;

/// Makes the archive with the modules `wanted` of `guest`'s kernel and those that they need, which the init of the base
/// archive inserts. It belongs after the base archive, at a multiple of [`crate::ALIGNMENT`].
///
/// A guest that an earlier version of this program has put into the cache has no modules there; then all of it is fetched
/// again, so call this before [`crate::fetch`]. Names that no module has are left out.
///
/// # Errors
/// Any [`FetchError`].
pub fn modules_archive(
    guest: Guest,
    wanted: &[&str],
    progress: &mut dyn Progress,
) -> Result<Vec<u8>, FetchError> {
    let root = cache_folder()?;
    let folder = root.join(guest.name());
    let path = folder.join(MODULES);
    if !path.exists() {
        let _lock = lock(&root, progress)?;
        if !path.exists() {
            download(guest, &folder, progress)?;
        }
    }
    let modules = unpack(&path).map_err(file_error("read", &path))?;
    Ok(initramfs::modules_archive(&closure(modules, wanted)))
}

/// Packs modules into the file that keeps them.
pub(super) fn pack(modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>, FetchError> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut pack = || {
        for (name, module) in modules {
            let mut header = tar::Header::new_ustar();
            header.set_size(module.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, format!("{name}.ko"), &**module)?;
        }
        archive.finish()
    };
    pack().map_err(file_error("pack", MODULES))?;
    archive.into_inner().map_err(file_error("pack", MODULES))
}

/// The modules in the file at `path`.
fn unpack(path: &Path) -> io::Result<ModuleFiles> {
    let archive = fs::read(path)?;
    let mut modules = Vec::new();
    for entry in tar::Archive::new(&*archive).entries()? {
        let mut entry = entry?;
        let mut module = Vec::new();
        entry.read_to_end(&mut module)?;
        modules.push((entry.path()?.into_owned(), module));
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_keep_their_order_and_bytes() {
        let modules = vec![
            ("virtio".to_owned(), vec![1; 1000]),
            ("virtio_pci".to_owned(), Vec::new()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODULES);
        fs::write(&path, pack(&modules).unwrap()).unwrap();
        let files = modules
            .into_iter()
            .map(|(name, module)| (format!("{name}.ko").into(), module));
        assert_eq!(unpack(&path).unwrap(), files.collect::<Vec<_>>());
    }
}
