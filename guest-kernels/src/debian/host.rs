//! Debian's kernels for hosts: the cloud kernel, which boots fast in a virtual machine, with the headers to build modules for it.
//!
//! ```text
//! linux-image-cloud-amd64 ─▶ linux-image-RELEASE    vmlinuz, modules
//!                            linux-headers-RELEASE ─▶ linux-headers-VERSION-common, linux-kbuild-VERSION
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::modules::closure;
use super::{
    BUSYBOX_FILE, BUSYBOX_PACKAGE, IMAGE_PREFIX, SUITE, fetch_file, fetch_kernel, package,
    updated_apt, with_package,
};
use crate::architecture::Architecture;
use crate::error::{FetchError, file_error};
use crate::host::HostKernel;
use crate::progress::Progress;

const IMAGE_METAPACKAGE: &str = "linux-image-cloud-amd64";

/// The modules that a test may need, for swap in compressed memory, as far as the kernel has them.
const MODULES: [&str; 2] = ["lzo-rle", "zram"];

/// What the packages of a host kernel hold.
pub(crate) struct HostPackages {
    /// The kernel as Debian built it, a bzImage.
    pub(crate) kernel: Vec<u8>,
    /// A static x86-64 busybox.
    pub(crate) busybox: Vec<u8>,
    /// Modules by name, each after those that it needs.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
    /// The folder to build modules in, relative to that of the headers.
    pub(crate) build: PathBuf,
    /// The packages that the files come from, in lines "name version".
    pub(crate) packages: String,
}

/// Downloads and unpacks the current files of `kernel`, its headers into the new folder `headers`. `work` is an empty folder for
/// temporary files.
pub(crate) fn fetch_host(
    kernel: HostKernel,
    headers: &Path,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<HostPackages, FetchError> {
    let suites: &[&str] = match kernel {
        HostKernel::Linux6_1 => &[SUITE],
        HostKernel::Linux6_12 => &["bookworm-backports", SUITE],
    };
    let apt = updated_apt(suites, Architecture::Amd64, work, progress)?;
    let image = apt.show(&apt.dependency(IMAGE_METAPACKAGE, IMAGE_PREFIX)?)?;
    let busybox = apt.show(BUSYBOX_PACKAGE)?;
    let packages = format!("{image}\n{busybox}\n");
    let release = image.name.trim_start_matches(IMAGE_PREFIX).to_owned();
    let build = fetch_headers(&apt, &release, headers, work, progress)?;
    let (kernel, modules) = fetch_kernel(&apt, &image, work, progress, |_| true)?;
    Ok(HostPackages {
        kernel,
        busybox: fetch_file(&apt, &busybox, BUSYBOX_FILE, work, progress)?,
        modules: closure(modules, &MODULES),
        build,
        packages,
    })
}

/// Unpacks the headers of a release and returns the folder to build in.
fn fetch_headers(
    apt: &Apt,
    release: &str,
    folder: &Path,
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    let own = format!("linux-headers-{release}");
    let common = apt.dependency(&own, "linux-headers-")?;
    let tools = apt.dependency(&own, "linux-kbuild-")?;
    fs::create_dir(folder).map_err(file_error("create", folder))?;
    for name in [&own, &common, &tools] {
        let package = apt.show(name)?;
        with_package(apt, &package, work, progress, |deb| {
            package::unpack(name, deb, folder)
        })?;
    }
    let build = Path::new("usr/src").join(&own);
    // It includes the common one by its place in an installed system.
    let makefile = folder.join(&build).join("Makefile");
    fs::write(&makefile, format!("include ../{common}/Makefile\n"))
        .map_err(file_error("write", makefile))?;
    Ok(build)
}
