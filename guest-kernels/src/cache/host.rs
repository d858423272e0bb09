//! The files of a host kernel in the cache.
//!
//! ```text
//! host-6.1/
//! ├── vmlinuz          as in Debian's package; its presence says that the rest is complete
//! ├── busybox
//! ├── headers/         the unpacked packages, as below /
//! ├── build            the folder in headers/ to build modules in, as a symbolic link
//! ├── modules/         NN-NAME.ko, in the order in which they can be inserted
//! ├── packages
//! └── work/            files of a fetch that is under way
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{
    BUSYBOX, KERNEL, PACKAGES, WORK, cache_folder, is_complete, lock, remove_if_there, replace,
};
use crate::debian;
use crate::error::{FetchError, file_error};
use crate::host::HostKernel;
use crate::progress::Progress;

const HEADERS: &str = "headers";
const BUILD: &str = "build";
const MODULES: &str = "modules";

/// The files of a host kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFiles {
    /// The bzImage.
    pub kernel: PathBuf,
    /// A static x86-64 busybox.
    pub busybox: PathBuf,
    /// The folder for `make -C` to build modules in.
    pub build: PathBuf,
    /// Modules for swap in compressed memory (zram), in the order in which they can be inserted.
    pub modules: Vec<PathBuf>,
}

/// Returns the files of a host kernel from the cache or, the first time, from Debian's archive, as [`fetch`](super::fetch) does
/// with a guest.
///
/// # Errors
/// Any [`FetchError`]; the cache then has no usable files of the kernel.
pub fn fetch_host(
    kernel: HostKernel,
    progress: &mut dyn Progress,
) -> Result<HostFiles, FetchError> {
    let root = cache_folder()?;
    let folder = root.join(format!("host-{kernel}"));
    if !is_complete(&folder) {
        let _lock = lock(&root, progress)?;
        // The process that held the lock before may have fetched the kernel.
        if !is_complete(&folder) {
            download(kernel, &folder, progress)?;
        }
    }
    files(&folder)
}

/// Fetches the files of `kernel` into its folder, the kernel itself last.
fn download(
    kernel: HostKernel,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), FetchError> {
    remove_if_there(folder)?;
    let work = folder.join(WORK);
    let modules = folder.join(MODULES);
    for new in [&work, &modules] {
        fs::create_dir_all(new).map_err(file_error("create", new))?;
    }
    let packages = debian::fetch_host(kernel, &folder.join(HEADERS), &work, progress);
    remove_if_there(&work)?;
    let packages = packages?;
    let build = folder.join(BUILD);
    symlink(Path::new(HEADERS).join(&packages.build), &build)
        .map_err(file_error("create", build))?;
    for (index, (name, module)) in packages.modules.iter().enumerate() {
        replace(&modules.join(format!("{index:02}-{name}.ko")), module)?;
    }
    replace(&folder.join(BUSYBOX), &packages.busybox)?;
    replace(&folder.join(PACKAGES), packages.packages.as_bytes())?;
    replace(&folder.join(KERNEL), &packages.kernel)
}

/// Returns the files in a complete folder.
fn files(folder: &Path) -> Result<HostFiles, FetchError> {
    let modules = folder.join(MODULES);
    let mut paths = fs::read_dir(&modules)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(file_error("list", modules))
        .map(|paths: Vec<_>| paths)?;
    paths.sort();
    Ok(HostFiles {
        kernel: folder.join(KERNEL),
        busybox: folder.join(BUSYBOX),
        build: folder.join(BUILD),
        modules: paths,
    })
}
