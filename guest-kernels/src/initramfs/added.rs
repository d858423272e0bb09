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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::super::ALIGNMENT;
    use super::super::archive::read_back::members;
    use super::*;

    /// Files of the host, in a folder of their own.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, mode: u32, content: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        /// The names, modes and contents in both archives, given FILE and PATH of each addition.
        fn added(
            &self,
            additions: &[(&str, &str)],
        ) -> Result<[Vec<(String, u32, String)>; 2], String> {
            self.limited(additions, 1000)
        }

        fn limited(
            &self,
            additions: &[(&str, &str)],
            limit: u64,
        ) -> Result<[Vec<(String, u32, String)>; 2], String> {
            let additions: Vec<_> = additions
                .iter()
                .map(|(file, path)| Addition {
                    file: self.0.path().join(file),
                    path: (*path).into(),
                })
                .collect();
            let archives = added_archives(&additions, limit).map_err(|error| error.to_string())?;
            Ok([archives.before, archives.behind].map(|archive| {
                assert_eq!(archive.len() % ALIGNMENT, 0);
                let members = members(&archive).into_iter();
                members
                    .map(|m| (m.name, m.mode, String::from_utf8(m.content).unwrap()))
                    .collect()
            }))
        }
    }

    fn folder(name: &str, mode: u32) -> (String, u32, String) {
        (name.into(), 0o40000 | mode, String::new())
    }

    fn regular(name: &str, mode: u32, content: &str) -> (String, u32, String) {
        (name.into(), 0o100000 | mode, content.into())
    }

    #[test]
    fn a_file_has_its_mode_and_its_parents() {
        let host = Host::new();
        host.file("prog", 0o4751, "x");
        let [before, behind] = host.added(&[("prog", "/opt//tools/run")]).unwrap();
        assert_eq!(before, [folder("opt", 0o755), folder("opt/tools", 0o755)]);
        assert_eq!(behind, [regular("opt/tools/run", 0o4751, "x")]);
        for path in ["/opt/", "/opt///"] {
            let [_, behind] = host.added(&[("prog", path)]).unwrap();
            assert_eq!(behind, [regular("opt/prog", 0o4751, "x")], "{path}");
        }
        let [before, behind] = host.added(&[("prog", "/")]).unwrap();
        assert_eq!(
            (before, behind),
            (vec![], vec![regular("prog", 0o4751, "x")])
        );
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let host = Host::new();
        host.file("tree/a", 0o644, "1");
        host.file("tree/sub/b", 0o600, "2");
        symlink("../a", host.0.path().join("tree/sub/link")).unwrap();
        fs::set_permissions(
            host.0.path().join("tree/sub"),
            fs::Permissions::from_mode(0o1770),
        )
        .unwrap();
        fs::set_permissions(
            host.0.path().join("tree"),
            fs::Permissions::from_mode(0o750),
        )
        .unwrap();
        let [before, behind] = host.added(&[("tree", "/srv/t/")]).unwrap();
        assert_eq!(
            before,
            [
                folder("srv", 0o755),
                folder("srv/t", 0o750),
                folder("srv/t/sub", 0o1770)
            ]
        );
        assert_eq!(
            behind,
            [
                regular("srv/t/a", 0o644, "1"),
                regular("srv/t/sub/b", 0o600, "2"),
                ("srv/t/sub/link".into(), 0o120777, "../a".into()),
            ]
        );
        let [before, behind] = host.added(&[("tree", "/")]).unwrap();
        assert_eq!(before, [folder("sub", 0o1770)]);
        assert_eq!(behind[0].0, "a");
    }

    #[test]
    fn folders_below_what_may_be_a_link_come_behind() {
        let host = Host::new();
        host.file("f", 0o644, "");
        let [before, behind] = host
            .added(&[("f", "/usr/bin/d/f"), ("f", "/binary/f")])
            .unwrap();
        assert_eq!(
            before,
            [
                folder("binary", 0o755),
                folder("usr", 0o755),
                folder("usr/bin", 0o755)
            ]
        );
        assert_eq!(behind[1], folder("usr/bin/d", 0o755));
    }

    #[test]
    fn several_may_share_folders_but_no_path() {
        let host = Host::new();
        host.file("f", 0o644, "");
        host.file("tree/g", 0o644, "");
        fs::set_permissions(
            host.0.path().join("tree"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        for additions in [
            [("f", "/d/f"), ("tree", "/d")],
            [("tree", "/d"), ("f", "/d/f")],
        ] {
            let [before, behind] = host.added(&additions).unwrap();
            assert_eq!(before, [folder("d", 0o700)], "the mode is the host's");
            assert_eq!(behind.len(), 2);
        }
        assert_eq!(
            host.added(&[("f", "/x"), ("f", "//x")]).unwrap_err(),
            "/x is added twice"
        );
        assert_eq!(
            host.added(&[("f", "/x"), ("f", "/x/y")]).unwrap_err(),
            "/x is added twice"
        );
        assert_eq!(
            host.added(&[("f", "/x/y"), ("f", "/x")]).unwrap_err(),
            "/x is added twice"
        );
    }

    #[test]
    fn errors_name_the_file_or_the_path() {
        let host = Host::new();
        host.file("f", 0o644, "12345");
        for (file, path, named) in [
            ("absent", "/x", "/absent: No such file"),
            ("f", "x", "x: not an absolute path"),
            ("f", "/a/../b", "/a/../b: "),
            ("f", "/./b", "/./b: "),
            ("f", "/TRAILER!!!", "ends an archive"),
            ("f", &format!("/{}", "x".repeat(256)), "255 bytes"),
            ("f", &"/x".repeat(2100), "4095 bytes"),
        ] {
            let error = host.added(&[(file, path)]).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
        let error = host.limited(&[("f", "/x")], 4).unwrap_err();
        assert!(
            error.contains("/f: ") && error.contains("4 bytes"),
            "{error}"
        );
        host.limited(&[("f", "/x")], 5).unwrap();
        std::os::unix::net::UnixListener::bind(host.0.path().join("socket")).unwrap();
        let error = host.added(&[("", "/d")]).unwrap_err();
        assert!(error.contains("/socket: a socket"), "{error}");
    }

    #[test]
    fn nothing_added_is_no_archive() {
        assert_eq!(added_archives(&[], 0).unwrap(), AddedArchives::default());
    }

    #[test]
    fn the_last_colon_before_a_slash_separates() {
        for (text, file, path) in [
            ("a:/b", "a", "/b"),
            ("a:b:/c:d", "a:b", "/c:d"),
            ("a:/b:/c", "a:/b", "/c"),
            ("/x/y:/", "/x/y", "/"),
        ] {
            let expected = Addition {
                file: file.into(),
                path: path.into(),
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", ":", "a", "a:", "a:b", ":/b", "/a/b"] {
            assert_eq!(text.parse::<Addition>(), Err(AdditionParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parted_without_loss_or_refused(text in "[a/:. ]{0,12}|.*") {
            if let Ok(addition) = text.parse::<Addition>() {
                prop_assert_eq!(format!("{}:{}", addition.file.display(), addition.path), text);
                prop_assert!(addition.path.starts_with('/'));
            }
        }

        #[test]
        fn any_path_is_a_member_with_its_parents_or_refused(path in "/[a./]{0,10}|/.{0,20}|.*") {
            let host = Host::new();
            host.file("f", 0o644, "");
            if let Ok([before, behind]) = host.added(&[("f", &path)]) {
                let names: Vec<_> = before.iter().chain(&behind).map(|(name, ..)| name.as_str()).collect();
                for (at, name) in names.iter().enumerate() {
                    prop_assert!(!name.starts_with('/') && !name.split('/').any(|part| ["", ".", ".."].contains(&part)));
                    if let Some((parent, _)) = name.rsplit_once('/') {
                        prop_assert!(names[..at].contains(&parent));
                    }
                }
            }
        }
    }
}
