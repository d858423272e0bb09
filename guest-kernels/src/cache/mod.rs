//! The user's cache of guests, which are fetched once and used offline from then on.
//!
//! ```text
//! $REPLEX_CACHE, else $XDG_CACHE_HOME/replex, else ~/.cache/replex
//! ├── images/              roots that were made of images of containers: see `oci_root`
//! ├── lock                 held while a guest is being fetched
//! ├── roots/               root directories: see `roots`
//! ├── host-6.1/            a kernel for tests of the host's module: see `host`
//! └── debian-686/
//!     ├── vmlinuz          as in Debian's package; its presence says that the guest is complete
//!     ├── busybox
//!     ├── modules          kernel modules as a tar archive, each after those that it needs
//!     ├── packages         names and versions of the packages that the files come from
//!     ├── initrd.cpio      made from busybox by this program
//!     └── work/            files of a fetch that is under way
//! ```
//!
//! Every file is replaced by renaming, so a reader sees either the old or the new one. A fetch that was killed leaves
//! only `work`, which the next fetch clears. To get a newer kernel, call [`refresh`] or remove the guest's folder.

mod host;
mod modules;
mod roots;

use std::env;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::debian;
use crate::error::{FetchError, file_error};
use crate::guest::Guest;
use crate::initramfs;
use crate::progress::{Progress, Stage};
pub use host::{HostFiles, fetch_host};
pub use modules::modules_archive;
use modules::pack;
pub use roots::{NewRoot, missing_packages};

const KERNEL: &str = "vmlinuz";
const BUSYBOX: &str = "busybox";
const MODULES: &str = "modules";
const PACKAGES: &str = "packages";
const INITRD: &str = "initrd.cpio";
const WORK: &str = "work";
const LOCK: &str = "lock";

/// The mode of new files before the umask applies.
const FILE_MODE: u32 = 0o666;

/// The files that a guest is booted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImages {
    /// The distribution's bzImage, unmodified.
    pub kernel: PathBuf,
    /// The base initramfs, an uncompressed cpio archive whose length is a multiple of [`crate::ALIGNMENT`].
    pub initrd: PathBuf,
}

/// Returns the images of `guest` from the cache or, the first time, from Debian's archive.
///
/// It uses the network only if the guest is not in the cache. Several processes may call it at once: one fetches, and
/// the others wait for it. The archive is the one in REPLEX_DEBIAN_MIRROR or, if that is not set, in the system's apt
/// sources.
///
/// # Errors
/// Any [`FetchError`]; the cache is then as it was.
pub fn fetch(guest: Guest, progress: &mut dyn Progress) -> Result<GuestImages, FetchError> {
    fetch_into(&cache_folder()?, guest, progress)
}

/// Downloads the current packages of `guest`, replaces its files in the cache and returns the images.
///
/// # Errors
/// Any [`FetchError`]; the cache is then as it was.
pub fn refresh(guest: Guest, progress: &mut dyn Progress) -> Result<GuestImages, FetchError> {
    let root = cache_folder()?;
    let _lock = lock(&root, progress)?;
    let folder = root.join(guest.name());
    download(guest, &folder, progress)?;
    images(guest, &folder)
}

fn fetch_into(
    root: &Path,
    guest: Guest,
    progress: &mut dyn Progress,
) -> Result<GuestImages, FetchError> {
    let folder = root.join(guest.name());
    if !is_complete(&folder) {
        let _lock = lock(root, progress)?;
        // The process that held the lock before may have fetched the guest.
        if !is_complete(&folder) {
            download(guest, &folder, progress)?;
        }
    }
    images(guest, &folder)
}

fn is_complete(folder: &Path) -> bool {
    folder.join(KERNEL).exists()
}

/// Fetches the files of `guest` into its folder, the kernel last.
fn download(guest: Guest, folder: &Path, progress: &mut dyn Progress) -> Result<(), FetchError> {
    let work = folder.join(WORK);
    remove_if_there(&work)?;
    fs::create_dir_all(&work).map_err(file_error("create", &work))?;
    let files = debian::fetch(guest, &work, progress);
    remove_if_there(&work)?;
    let files = files?;
    replace(&folder.join(BUSYBOX), &files.busybox)?;
    replace(&folder.join(MODULES), &pack(&files.modules)?)?;
    replace(&folder.join(PACKAGES), files.packages.as_bytes())?;
    replace(&folder.join(KERNEL), &files.kernel)
}

/// Returns the images of `guest` in a complete folder, with an initramfs as this version of the program builds it.
fn images(guest: Guest, folder: &Path) -> Result<GuestImages, FetchError> {
    let busybox = folder.join(BUSYBOX);
    let busybox = fs::read(&busybox).map_err(file_error("read", busybox))?;
    let archive = initramfs::base_archive(&busybox, guest.architecture());
    let initrd = folder.join(INITRD);
    if fs::read(&initrd).ok().as_ref() != Some(&archive) {
        replace(&initrd, &archive)?;
    }
    Ok(GuestImages {
        kernel: folder.join(KERNEL),
        initrd,
    })
}

/// Replaces the file at `path` by a new one with `content`, in one step.
fn replace(path: &Path, content: &[u8]) -> Result<(), FetchError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(file_error("write", path))
}

fn remove_if_there(folder: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// The cache's lock, held.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing the file would not do: a child that was begun meanwhile has it, too, until it executes its program.
    fn drop(&mut self) {
        // It cannot fail for a file that is locked (flock(2), "ERRORS").
        drop(self.0.unlock());
    }
}

/// Takes the cache's lock, waiting for another process if necessary.
fn lock(root: &Path, progress: &mut dyn Progress) -> Result<Lock, FetchError> {
    fs::create_dir_all(root).map_err(|reason| FetchError::CreateCache {
        path: root.to_owned(),
        reason,
    })?;
    let path = root.join(LOCK);
    let file = File::create(&path).map_err(file_error("create", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(Lock(file)),
        Err(TryLockError::Error(error)) => return Err(file_error("lock", path)(error)),
        Err(TryLockError::WouldBlock) => progress.stage(&Stage::WaitingForLock),
    }
    file.lock().map_err(file_error("lock", path))?;
    Ok(Lock(file))
}

/// Returns the folder of the user's cache, which may not be there yet.
///
/// # Errors
/// [`FetchError::NoCacheDir`] if the environment names none, [`FetchError::RelativeCache`] if REPLEX_CACHE is not an absolute path.
pub fn cache_folder() -> Result<PathBuf, FetchError> {
    root_from(|name| env::var_os(name).map(PathBuf::from))
}

/// The folder of the cache according to the environment, which `variable` reads. Relative paths in variables other than the
/// program's own are ignored, as the XDG Base Directory Specification says ("Environment variables").
fn root_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, FetchError> {
    let own = variable("REPLEX_CACHE").filter(|path| !path.as_os_str().is_empty());
    match own {
        Some(path) if path.is_absolute() => return Ok(path),
        Some(path) => return Err(FetchError::RelativeCache { path }),
        None => {}
    }
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let xdg = absolute("XDG_CACHE_HOME").map(|folder| folder.join("replex"));
    let home = || absolute("HOME").map(|folder| folder.join(".cache/replex"));
    xdg.or_else(home).ok_or(FetchError::NoCacheDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(variables: &[(&str, &str)]) -> Result<PathBuf, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name);
        root_from(|name| variable(name).map(|(_, value)| PathBuf::from(value)))
            .map_err(|error| error.to_string())
    }

    /// Panics: no stage may begin.
    fn silent(stage: &Stage) {
        panic!("unexpected stage: {stage}");
    }

    fn cached_guest() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(Guest::Debian686.name());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(KERNEL), "kernel").unwrap();
        fs::write(folder.join(BUSYBOX), "busybox").unwrap();
        root
    }

    #[test]
    fn the_environment_places_the_cache() {
        let home = ("HOME", "/home/u");
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        for (variables, expected) in [
            (&[("REPLEX_CACHE", "/c"), xdg, home][..], "/c"),
            (&[("REPLEX_CACHE", ""), xdg, home], "/xdg/replex"),
            (
                &[("XDG_CACHE_HOME", "relative"), home],
                "/home/u/.cache/replex",
            ),
        ] {
            assert_eq!(root_with(variables), Ok(expected.into()));
        }
        assert!(root_with(&[("HOME", "")]).unwrap_err().contains("no place"));
        assert_eq!(
            root_with(&[("REPLEX_CACHE", "rel"), xdg, home]).unwrap_err(),
            "REPLEX_CACHE: rel: not an absolute path"
        );
    }

    #[test]
    fn another_place_is_offered_where_the_cache_cannot_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = lock(&file.path().join("cache"), &mut silent).unwrap_err();
        assert!(error.to_string().contains("REPLEX_CACHE"), "{error}");
    }

    #[test]
    fn a_cached_guest_is_used_without_fetching() {
        let root = cached_guest();
        let images = fetch_into(root.path(), Guest::Debian686, &mut silent).unwrap();
        assert_eq!(fs::read(&images.kernel).unwrap(), b"kernel");
        assert_eq!(
            fs::read(&images.initrd).unwrap(),
            initramfs::base_archive(b"busybox", Guest::Debian686.architecture())
        );
    }

    #[test]
    fn an_initramfs_of_another_version_is_replaced() {
        let root = cached_guest();
        let first = fetch_into(root.path(), Guest::Debian686, &mut silent).unwrap();
        fs::write(&first.initrd, "another version's").unwrap();
        let second = fetch_into(root.path(), Guest::Debian686, &mut silent).unwrap();
        assert_eq!(
            fs::read(&second.initrd).unwrap(),
            initramfs::base_archive(b"busybox", Guest::Debian686.architecture())
        );
    }

    #[test]
    fn replacing_leaves_nothing_else_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_lock_keeps_a_second_holder_out() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(root.path(), &mut silent).unwrap();
        let other = File::create(root.path().join(LOCK)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }
}
