//! Unpacking of packages into a tree, as an ordinary user.
//!
//! Files are made with the modes of the package, plus the rights that their owner needs to go on; what an ordinary user cannot
//! give them, owners other than root and setuid, setgid and sticky bits, is listed for the second stage
//! ([`Tree::attributes`]). As in every Debian since 12, /bin, /sbin and /lib are links into /usr.
//!
//! No path of a package leads out of the tree: each folder on the way is made here or is a folder already, never a link.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use tar::{Entry, EntryType};

use crate::debian::package;
use crate::error::{FetchError, file_error};

/// The folders that are links into /usr, of every architecture (debootstrap's `setup_merged_usr`).
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// The end of the names of configuration files until dpkg configures their package.
const NEW: &str = ".dpkg-new";

/// Owner, group and mode of a file.
type Attributes = (u64, u64, u32);

/// A tree into which packages are unpacked.
pub(super) struct Tree {
    root: PathBuf,
    /// Folders of the tree that are known to be none of the links.
    folders: HashSet<PathBuf>,
    /// What files are to have that they have not, by path.
    attributes: BTreeMap<PathBuf, Attributes>,
}

impl Tree {
    /// Begins a tree in the empty folder `root`.
    pub(super) fn new(root: &Path) -> Result<Self, FetchError> {
        for name in MERGED {
            let folder = root.join("usr").join(name);
            fs::create_dir_all(&folder).map_err(file_error("create", folder))?;
            let link = root.join(name);
            symlink(Path::new("usr").join(name), &link).map_err(file_error("create", link))?;
        }
        Ok(Self {
            root: root.to_owned(),
            folders: HashSet::new(),
            attributes: BTreeMap::new(),
        })
    }

    /// Unpacks the file `deb` of `package`, whose configuration files are `conffiles`, and returns its paths as dpkg lists them.
    pub(super) fn unpack(
        &mut self,
        package: &str,
        deb: &Path,
        conffiles: &[PathBuf],
    ) -> Result<Vec<PathBuf>, FetchError> {
        let unpack = |stream| self.unpack_stream(stream, conffiles).map(Some);
        let paths = package::read(package, deb, package::Part::Files, unpack)?;
        Ok(paths.unwrap_or_default())
    }

    /// Unpacks a tar stream.
    fn unpack_stream(
        &mut self,
        stream: impl Read,
        conffiles: &[PathBuf],
    ) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in tar::Archive::new(stream).entries()? {
            let mut entry = entry?;
            let path = relative(&entry.path()?)?;
            if !path.as_os_str().is_empty() {
                self.unpack_entry(&mut entry, &path, conffiles)
                    .map_err(|error| about(&path, &error))?;
            }
            paths.push(Path::new("/").join(path));
        }
        Ok(paths)
    }

    /// The list of attributes for the second stage, in lines "MODE UID:GID PATH".
    pub(super) fn attributes(&self) -> String {
        let mut lines = String::new();
        for (path, (uid, gid, mode)) in &self.attributes {
            let _ = writeln!(lines, "{mode:o} {uid}:{gid} /{}", path.display());
        }
        lines
    }

    fn unpack_entry<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        conffiles: &[PathBuf],
    ) -> io::Result<()> {
        let mut place = merged(path);
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            self.enter(&place)?;
            return self.set_attributes(entry, &place, 0o700);
        }
        if conffiles.iter().any(|conffile| conffile == path) {
            place.as_mut_os_string().push(NEW);
        }
        self.enter(place.parent().unwrap_or(Path::new("")))?;
        let file = self.root.join(&place);
        if fs::symlink_metadata(&file).is_ok() {
            // Of another package, which this one replaces in part.
            fs::remove_file(&file)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let modified =
                    SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
                let mut new = create(&file)?;
                io::copy(entry, &mut new)?;
                new.set_modified(modified)?;
                self.set_attributes(entry, &place, 0o600)
            }
            EntryType::Symlink => symlink(link_target(entry)?, file),
            EntryType::Link => {
                let target = merged(&relative(&link_target(entry)?)?);
                self.enter(target.parent().unwrap_or(Path::new("")))?;
                fs::hard_link(self.root.join(target), file)
            }
            kind => Err(io::Error::other(format!(
                "unexpected kind of file {kind:?}"
            ))),
        }
    }

    /// Makes a folder and those above it, unless they are there.
    fn enter(&mut self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || self.folders.contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.enter(parent)?;
        }
        let path = self.root.join(folder);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(io::Error::other(format!(
                    "/{} is no folder",
                    folder.display()
                )));
            }
            Err(_) => {
                fs::create_dir(&path)?;
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            }
        }
        self.folders.insert(folder.to_owned());
        Ok(())
    }

    /// Gives a file or folder the mode of its entry and the bits `own`, and notes what else it is to have.
    fn set_attributes<R: Read>(
        &mut self,
        entry: &Entry<'_, R>,
        place: &Path,
        own: u32,
    ) -> io::Result<()> {
        let header = entry.header();
        let (uid, gid, mode) = (header.uid()?, header.gid()?, header.mode()? & 0o7777);
        let kept = mode & 0o777 | own;
        fs::set_permissions(self.root.join(place), Permissions::from_mode(kept))?;
        match (uid, gid, mode) == (0, 0, kept) {
            true => self.attributes.remove(place),
            false => self.attributes.insert(place.to_owned(), (uid, gid, mode)),
        };
        Ok(())
    }
}

/// Makes a file that is not there, by no link.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The target of a link.
fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name()?;
    let target = target.ok_or_else(|| io::Error::other("a link without a target"))?;
    Ok(target.into_owned())
}

/// A path of an archive without leading "./" or "/", empty for the tree itself.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut names = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(name) if !name.as_bytes().contains(&b'\n') => names.push(name),
            _ => return Err(about(path, &io::Error::other("not a path of a package"))),
        }
    }
    Ok(names)
}

/// The place of a path where /bin, /sbin and /lib are links into /usr.
fn merged(path: &Path) -> PathBuf {
    match path.iter().next() {
        Some(first) if MERGED.iter().any(|name| first == *name) => Path::new("usr").join(path),
        _ => path.to_owned(),
    }
}

/// Names the path in an error.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use tar::{Builder, Header};

    use super::*;

    /// A tar stream of entries with kind, path, mode, owner and group, and content or target.
    fn stream(entries: &[(EntryType, &str, u32, u64, u64, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for &(kind, path, mode, uid, gid, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(gid);
            header.set_mtime(1_000_000_000);
            // Paths that Builder would refuse.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = match kind {
                EntryType::Regular => content,
                EntryType::Symlink | EntryType::Link => {
                    header.set_link_name_literal(content).unwrap();
                    ""
                }
                _ => "",
            };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn file(path: &str, mode: u32) -> (EntryType, &str, u32, u64, u64, &'static str) {
        (EntryType::Regular, path, mode, 0, 0, "content")
    }

    #[test]
    fn a_package_is_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let mut tree = Tree::new(root.path()).unwrap();
        let stream = stream(&[
            (EntryType::Directory, "./", 0o755, 0, 0, ""),
            (EntryType::Directory, "./bin/", 0o755, 0, 0, ""),
            file("./bin/tool", 0o755),
            (EntryType::Link, "./bin/other", 0o755, 0, 0, "./bin/tool"),
            (
                EntryType::Symlink,
                "./usr/bin/link",
                0o777,
                0,
                0,
                "/bin/tool",
            ),
            (EntryType::Directory, "./tmp/", 0o1777, 0, 0, ""),
            (EntryType::Directory, "./closed/", 0o500, 0, 0, ""),
            file("./closed/file", 0o444),
            (EntryType::Regular, "./usr/bin/mail", 0o2755, 0, 8, ""),
            file("./etc/tool.conf", 0o644),
        ]);
        let paths = tree
            .unpack_stream(&*stream, &["etc/tool.conf".into()])
            .unwrap();
        assert_eq!(paths[..3], ["/", "/bin", "/bin/tool"].map(PathBuf::from));
        assert_eq!(paths[9], Path::new("/etc/tool.conf"));
        assert_eq!(fs::read_link(at("bin")).unwrap(), Path::new("usr/bin"));
        let tool = fs::metadata(at("usr/bin/tool")).unwrap();
        assert_eq!(
            (tool.mode() & 0o7777, tool.mtime(), tool.nlink()),
            (0o755, 1_000_000_000, 2)
        );
        assert_eq!(
            fs::read_link(at("usr/bin/link")).unwrap(),
            Path::new("/bin/tool")
        );
        assert_eq!(fs::read(at("etc/tool.conf.dpkg-new")).unwrap(), b"content");
        assert!(!at("etc/tool.conf").exists());
        assert_eq!(fs::metadata(at("closed")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            tree.attributes(),
            "500 0:0 /closed\n444 0:0 /closed/file\n1777 0:0 /tmp\n2755 0:8 /usr/bin/mail\n"
        );
    }

    #[test]
    fn the_later_package_has_the_file() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(root.path()).unwrap();
        tree.unpack_stream(&*stream(&[file("./a", 0o4755)]), &[])
            .unwrap();
        let other = (EntryType::Regular, "./a", 0o644, 0, 0, "other");
        tree.unpack_stream(&*stream(&[other]), &[]).unwrap();
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"other");
        assert_eq!(tree.attributes(), "");
    }

    #[test]
    fn no_path_leads_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        let out = outside.path().to_str().unwrap();
        for entries in [
            &[
                (EntryType::Symlink, "./out", 0o777, 0, 0, out),
                file("./out/file", 0o644),
            ][..],
            &[
                (EntryType::Symlink, "./out", 0o777, 0, 0, out),
                (EntryType::Directory, "./out/", 0o755, 0, 0, ""),
            ],
            &[
                (EntryType::Symlink, "./out", 0o777, 0, 0, out),
                (EntryType::Link, "./a", 0o644, 0, 0, "out/secret"),
            ],
            &[file("./../file", 0o644)],
            &[file("a/../../file", 0o644)],
            &[(EntryType::Link, "./a", 0o644, 0, 0, "../secret")],
            &[(EntryType::Char, "./null", 0o666, 0, 0, "")],
        ] {
            fs::write(outside.path().join("secret"), "").unwrap();
            let root = outside.path().join("root");
            fs::create_dir(&root).unwrap();
            let mut tree = Tree::new(&root).unwrap();
            tree.unpack_stream(&*stream(entries), &[]).unwrap_err();
            fs::remove_dir_all(root).unwrap();
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        }
        // A link in the place of a file is replaced, not followed.
        let root = outside.path().join("root");
        fs::create_dir(&root).unwrap();
        let secret = outside.path().join("secret");
        let mut tree = Tree::new(&root).unwrap();
        let entries = [
            (
                EntryType::Symlink,
                "./a",
                0o777,
                0,
                0,
                secret.to_str().unwrap(),
            ),
            file("./a", 0o644),
        ];
        tree.unpack_stream(&*stream(&entries), &[]).unwrap();
        assert_eq!(fs::read(secret).unwrap(), b"");
        assert_eq!(fs::read(root.join("a")).unwrap(), b"content");
    }
}
