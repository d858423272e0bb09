//! Files of the host that a guest gets without its initramfs being repacked: in two archives, before and behind it.
//!
//! The kernel unpacks all archives into the same tree, and a member replaces an earlier one of its name. So folders come
//! *before* the guest's own archive: those that it has get its modes, and where it has a link of that name, as `/bin` often
//! is one, the link replaces the empty folder. Files and links come *behind* it and replace what it has.
//!
//! ```text
//! ┌─────────┬──────────────────────────────┬───────┐
//! │ folders │ the guest's own initramfs …  │ files │
//! └─────────┴──────────────────────────────┴───────┘
//! ```
//!
//! A folder below one that may be a link comes behind, too, since the link could not replace a folder that is not empty.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::archive::Archive;

/// A file or folder of the host, with its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The file or folder on the host.
    pub file: PathBuf,
    /// The absolute path in the guest. A file goes into a folder under its own name if the path ends in `/`; of a folder, the
    /// contents go to this path.
    pub path: String,
}

/// The error of a text that is no [`Addition`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not FILE:PATH with an absolute PATH in the guest, such as prog:/bin/prog")]
pub struct AdditionParseError;

impl FromStr for Addition {
    type Err = AdditionParseError;

    /// Parses `FILE:PATH`, where PATH is absolute. It begins behind the last colon that a slash follows, so FILE may have
    /// colons.
    fn from_str(text: &str) -> Result<Self, AdditionParseError> {
        match text.rfind(":/") {
            None | Some(0) => Err(AdditionParseError),
            Some(at) => Ok(Self {
                file: text[..at].into(),
                path: text[at + 1..].into(),
            }),
        }
    }
}

/// The archives to put around a guest's initramfs, each at a multiple of [`ALIGNMENT`](super::ALIGNMENT), or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedArchives {
    /// The archive before the guest's own.
    pub before: Vec<u8>,
    /// The archive behind the guest's own.
    pub behind: Vec<u8>,
}

/// The reason why files could not be added. Each message names the file of the host or the path in the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// A file or folder could not be read.
    #[error("{}: {reason}", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// Something in a folder is neither a file nor a folder nor a symbolic link.
    #[error("{}: {what}, and only files, folders and symbolic links can be added", file.display())]
    Kind {
        /// The thing in the folder.
        file: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The files do not fit in the guest's memory.
    #[error("{}: with this, more is added than the {limit} bytes of the guest's memory", file.display())]
    TooLarge {
        /// The file that is too much.
        file: PathBuf,
        /// The most bytes that may be added.
        limit: u64,
    },
    /// A name cannot be in the archive.
    #[error("{path}: {why}")]
    Path {
        /// The path in the guest.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two things are to have the same path.
    #[error("/{path} is added twice")]
    Twice {
        /// The path in the guest, without the first slash.
        path: String,
    },
}

/// The mode of folders that are made for what is in them.
const PARENT_MODE: u32 = 0o755;
/// The bits of a mode that are kept: permissions, set-user-ID, set-group-ID and sticky.
const MODE_BITS: u32 = 0o7777;
/// The longest path that the kernel takes from an archive, in bytes (init/initramfs.c: `PATH_MAX` with the final NUL).
const PATH_LIMIT: usize = 4095;
/// The longest name of a file or folder, in bytes.
const NAME_LIMIT: usize = 255;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Folders that are links in some distributions' initramfs, or in ours.
const MAYBE_LINKS: [&str; 14] = [
    "bin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "sbin",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
    "var/lock",
    "var/run",
    "var/tmp",
    "run/lock",
];

/// The folders on which every Linux system mounts a file system of the kernel's.
const MOUNTED: [&str; 3] = ["dev", "proc", "sys"];

/// What a path is to be.
enum Member {
    Folder { mode: u32, is_parent: bool },
    File { mode: u32, content: Vec<u8> },
    Link(String),
}

/// What is added, by path without the first slash: so folders precede what is in them.
struct Tree {
    members: BTreeMap<String, Member>,
    /// The bytes that may still be added.
    room: u64,
    limit: u64,
}

/// Reads what is to be added, at most `limit` bytes, and makes the archives.
///
/// Modes are those of the host, owners are root, and folders that lead to a path are made. What is already in the guest's
/// initramfs is replaced, except that folders keep their modes. Symbolic links in folders stay links.
///
/// # Errors
/// See [`AddError`].
pub fn added_archives(additions: &[Addition], limit: u64) -> Result<AddedArchives, AddError> {
    if additions.is_empty() {
        return Ok(AddedArchives::default());
    }
    let mut tree = Tree {
        members: BTreeMap::new(),
        room: limit,
        limit,
    };
    for addition in additions {
        tree.add(addition)?;
    }
    Ok(tree.archives())
}

impl Tree {
    fn add(&mut self, addition: &Addition) -> Result<(), AddError> {
        let file = &addition.file;
        let metadata = fs::metadata(file).map_err(read_error(file))?;
        let mode = metadata.permissions().mode();
        let mut path = normalized(&addition.path)?;
        if metadata.is_dir() {
            return self.add_folder(file, path, mode);
        }
        if addition.path.ends_with('/') {
            let name = file.file_name().and_then(|name| name.to_str());
            path = below(&path, name.ok_or_else(|| not_utf8(file))?);
        }
        self.add_file(file, path, mode)
    }

    fn add_folder(&mut self, folder: &Path, path: String, mode: u32) -> Result<(), AddError> {
        if !path.is_empty() {
            let mode = mode & MODE_BITS;
            let is_parent = false;
            self.insert(path.clone(), Member::Folder { mode, is_parent })?;
        }
        let entries = fs::read_dir(folder).map_err(read_error(folder))?;
        for entry in entries {
            let entry = entry.map_err(read_error(folder))?;
            let file = entry.path();
            let name = entry.file_name();
            let path = below(&path, name.to_str().ok_or_else(|| not_utf8(&file))?);
            let metadata = entry.metadata().map_err(read_error(&file))?;
            let mode = metadata.permissions().mode();
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.add_folder(&file, path, mode)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&file).map_err(read_error(&file))?;
                let target = target.to_str().ok_or_else(|| not_utf8(&file))?;
                self.insert(path, Member::Link(target.into()))?;
            } else if kind.is_file() {
                self.add_file(&file, path, mode)?;
            } else {
                let what = name_of(kind);
                return Err(AddError::Kind { file, what });
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path, path: String, mode: u32) -> Result<(), AddError> {
        let mut content = Vec::new();
        let reader = File::open(file).map_err(read_error(file))?;
        // One byte more is enough to know that it is too much.
        let mut reader = reader.take(self.room.saturating_add(1));
        reader.read_to_end(&mut content).map_err(read_error(file))?;
        self.room =
            self.room
                .checked_sub(content.len() as u64)
                .ok_or_else(|| AddError::TooLarge {
                    file: file.into(),
                    limit: self.limit,
                })?;
        let mode = mode & MODE_BITS;
        self.insert(path, Member::File { mode, content })
    }

    /// Adds a member and the folders that lead to it.
    fn insert(&mut self, path: String, member: Member) -> Result<(), AddError> {
        check(&path)?;
        for (end, _) in path.match_indices('/') {
            let parent = Member::Folder {
                mode: PARENT_MODE,
                is_parent: true,
            };
            self.insert_one(path[..end].into(), parent)?;
        }
        self.insert_one(path, member)
    }

    fn insert_one(&mut self, path: String, member: Member) -> Result<(), AddError> {
        use Member::Folder;
        match (self.members.get(&path), &member) {
            (None, _)
            | (
                Some(Folder {
                    is_parent: true, ..
                }),
                Folder { .. },
            ) => {
                self.members.insert(path, member);
                Ok(())
            }
            (Some(Folder { .. }), Folder { .. }) => Ok(()),
            (Some(_), _) => Err(AddError::Twice { path }),
        }
    }

    fn archives(self) -> AddedArchives {
        let mut before = Archive::default();
        let mut behind = Archive::default();
        for (path, member) in &self.members {
            match member {
                Member::Folder { mode, .. } if is_below_a_link(path) => behind.folder(path, *mode),
                Member::Folder { mode, .. } => before.folder(path, *mode),
                Member::File { mode, content } => behind.file(path, *mode, content),
                Member::Link(target) => behind.link(path, target),
            }
        }
        AddedArchives {
            before: before.finish(),
            behind: behind.finish(),
        }
    }
}

/// Whether `path` lies below a folder that may be a link.
fn is_below_a_link(path: &str) -> bool {
    let mut links = MAYBE_LINKS.iter();
    links.any(|link| {
        path.strip_prefix(link)
            .is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Returns an absolute path without its first, last and double slashes.
fn normalized(path: &str) -> Result<String, AddError> {
    let wrong = |why| AddError::Path {
        path: path.into(),
        why,
    };
    if !path.starts_with('/') {
        return Err(wrong("not an absolute path in the guest"));
    }
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    match names.iter().any(|name| [".", ".."].contains(name)) {
        true => Err(wrong("a path in the guest has no . and no ..")),
        false => Ok(names.join("/")),
    }
}

/// Checks that `path` can be the name of a member.
fn check(path: &str) -> Result<(), AddError> {
    let wrong = |why| {
        Err(AddError::Path {
            path: format!("/{path}"),
            why,
        })
    };
    match path {
        "" => wrong("the guest's root is a folder, and a file is to be put there: name it"),
        _ if path
            .split('/')
            .next()
            .is_some_and(|first| MOUNTED.contains(&first)) =>
        {
            wrong("what is added there is hidden when the guest mounts its own")
        }
        TRAILER => wrong("this name ends an archive"),
        _ if path.contains('\0') => wrong("a path has no NUL"),
        _ if path.len() > PATH_LIMIT => wrong("longer than 4095 bytes"),
        _ if path.split('/').any(|name| name.len() > NAME_LIMIT) => {
            wrong("a name in it is longer than 255 bytes")
        }
        _ => Ok(()),
    }
}

/// Returns the path of `name` in a folder.
fn below(folder: &str, name: &str) -> String {
    match folder {
        "" => name.into(),
        _ => format!("{folder}/{name}"),
    }
}

fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}

fn not_utf8(file: &Path) -> AddError {
    AddError::Path {
        path: file.display().to_string(),
        why: "a name that is not UTF-8 cannot be added",
    }
}

/// Returns a function for `map_err` that turns an `io::Error` into [`AddError::Read`].
fn read_error(file: &Path) -> impl FnOnce(io::Error) -> AddError {
    let file = file.into();
    move |reason| AddError::Read { file, reason }
}
