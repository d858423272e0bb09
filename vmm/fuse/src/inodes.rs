//! The inodes that the guest knows, by the numbers that it knows them by.
//!
//! Each has a count of lookups, as the protocol demands, and goes when the guest has given all of them back. A descriptor holds
//! an inode whatever happens to its names. As a guest may know more inodes than a process may have descriptors, only so many
//! are kept; the others are found again by the directory and the name by which the guest found them last, and are stale if
//! another file is there now. An inode whose name has been removed cannot be found again and keeps its descriptor.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuse_abi::linux::FUSE_ROOT_ID;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::host::{self, Host};
use crate::name::Name;

/// What tells files of the host apart: device, inode number, and time of birth, as numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: (u32, u32),
    ino: u64,
    birth: (i64, u32),
}

impl FileId {
    /// Returns the identity of the file with these attributes.
    fn of(stat: &Statx) -> FileId {
        FileId {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            birth: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        }
    }
}

/// Directory and name by which an inode was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    dir: u64,
    name: CString,
}

impl Place {
    /// Returns the place of `name` in `dir`.
    fn new(dir: u64, name: Name<'_>) -> Place {
        Place {
            dir,
            name: name.as_c_str().to_owned(),
        }
    }
}

/// State of a file's data: it has changed if this has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    modified: (i64, u32),
    changed: (i64, u32),
    size: u64,
}

impl Version {
    /// Returns the version of the file with these attributes.
    pub fn of(stat: &Statx) -> Version {
        Version {
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            size: stat.stx_size,
        }
    }
}

/// An inode that the guest knows.
#[derive(Debug)]
struct Inode {
    id: FileId,
    kind: FileType,
    lookups: u64,
    /// Version whose data the guest may have in its cache.
    cached: Option<Version>,
    place: Option<Place>,
    file: Option<Arc<OwnedFd>>,
    /// Whether the descriptor has been used since the search for one to close has come by.
    used: bool,
}

/// All inodes that the guest knows.
#[derive(Debug)]
pub struct Inodes {
    known: HashMap<u64, Inode>,
    by_file: HashMap<FileId, u64>,
    by_place: HashMap<Place, u64>,
    next: u64,
    /// Number of open descriptors; how many there are at most while others can be closed; and how many in any case.
    open: usize,
    goal: usize,
    limit: usize,
    /// Inodes with a descriptor, in the order in which these may be closed; others may be among them.
    queue: VecDeque<u64>,
}

impl Inodes {
    /// Returns a table that knows the root only, and keeps at most `limit` descriptors, half of them if it can.
    ///
    /// # Errors
    ///
    /// Those of statx(2).
    pub fn new(root: OwnedFd, limit: usize) -> Result<Inodes, Errno> {
        let id = FileId::of(&host::stat(&root)?);
        let root = Inode {
            id,
            kind: FileType::Directory,
            lookups: 1,
            cached: None,
            place: None,
            file: Some(Arc::new(root)),
            used: true,
        };
        Ok(Inodes {
            known: HashMap::from([(FUSE_ROOT_ID, root)]),
            by_file: HashMap::from([(id, FUSE_ROOT_ID)]),
            by_place: HashMap::new(),
            next: FUSE_ROOT_ID + 1,
            open: 1,
            goal: limit / 2,
            limit,
            queue: VecDeque::new(),
        })
    }

    /// Forgets every inode but the root.
    pub fn clear(&mut self) {
        self.known.retain(|&node, _| node == FUSE_ROOT_ID);
        self.by_file.retain(|_, node| *node == FUSE_ROOT_ID);
        self.by_place.clear();
        self.queue.clear();
        self.open = 1;
    }

    /// Returns how many inodes the guest knows, and how many descriptors are open for them.
    pub fn counts(&self) -> (usize, usize) {
        (self.known.len(), self.open)
    }

    /// Returns the O_PATH descriptor of an inode, opening it again if it has been closed.
    ///
    /// # Errors
    ///
    /// ESTALE if the guest does not know the inode, or if it is no longer where it was found. Those of openat2(2).
    pub fn file(&mut self, host: &Host, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        // From the inode up to the nearest one that is open.
        let known = self.known.len();
        let mut closed = Vec::new();
        let mut at = node;
        let mut file = loop {
            let inode = self.known.get_mut(&at).ok_or(Errno::STALE)?;
            inode.used = true;
            if let Some(file) = &inode.file {
                break Arc::clone(file);
            }
            let place = inode.place.clone().ok_or(Errno::STALE)?;
            // A host that moves directories about may leave places that form a circle, which has no end.
            if closed.len() > known {
                return Err(Errno::STALE);
            }
            let dir = place.dir;
            closed.push((at, place));
            at = dir;
        };
        for (node, place) in closed.into_iter().rev() {
            file = Arc::new(host.find(&*file, Name::new(&place.name)?)?);
            if self.known.get(&node).map(|inode| inode.id) != Some(FileId::of(&host::stat(&*file)?))
            {
                return Err(Errno::STALE);
            }
            self.keep(node, &file);
        }
        Ok(file)
    }

    /// Returns what kind of file an inode is, which never changes.
    ///
    /// # Errors
    ///
    /// ESTALE if the guest does not know the inode.
    pub fn kind(&self, node: u64) -> Result<FileType, Errno> {
        self.known
            .get(&node)
            .map(|inode| inode.kind)
            .ok_or(Errno::STALE)
    }

    /// Counts a lookup of the inode `file` with attributes `stat`, found as `name` in `dir`, and returns its number.
    ///
    /// # Errors
    ///
    /// ENFILE if it is new and there may be no more descriptors.
    pub fn looked_up(
        &mut self,
        file: OwnedFd,
        stat: &Statx,
        dir: u64,
        name: Name<'_>,
    ) -> Result<u64, Errno> {
        let id = FileId::of(stat);
        let place = Place::new(dir, name);
        if let Some(&node) = self.by_file.get(&id) {
            self.count(node);
            self.put(node, place);
            return Ok(node);
        }
        if self.open >= self.limit {
            return Err(Errno::NFILE);
        }
        let node = self.next;
        self.next += 1;
        let inode = Inode {
            id,
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            lookups: 1,
            cached: None,
            place: None,
            file: None,
            used: true,
        };
        self.known.insert(node, inode);
        self.by_file.insert(id, node);
        self.put(node, place);
        self.keep(node, &Arc::new(file));
        Ok(node)
    }

    /// Counts one more lookup of an inode that the guest knows.
    fn count(&mut self, node: u64) {
        if let Some(inode) = self.known.get_mut(&node) {
            inode.lookups = inode.lookups.saturating_add(1);
            inode.used = true;
        }
    }

    /// Takes back `count` lookups of an inode. More than there were count as all.
    pub fn forget(&mut self, node: u64, count: u64) {
        if node == FUSE_ROOT_ID {
            return;
        }
        let Some(inode) = self.known.get_mut(&node) else {
            return;
        };
        inode.lookups = inode.lookups.saturating_sub(count);
        if inode.lookups > 0 {
            return;
        }
        self.displace(node);
        if let Some(inode) = self.known.remove(&node) {
            self.by_file.remove(&inode.id);
            self.open -= usize::from(inode.file.is_some());
        }
    }

    /// Opens the inode that is known as `name` in `dir`, before the name is removed, and forgets the name.
    ///
    /// Returns the inode, for [`Inodes::found`] if it has a name after all.
    pub fn hold(&mut self, host: &Host, dir: u64, name: Name<'_>) -> Option<u64> {
        let node = *self.by_place.get(&Place::new(dir, name))?;
        let file = self.file(host, node);
        self.displace(node);
        // One that could not be found is stale anyway.
        if let Ok(file) = file {
            self.keep(node, &file);
        }
        Some(node)
    }

    /// Notes that an inode is found as `name` in `dir`.
    pub fn found(&mut self, node: u64, dir: u64, name: Name<'_>) {
        self.put(node, Place::new(dir, name));
    }

    /// Notes the version of an inode's data that the guest is about to cache, and returns the one before.
    pub fn cached(&mut self, node: u64, version: Option<Version>) -> Option<Version> {
        let inode = self.known.get_mut(&node)?;
        std::mem::replace(&mut inode.cached, version)
    }

    /// Notes where an inode has been found.
    fn put(&mut self, node: u64, place: Place) {
        if node == FUSE_ROOT_ID || self.by_place.get(&place) == Some(&node) {
            return;
        }
        self.displace(node);
        if let Some(before) = self.by_place.insert(place.clone(), node)
            && let Some(inode) = self.known.get_mut(&before)
        {
            inode.place = None;
        }
        if let Some(inode) = self.known.get_mut(&node) {
            inode.place = Some(place);
            self.queue.push_back(node);
            self.close_some();
        }
    }

    /// Forgets where an inode has been found.
    fn displace(&mut self, node: u64) {
        let place = self
            .known
            .get_mut(&node)
            .and_then(|inode| inode.place.take());
        if let Some(place) = place {
            self.by_place.remove(&place);
        }
    }

    /// Keeps a descriptor for an inode if it may, and closes others if there are too many.
    fn keep(&mut self, node: u64, file: &Arc<OwnedFd>) {
        let Some(inode) = self.known.get_mut(&node) else {
            return;
        };
        if inode.file.is_none() && self.open < self.limit {
            inode.file = Some(Arc::clone(file));
            self.open += 1;
            self.queue.push_back(node);
        }
        self.close_some();
    }

    /// Closes descriptors that have not been used for long, until there are few enough or none that can be found again.
    fn close_some(&mut self) {
        let mut looks = 2 * self.queue.len();
        while self.open > self.goal && looks > 0 {
            looks -= 1;
            let Some(node) = self.queue.pop_front() else {
                break;
            };
            let Some(inode) = self.known.get_mut(&node) else {
                continue;
            };
            if inode.place.is_none() || inode.file.is_none() {
                continue;
            }
            if std::mem::take(&mut inode.used) {
                self.queue.push_back(node);
                continue;
            }
            inode.file = None;
            self.open -= 1;
        }
        self.tidy();
    }

    /// Takes out of the queue what need not be there, when that is most of it.
    fn tidy(&mut self) {
        if self.queue.len() <= 2 * self.open + 64 {
            return;
        }
        let mut seen = HashSet::new();
        let known = &self.known;
        self.queue.retain(|node| {
            let closable = |inode: &Inode| inode.file.is_some() && inode.place.is_some();
            known.get(node).is_some_and(closable) && seen.insert(*node)
        });
    }
}
