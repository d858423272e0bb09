//! The host's files, named by a descriptor or by a directory's descriptor and one name; never by a path.
//!
//! A descriptor of an inode is opened with O_PATH, which reads nothing, needs no permission on the file and has no side effect
//! on a device or FIFO. What needs more goes by the descriptor's magic link in `/proc/self/fd`, which leads to that very inode
//! whatever has been renamed meanwhile.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timestamps, XattrFlags,
};
use rustix::io::{self, Errno};

use crate::name::Name;

/// Entrance to the host's files.
#[derive(Debug)]
pub struct Host {
    /// Directory `/proc/self/fd`.
    links: OwnedFd,
    /// Whether the host has openat2(2), which Linux has since 5.6 unless a sandbox lacks it.
    openat2: bool,
}

impl Host {
    /// Opens `/proc/self/fd`, before a sandbox may forbid it.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn new() -> Result<Host, Errno> {
        let links = fs::openat(
            CWD,
            c"/proc/self/fd",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let probe = fs::openat2(
            &links,
            c".",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH,
        );
        Ok(Host {
            links,
            openat2: probe.is_ok(),
        })
    }

    /// Finds an entry of a directory; a symbolic link is found itself. The descriptor is O_PATH.
    ///
    /// # Errors
    ///
    /// Those of openat2(2).
    pub fn find(&self, dir: impl AsFd, name: Name<'_>) -> Result<OwnedFd, Errno> {
        self.open_beneath(dir, name, OFlags::PATH, Mode::empty())
    }

    /// Makes a file in a directory and opens it with `flags`.
    ///
    /// # Errors
    ///
    /// Those of openat2(2): EEXIST if there is an entry of this name, whatever it is.
    pub fn create(
        &self,
        dir: impl AsFd,
        name: Name<'_>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        self.open_beneath(dir, name, flags | OFlags::CREATE | OFlags::EXCL, mode)
    }

    /// Opens one entry of a directory without following links of any kind.
    ///
    /// A [`Name`] is one component and O_NOFOLLOW forbids the last one to be a link, so openat(2) leads nowhere else either;
    /// the kernel's own checks come on top where it has them.
    fn open_beneath(
        &self,
        dir: impl AsFd,
        name: Name<'_>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !self.openat2 {
            return fs::openat(dir, name.as_c_str(), flags, mode);
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        io::retry_on_intr(|| fs::openat2(&dir, name.as_c_str(), flags, mode, resolve))
    }

    /// Opens the inode of a descriptor once more, with other flags.
    ///
    /// The caller has made sure that it is a regular file or a directory: to open anything else may wait or have effects.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn reopen(&self, file: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        io::retry_on_intr(|| fs::openat(&self.links, link(file.as_fd()), flags, Mode::empty()))
    }

    /// Sets the mode of an inode that is no symbolic link.
    ///
    /// # Errors
    ///
    /// Those of chmod(2).
    pub fn set_mode(&self, file: impl AsFd, mode: Mode) -> Result<(), Errno> {
        fs::chmodat(&self.links, link(file.as_fd()), mode, AtFlags::empty())
    }

    /// Sets the times of an inode; with `itself`, of a symbolic link.
    ///
    /// # Errors
    ///
    /// Those of utimensat(2).
    pub fn set_times(
        &self,
        file: impl AsFd,
        times: &Timestamps,
        itself: bool,
    ) -> Result<(), Errno> {
        if itself {
            return fs::utimensat(file, c"", times, AtFlags::EMPTY_PATH);
        }
        fs::utimensat(&self.links, link(file.as_fd()), times, AtFlags::empty())
    }

    /// Reads an extended attribute of an inode into `value`, and returns its length.
    ///
    /// # Errors
    ///
    /// Those of getxattr(2).
    pub fn attribute(
        &self,
        file: impl AsFd,
        name: &CStr,
        value: &mut [u8],
    ) -> Result<usize, Errno> {
        fs::getxattr(path(file.as_fd()), name, value)
    }

    /// Sets an extended attribute of an inode.
    ///
    /// # Errors
    ///
    /// Those of setxattr(2).
    pub fn set_attribute(&self, file: impl AsFd, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        fs::setxattr(path(file.as_fd()), name, value, XattrFlags::empty())
    }

    /// Removes an extended attribute of an inode.
    ///
    /// # Errors
    ///
    /// Those of removexattr(2).
    pub fn remove_attribute(&self, file: impl AsFd, name: &CStr) -> Result<(), Errno> {
        fs::removexattr(path(file.as_fd()), name)
    }

    /// Makes an entry for an inode.
    ///
    /// # Errors
    ///
    /// Those of link(2).
    pub fn link(&self, file: impl AsFd, dir: impl AsFd, name: Name<'_>) -> Result<(), Errno> {
        let old = link(file.as_fd());
        fs::linkat(
            &self.links,
            old,
            dir,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )
    }
}

/// Returns the name of a descriptor's magic link.
fn link(file: BorrowedFd<'_>) -> CString {
    let mut digits = file.as_raw_fd().to_string().into_bytes();
    digits.push(0);
    CString::from_vec_with_nul(digits).unwrap_or_default()
}

/// Returns the path of a descriptor's magic link, for system calls that take no directory.
fn path(file: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// Returns the attributes of an inode, with the time of its birth where the file system knows it.
///
/// # Errors
///
/// Those of statx(2).
pub fn stat(file: impl AsFd) -> Result<Statx, Errno> {
    fs::statx(
        file,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// Returns the attributes of an entry of a directory; of a symbolic link, its own. Needs no descriptor.
///
/// # Errors
///
/// Those of statx(2).
pub fn stat_entry(dir: impl AsFd, name: Name<'_>) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    fs::statx(dir, name.as_c_str(), flags, StatxFlags::BASIC_STATS)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sandbox or an old kernel may have no openat2(2).
    #[test]
    fn links_are_found_themselves_with_and_without_openat2() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let fd = fs::openat(CWD, dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let name = Name::new(c"link").unwrap();
        let host = Host::new().unwrap();
        for openat2 in [host.openat2, false] {
            let host = Host {
                links: host.links.try_clone().unwrap(),
                openat2,
            };
            let link = host.find(&fd, name).unwrap();
            let mode = stat(&link).unwrap().stx_mode;
            assert_eq!(
                fs::FileType::from_raw_mode(mode.into()),
                fs::FileType::Symlink
            );
            let below = host.find(&link, Name::new(c"x").unwrap());
            assert_eq!(below.err(), Some(Errno::NOTDIR));
            let made = host.create(&fd, name, OFlags::WRONLY, Mode::empty());
            assert_eq!(made.err(), Some(Errno::EXIST));
        }
    }
}
