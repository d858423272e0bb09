//! Debian's kernels for hosts: the cloud kernel, which boots fast in a virtual machine, with the headers to build modules for it.
//!
//! ```text
//! linux-image-cloud-amd64 ─▶ linux-image-RELEASE    vmlinuz, modules
//!                            linux-headers-RELEASE ─▶ linux-headers-VERSION-common, linux-kbuild-VERSION
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use liblzma::read::XzDecoder;

use super::apt::Apt;
use super::{
    BUSYBOX_FILE, BUSYBOX_PACKAGE, IMAGE_PREFIX, SUITE, fetch_file, package, updated_apt,
    with_package,
};
use crate::error::{FetchError, file_error};
use crate::host::HostKernel;
use crate::progress::Progress;

const ARCHITECTURE: &str = "amd64";
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
    let apt = updated_apt(suites, ARCHITECTURE, work, progress)?;
    let image = apt.show(&apt.dependency(IMAGE_METAPACKAGE, IMAGE_PREFIX)?)?;
    let busybox = apt.show(BUSYBOX_PACKAGE)?;
    let packages = format!("{image}\n{busybox}\n");
    let release = image.name.trim_start_matches(IMAGE_PREFIX).to_owned();
    let build = fetch_headers(&apt, &release, headers, work, progress)?;
    let vmlinuz = PathBuf::from(format!("boot/vmlinuz-{release}"));
    let is_wanted = |path: &Path| path == vmlinuz || module_name(path).is_some();
    let files = with_package(&apt, &image, work, progress, |deb| {
        package::read_files(&image.name, deb, is_wanted)
    })?;
    let (mut kernels, modules): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(path, _)| *path == vmlinuz);
    let (_, kernel) = kernels.pop().ok_or_else(|| FetchError::NotInPackage {
        package: image.name.clone(),
        file: vmlinuz.display().to_string(),
    })?;
    Ok(HostPackages {
        kernel,
        busybox: fetch_file(&apt, &busybox, BUSYBOX_FILE, work, progress)?,
        modules: closure(modules),
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

/// The name of the module in the file at `path`, if it is one.
fn module_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".ko")
        .or_else(|| name.strip_suffix(".ko.xz"))
}

/// [`MODULES`] and all that they need, each after those that it needs.
fn closure(files: Vec<(PathBuf, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut known: HashMap<String, (PathBuf, Vec<u8>)> = HashMap::new();
    for (path, bytes) in files {
        if let Some(name) = module_name(&path) {
            known.insert(canonical(name), (path, bytes));
        }
    }
    let mut found = Vec::new();
    for module in MODULES {
        add_module(&canonical(module), &mut known, &mut found);
    }
    found
}

/// The kernel takes hyphens and underscores in the names of modules for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Moves a module from `known` to `found`, after those that it needs.
fn add_module(
    name: &str,
    known: &mut HashMap<String, (PathBuf, Vec<u8>)>,
    found: &mut Vec<(String, Vec<u8>)>,
) {
    let Some((path, bytes)) = known.remove(name) else {
        return;
    };
    let mut module = Vec::new();
    let is_compressed = path.extension().is_some_and(|extension| extension == "xz");
    if is_compressed && XzDecoder::new(&*bytes).read_to_end(&mut module).is_err() {
        return;
    }
    let module = if is_compressed { module } else { bytes };
    for needed in needs(&module) {
        add_module(&canonical(&needed), known, found);
    }
    found.push((name.to_owned(), module));
}

/// The modules that a module needs, as its section .modinfo says.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else {
        return Vec::new();
    };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> (PathBuf, Vec<u8>) {
        let content = format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0");
        (format!("lib/{name}.ko").into(), content.into_bytes())
    }

    #[test]
    fn a_module_comes_after_those_that_it_needs() {
        let files = vec![
            module("zram", "zsmalloc,lz4-compress"),
            module("other", ""),
            module("zsmalloc", "lz4_compress,missing"),
            module("lz4_compress", "zram"),
        ];
        let names: Vec<_> = closure(files).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["lz4_compress", "zsmalloc", "zram"]);
    }

    #[test]
    fn names_of_modules_are_those_of_their_files() {
        assert_eq!(module_name(Path::new("a/lzo-rle.ko")), Some("lzo-rle"));
        assert_eq!(module_name(Path::new("zram.ko.xz")), Some("zram"));
        assert_eq!(module_name(Path::new("a/modules.order")), None);
    }
}
