//! Debian's kernels, busybox and whole systems, fetched by means of apt.
//!
//! ```text
//! apt's sources ─▶ archive URI ─▶ private apt state ─▶ signed lists ─▶ package names ─▶ .deb files ─▶ vmlinuz, busybox
//! ```
//!
//! As always, apt checks the lists by the archive's signature and the packages by their hashes in the lists, and
//! follows the user's own apt settings such as a proxy. Only its state and its sources are private to one fetch, so the
//! system's apt does not change and no privilege is needed. Packages are unpacked, never installed on the host.

mod apt;
mod archive;
mod host;
mod modules;
mod package;
mod root;

use std::fs;
use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::error::{FetchError, file_error};
use crate::guest::Guest;
use crate::progress::{Progress, Stage};
use apt::{Apt, PackageInfo, Source};
pub(crate) use host::fetch_host;
use modules::module_name;
pub(crate) use modules::{ModuleFiles, closure};
pub(crate) use root::{SETUP, fetch_root, is_installed};

/// The Debian release that the guests come from.
const SUITE: &str = "bookworm";

/// The package with a statically linked busybox.
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// The file of busybox in that package.
const BUSYBOX_FILE: &str = "bin/busybox";

/// The prefix of the names of packages with a kernel.
const IMAGE_PREFIX: &str = "linux-image-";

/// The modules that a machine's guest may need: drivers of virtio devices, and file systems on them. What they need comes along.
const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio-rng",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtiofs",
    "overlay",
    "squashfs",
    "isofs",
    "crc32c_generic",
    "ext4",
];
/// The folders of the modules' tree that hold them.
const MODULE_FOLDERS: [&str; 8] = [
    "kernel/crypto",
    "kernel/drivers/block",
    "kernel/drivers/char",
    "kernel/drivers/net",
    "kernel/drivers/virtio",
    "kernel/fs",
    "kernel/lib",
    "kernel/net/core",
];

/// The files that make up a guest.
pub(crate) struct GuestFiles {
    /// The kernel as Debian built it, a bzImage.
    pub(crate) kernel: Vec<u8>,
    /// A static busybox of the kernel's architecture.
    pub(crate) busybox: Vec<u8>,
    /// Modules by name, each after those that it needs.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
    /// The packages that the files come from, in lines "name version".
    pub(crate) packages: String,
}

/// Downloads and unpacks the current files of `guest`. `work` is an empty folder for temporary files.
pub(crate) fn fetch(
    guest: Guest,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<GuestFiles, FetchError> {
    let apt = updated_apt(&[SUITE], guest.architecture(), work, progress)?;
    let image = apt.show(&apt.dependency(guest.metapackage(), IMAGE_PREFIX)?)?;
    let busybox = apt.show(BUSYBOX_PACKAGE)?;
    let packages = format!("{image}\n{busybox}\n");
    let (kernel, modules) = fetch_kernel(&apt, &image, work, progress, is_guest_module)?;
    let busybox = fetch_file(&apt, &busybox, BUSYBOX_FILE, work, progress)?;
    Ok(GuestFiles {
        kernel,
        busybox,
        modules: closure(modules, &MODULES),
        packages,
    })
}

/// Whether a guest may need the module at `path`.
fn is_guest_module(path: &Path) -> bool {
    // lib/modules/RELEASE/kernel/...
    let folder: PathBuf = path.iter().skip(3).collect();
    MODULE_FOLDERS.iter().any(|known| folder.starts_with(known))
}

/// Downloads the package `image` and returns its bzImage and the files of those modules whose paths `wanted` accepts.
fn fetch_kernel(
    apt: &Apt,
    image: &PackageInfo,
    work: &Path,
    progress: &mut dyn Progress,
    wanted: impl Fn(&Path) -> bool,
) -> Result<(Vec<u8>, ModuleFiles), FetchError> {
    let release = image.name.trim_start_matches(IMAGE_PREFIX);
    let vmlinuz = PathBuf::from(format!("boot/vmlinuz-{release}"));
    let is_wanted = |path: &Path| path == vmlinuz || module_name(path).is_some() && wanted(path);
    let files = with_package(apt, image, work, progress, |deb| {
        package::read_files(&image.name, deb, is_wanted)
    })?;
    let (mut kernels, modules): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(path, _)| *path == vmlinuz);
    let (_, kernel) = kernels.pop().ok_or_else(|| FetchError::NotInPackage {
        package: image.name.clone(),
        file: vmlinuz.display().to_string(),
    })?;
    Ok((kernel, modules))
}

/// Creates an apt on the system's Debian archive, with the current package lists of `suites`.
fn updated_apt(
    suites: &[&str],
    architecture: Architecture,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<Apt, FetchError> {
    let uri = archive::discover(&work.join("sources"))?;
    let source = Source {
        uri: &uri,
        suites,
        architecture,
    };
    let apt = Apt::new(&work.join("apt"), &source)?;
    progress.stage(&Stage::PackageLists { archive: uri });
    apt.update()?;
    Ok(apt)
}

/// Downloads `package`, returns its `file` and removes the download.
fn fetch_file(
    apt: &Apt,
    package: &PackageInfo,
    file: &str,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>, FetchError> {
    with_package(apt, package, work, progress, |deb| {
        package::read_file(&package.name, deb, file)
    })
}

/// Downloads `package`, passes the .deb file to `take` and removes the download.
fn with_package<T>(
    apt: &Apt,
    package: &PackageInfo,
    work: &Path,
    progress: &mut dyn Progress,
    take: impl FnOnce(&Path) -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    progress.stage(&Stage::Downloading {
        package: package.name.clone(),
        bytes: package.bytes,
    });
    let downloads = work.join(&package.name);
    let deb = apt.download(package, &downloads)?;
    progress.stage(&Stage::Unpacking {
        package: package.name.clone(),
    });
    let taken = take(&deb)?;
    fs::remove_dir_all(&downloads).map_err(file_error("remove", downloads))?;
    Ok(taken)
}
