//! Root directories of distributions in the cache.
//!
//! ```text
//! roots/
//! ├── lock             held while one is being made
//! ├── debian-i386/     the root of a machine
//! ├── debian-amd64/    that of a machine with a 64-bit processor
//! └── .new-XXXXXX/     one that is being made, or left by a process that was killed
//! ```
//!
//! A directory gets its name when it is complete. Making one takes two stages: [`NewRoot::unpack`] on the host, then
//! [`NewRoot::SETUP`] in a machine.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Lock, cache_folder, lock, remove_if_there};
use crate::debian;
use crate::error::{FetchError, file_error};
use crate::progress::Progress;
use crate::root::Root;

const ROOTS: &str = "roots";
/// The beginning of the names of directories that are not complete.
const NEW: &str = ".new-";
/// dpkg's list of packages.
const STATUS: &str = "var/lib/dpkg/status";

impl Root {
    /// The directory in the cache, if it is there.
    ///
    /// # Errors
    /// If there is no place for a cache.
    pub fn dir(self) -> Result<Option<PathBuf>, FetchError> {
        let dir = place(self)?;
        Ok(dir.is_dir().then_some(dir))
    }

    /// Removes the directory from the cache, and returns whether it was there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self, progress: &mut dyn Progress) -> Result<bool, FetchError> {
        let Some(dir) = self.dir()? else {
            return Ok(false);
        };
        let roots = roots()?;
        let _lock = lock(&roots, progress)?;
        // Nobody finds half of it.
        let away = temporary_folder(&roots)?;
        let old = away.path().join(self.name());
        fs::rename(&dir, &old).map_err(file_error("move", &dir))?;
        let away = away.keep();
        remove_if_there(&away)?;
        Ok(true)
    }
}

/// A root directory in the making. It is removed if it is dropped before [`NewRoot::finish`].
#[derive(Debug)]
pub struct NewRoot {
    root: Root,
    /// Packages beside the essential ones.
    include: Vec<String>,
    dir: TempDir,
    place: PathBuf,
    /// Of the folder in the cache.
    _lock: Option<Lock>,
}

impl NewRoot {
    /// The shell command that carries out the second stage, in a machine that has [`NewRoot::dir`] as its root and may write to
    /// it. It prints what dpkg prints, and succeeds if all packages are configured.
    pub const SETUP: &str = debian::SETUP;

    /// Begins to make `root` with the packages `include` beside the essential ones, with an empty directory. When complete it will
    /// be at `to`, which must not be there or be empty; by default it will be in the cache, whose lock is held until then.
    ///
    /// # Errors
    /// Any [`FetchError`]; [`FetchError::RootExists`] and [`FetchError::RootPlace`] if the place is taken.
    pub fn begin(
        root: Root,
        to: Option<&Path>,
        include: &[String],
        progress: &mut dyn Progress,
    ) -> Result<Self, FetchError> {
        check_names(include)?;
        let (place, lock) = match to {
            Some(to) => (named(to)?, None),
            None => {
                let roots = roots()?;
                let lock = lock(&roots, progress)?;
                remove_left_behind(&roots)?;
                (place(root)?, Some(lock))
            }
        };
        check_place(&place)?;
        Ok(Self {
            root,
            include: include.to_vec(),
            dir: temporary_folder(folder_of(&place))?,
            place,
            _lock: lock,
        })
    }

    /// The first stage: fetches the essential packages, apt and those included with all that they need and recommend,
    /// unpacks them into the directory, and returns how many there are.
    ///
    /// # Errors
    /// Any [`FetchError`].
    pub fn unpack(&self, progress: &mut dyn Progress) -> Result<usize, FetchError> {
        let work = temporary_folder(folder_of(&self.place))?;
        let architecture = self.root.architecture();
        debian::fetch_root(
            architecture,
            self.dir(),
            &self.include,
            work.path(),
            progress,
        )
    }

    /// The directory, under a temporary name.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Gives the directory its name, when all is on the disk, and returns that.
    ///
    /// # Errors
    /// If there is another by this name.
    pub fn finish(self) -> Result<PathBuf, FetchError> {
        // Users other than root have to get in.
        fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755))
            .map_err(file_error("open", self.dir.path()))?;
        let dir = File::open(self.dir.path()).map_err(file_error("open", self.dir.path()))?;
        rustix::fs::syncfs(dir)
            .map_err(io::Error::from)
            .map_err(file_error("write", self.dir.path()))?;
        fs::rename(self.dir.path(), &self.place).map_err(file_error("name", &self.place))?;
        // What had the temporary name is elsewhere.
        let _ = self.dir.keep();
        Ok(self.place)
    }
}

/// Returns those of the packages `names` that are not installed in the root directory `dir`.
///
/// # Errors
/// If it has no database of packages.
pub fn missing_packages(dir: &Path, names: &[String]) -> Result<Vec<String>, FetchError> {
    let path = dir.join(STATUS);
    let status = fs::read_to_string(&path).map_err(file_error("read", path))?;
    Ok(names
        .iter()
        .filter(|name| !debian::is_installed(&status, name))
        .cloned()
        .collect())
}

/// The folder of root directories in the cache.
fn roots() -> Result<PathBuf, FetchError> {
    Ok(cache_folder()?.join(ROOTS))
}

/// The place of a root directory in the cache.
fn place(root: Root) -> Result<PathBuf, FetchError> {
    Ok(roots()?.join(root.name()))
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns a path that ends in a name, which can be given to a directory, unlike `.` and `..`.
fn named(path: &Path) -> Result<PathBuf, FetchError> {
    let name = path.file_name().ok_or_else(|| FetchError::RootPlace {
        path: path.to_owned(),
        what: "a directory whose name is not given",
    })?;
    Ok(path.parent().unwrap_or(Path::new("")).join(name))
}

/// Refuses a place where a directory cannot be renamed to: one that is taken, by anything but an empty directory of the same file
/// system.
fn check_place(place: &Path) -> Result<(), FetchError> {
    let there = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(file_error("look at", place))?,
    };
    let path = place.to_owned();
    if there.is_symlink() {
        let what = "a symbolic link";
        return Err(FetchError::RootPlace { path, what });
    }
    let is_free = there.is_dir()
        && fs::read_dir(place)
            .map_err(file_error("list", place))?
            .next()
            .is_none();
    if !is_free {
        return Err(FetchError::RootExists { path });
    }
    let folder = folder_of(place);
    let beside = fs::metadata(folder).map_err(file_error("look at", folder))?;
    if there.dev() != beside.dev() {
        let what = "a mount point";
        return Err(FetchError::RootPlace { path, what });
    }
    Ok(())
}

/// Refuses what is not the name of a package (Debian Policy Manual, 5.6.1 "Source"), which apt might take for something else.
fn check_names(names: &[String]) -> Result<(), FetchError> {
    let is_good = |name: &&String| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
            // apt would remove it.
            && !name.ends_with('-')
    };
    match names.iter().find(|name| !is_good(name)) {
        Some(name) => Err(FetchError::BadPackageName { name: name.clone() }),
        None => Ok(()),
    }
}

/// Makes a folder for what is not complete.
fn temporary_folder(parent: &Path) -> Result<TempDir, FetchError> {
    tempfile::Builder::new()
        .prefix(NEW)
        .tempdir_in(parent)
        .map_err(file_error("create a folder in", parent))
}

/// Removes what processes that were killed have left. The caller holds the lock.
fn remove_left_behind(roots: &Path) -> Result<(), FetchError> {
    let entries = fs::read_dir(roots).map_err(file_error("list", roots))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(NEW) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_of_packages_are_checked() {
        let check = |name: &str| check_names(&[name.to_owned()]);
        for good in ["gcc", "g++", "libc6-dev", "0ad", "python3.11"] {
            check(good).unwrap();
        }
        for bad in [
            "",
            "-o",
            "gcc-",
            "?essential",
            "a b",
            "a=1",
            "Gcc",
            "../x",
            "./x.deb",
        ] {
            let error = check(bad).unwrap_err().to_string();
            assert_eq!(error, format!("not the name of a package: \"{bad}\""));
        }
    }

    #[test]
    fn missing_packages_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join(STATUS);
        fs::create_dir_all(status.parent().unwrap()).unwrap();
        let records = "Package: make\nStatus: install ok installed\n\n\
                       Package: gcc\nStatus: install ok unpacked\n";
        fs::write(status, records).unwrap();
        let names = ["make", "gcc", "mak"].map(str::to_owned);
        assert_eq!(
            missing_packages(dir.path(), &names).unwrap(),
            ["gcc", "mak"]
        );
    }

    #[test]
    fn a_place_must_be_free_or_empty() {
        let dir = tempfile::tempdir().unwrap();
        check_place(dir.path()).unwrap();
        check_place(&dir.path().join("none")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        check_place(dir.path()).unwrap_err();
        check_place(&dir.path().join("file")).unwrap_err();
        check_place(&dir.path().join("file/below")).unwrap_err();
    }

    /// The system's rename(2) is the judge.
    #[test]
    fn a_place_that_is_refused_cannot_be_renamed_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["empty", "full/sub", "around/inner"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("file"), "").unwrap();
        symlink("empty", at("link")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        for name in [
            "none",
            "none/",
            "none/.",
            "empty",
            "empty/",
            "empty/.",
            "empty/..",
            "around/inner/..",
            "full",
            "file",
            "file/x",
            "link",
            "dangling",
        ] {
            let place = named(&at(name)).and_then(|place| check_place(&place).map(|()| place));
            let new = at("new");
            fs::create_dir(&new).unwrap();
            match &place {
                Ok(place) => {
                    fs::rename(&new, place).unwrap();
                    fs::remove_dir(place).unwrap();
                }
                Err(error) => {
                    fs::rename(&new, at(name)).expect_err(&error.to_string());
                    fs::remove_dir(&new).unwrap();
                }
            }
            fs::create_dir_all(at("empty")).unwrap();
        }
    }

    #[test]
    fn what_was_left_behind_goes() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".new-abc/sub", "debian-i386"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        remove_left_behind(dir.path()).unwrap();
        assert!(!dir.path().join(".new-abc").exists());
        assert!(dir.path().join("debian-i386").exists());
    }
}
