//! A root directory of Debian, made of packages without root's rights.
//!
//! ```text
//! essential packages + apt ─▶ apt resolves, downloads, verifies ─▶ .deb files ─▶ tree      (unpack)
//!                    --include ─┘                                       └─────▶ dpkg's database (database)
//! ```
//!
//! This is the first stage of an installation, as that of debootstrap or multistrap: packages are unpacked on the host, and
//! nothing of theirs is executed. The tree is then as dpkg leaves it between unpacking and configuring, with the script of the
//! second stage in it ([`SETUP`]), which a machine runs.

mod database;
mod unpack;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::apt::Planned;
use super::{SUITE, updated_apt};
use crate::architecture::Architecture;
use crate::error::{FetchError, file_error};
use crate::progress::{Progress, Stage};
use database::Database;
pub(crate) use database::is_installed;
use unpack::Tree;

/// Packages beside the essential ones: what brings others later, and what says that /bin is a link into /usr, instead of
/// usrmerge, which makes it one.
const FURTHER: [&str; 2] = ["apt", "usr-is-merged"];

/// The folder with the files of the second stage, which removes it.
const FOLDER: &str = ".replex-setup";

/// The script of the second stage.
const SCRIPT: &str = include_str!("setup.sh");

/// The shell command that carries out the second stage, with the tree as root. Its standard output is that of dpkg; it ends with
/// status 0 if all packages are configured.
pub(crate) const SETUP: &str = "exec sh /.replex-setup/setup";

/// Files that no package brings, if there are none.
const FILES: [(&str, &str); 2] = [
    ("etc/hostname", "debian\n"),
    (
        "etc/hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    ),
];

/// Makes the tree of the essential packages for `architecture`, apt and `include`, with what these depend on and recommend, in the
/// empty folder `tree`, and returns how many packages it has. `work` is an empty folder for temporary files.
pub(crate) fn fetch_root(
    architecture: Architecture,
    tree: &Path,
    include: &[String],
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<usize, FetchError> {
    let apt = updated_apt(&[SUITE], architecture, work, progress)?;
    let available = apt.available()?;
    let mut wanted = database::essential(&available);
    wanted.extend(FURTHER.map(str::to_owned));
    let mut packages = apt.plan(&wanted, false)?;
    // As if the others were there, so that only what is included brings what it recommends.
    let names: Vec<&str> = packages.iter().map(Planned::name).collect();
    let essential = database::installed(&available, &names);
    let mut included = Vec::new();
    if !include.is_empty() {
        // A package that nobody has is known before anything is downloaded.
        apt.set_installed(&essential)?;
        included = apt.plan(include, true)?;
        apt.set_installed("")?;
    }
    apt.download_planned(&packages, &wanted, false, progress)?;
    if !include.is_empty() {
        apt.set_installed(&essential)?;
        apt.download_planned(&included, include, true, progress)?;
        packages.extend(included);
    }
    drop(available);
    let files: Vec<PathBuf> = packages.iter().map(|package| apt.file(package)).collect();
    progress.stage(&Stage::Unpacking {
        package: format!("{} packages", packages.len()),
    });
    unpack_all(tree, &packages, &files)?;
    write_new(tree, "etc/apt/sources.list", apt.source_lines())?;
    for (path, content) in FILES {
        write_new(tree, path, content)?;
    }
    Ok(packages.len())
}

/// Unpacks packages and prepares the second stage.
fn unpack_all(root: &Path, packages: &[Planned], files: &[PathBuf]) -> Result<(), FetchError> {
    let mut tree = Tree::new(root)?;
    let mut database = Database::new(root)?;
    for (package, file) in packages.iter().zip(files) {
        let control = database.read(package.name(), file)?;
        let paths = tree.unpack(package.name(), file, control.conffiles())?;
        database.add(&control, &paths)?;
    }
    let preinst = database.finish()?;
    let folder = root.join(FOLDER);
    fs::create_dir(&folder).map_err(file_error("create", &folder))?;
    for (name, content) in [
        ("setup", SCRIPT),
        ("attributes", &tree.attributes()),
        ("preinst", &preinst),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).map_err(file_error("write", path))?;
    }
    // Scripts that come before that of mawk use it by this name.
    let awk = root.join("usr/bin/awk");
    if root.join("usr/bin/mawk").exists() && fs::symlink_metadata(&awk).is_err() {
        symlink("mawk", &awk).map_err(file_error("create", awk))?;
    }
    Ok(())
}

/// Writes a file of the tree unless there is one. Its folder is there, and neither is reached by a link.
fn write_new(root: &Path, path: &str, content: &str) -> Result<(), FetchError> {
    let path = root.join(path);
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    fs::write(&path, content).map_err(file_error("write", path))
}
