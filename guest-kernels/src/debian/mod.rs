//! Debian's kernels and busybox, by way of apt.
//!
//! ```text
//! apt's sources ─▶ archive URI ─▶ private apt state ─▶ signed lists ─▶ package names ─▶ .deb files ─▶ vmlinuz, busybox
//! ```
//!
//! apt does what it always does: it checks the archive's signature on the lists and the lists' hashes on the packages, and
//! uses the user's own apt settings such as a proxy. Only its state and its sources are private to one fetch, so nothing
//! of the system's apt changes and no privilege is needed. Packages are unpacked, never installed.

mod apt;
mod archive;
mod package;

use std::fs;
use std::path::Path;

use crate::error::{FetchError, file_error};
use crate::guest::Guest;
use crate::progress::{Progress, Stage};
use apt::{Apt, PackageInfo};

/// The Debian release the guests come from.
const SUITE: &str = "bookworm";

/// Package with a statically linked busybox, and the file in it.
const BUSYBOX_PACKAGE: &str = "busybox-static";
const BUSYBOX_FILE: &str = "bin/busybox";

/// The files a guest is made of.
pub(crate) struct GuestFiles {
    /// The kernel as Debian built it, a bzImage.
    pub(crate) kernel: Vec<u8>,
    /// A static i386 busybox.
    pub(crate) busybox: Vec<u8>,
    /// The packages they came from, "name version" lines.
    pub(crate) packages: String,
}

/// Downloads and unpacks the current files of `guest`. `work` is an empty folder for the time being.
pub(crate) fn fetch(
    guest: Guest,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<GuestFiles, FetchError> {
    let uri = archive::discover(&work.join("sources"))?;
    let apt = Apt::new(&work.join("apt"), &uri)?;
    progress.stage(&Stage::PackageLists { archive: uri });
    apt.update()?;

    let image = apt.show(&apt.kernel_image(guest)?)?;
    let busybox = apt.show(BUSYBOX_PACKAGE)?;
    let packages = format!("{image}\n{busybox}\n");
    let release = image.name.trim_start_matches("linux-image-");
    let kernel = fetch_file(
        &apt,
        &image,
        &format!("boot/vmlinuz-{release}"),
        work,
        progress,
    )?;
    let busybox = fetch_file(&apt, &busybox, BUSYBOX_FILE, work, progress)?;
    Ok(GuestFiles {
        kernel,
        busybox,
        packages,
    })
}

/// Downloads `package`, returns its `file` and removes the download.
fn fetch_file(
    apt: &Apt,
    package: &PackageInfo,
    file: &str,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>, FetchError> {
    progress.stage(&Stage::Downloading {
        package: package.name.clone(),
        bytes: package.bytes,
    });
    let downloads = work.join(&package.name);
    let deb = apt.download(package, &downloads)?;
    progress.stage(&Stage::Unpacking {
        package: package.name.clone(),
    });
    let bytes = package::read_file(&package.name, &deb, file)?;
    fs::remove_dir_all(&downloads).map_err(file_error("remove", downloads))?;
    Ok(bytes)
}
