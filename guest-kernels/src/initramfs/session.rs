//! The session archive, which tells /init what to do in one boot.
//!
//! | file | meaning |
//! |---|---|
//! | `/replex/exec` | the shell script to run instead of an interactive shell |
//! | `/replex/winsize` | the size of the terminal on the console, "ROWS COLUMNS" |
//! | `/replex/modules/NNNN-NAME.ko` | kernel modules, to be inserted in this order |
//! | `/replex/mounts` | the shell script that mounts directories of the host; it fails if one cannot be mounted |
//! | `/replex/root` | the root: "rw", a directory of the host; "ro", the same below a tmpfs; "squashfs DISK", below a tmpfs, too |
//!
//! `/replex/command` and what goes with it come in an archive of their own ([`launch`](super::launch)).
//!
//! /init runs `/replex/exec` with standard input from /dev/null, standard output on ttyS1 (raw, byte for byte) and
//! standard error on the console. Then it waits until both are sent and writes the exit status, 0 to 255, to I/O port
//! 0xf4.

use super::archive::Archive;

const FOLDER: &str = "replex";
const EXEC_FILE: &str = "replex/exec";
const WINSIZE_FILE: &str = "replex/winsize";
const MODULES_FOLDER: &str = "replex/modules";
const MOUNTS_FILE: &str = "replex/mounts";
const ROOT_FILE: &str = "replex/root";

/// The tag of the virtio-fs device with the root.
pub const ROOT_TAG: &str = "root";

/// The fate of changes to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootChanges {
    /// Changes are in memory, and gone when the machine stops.
    Dropped,
    /// Changes are made in the host's directory.
    Kept,
}

/// The root of the command or the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestRoot {
    /// The directory of the host with the tag [`ROOT_TAG`].
    Directory(RootChanges),
    /// A squashfs. Changes are dropped.
    Squashfs {
        /// The name of its disk in /dev, such as `vda`.
        disk: String,
    },
}

impl GuestRoot {
    /// Returns the line that tells /init.
    fn line(&self) -> String {
        match self {
            Self::Directory(RootChanges::Dropped) => "ro\n".into(),
            Self::Directory(RootChanges::Kept) => "rw\n".into(),
            Self::Squashfs { disk } => format!("squashfs {disk}\n"),
        }
    }
}

/// A directory of the host, to be mounted by /init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The tag of the virtio-fs device.
    pub tag: String,
    /// The place where it is mounted, an absolute path. Missing folders are made.
    pub path: String,
    /// Whether the guest's kernel refuses changes.
    pub read_only: bool,
}

impl Mount {
    /// Returns the commands that mount it.
    fn script(&self) -> String {
        let [tag, path] = [&self.tag, &self.path].map(|text| quoted(text));
        let access = if self.read_only { "ro" } else { "rw" };
        format!("$busybox mkdir -p {path} && $busybox mount -t virtiofs -o {access} {tag} {path}")
    }
}

/// Returns `text` as one word of a shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Makes the session archive for a boot that runs the shell command `command`, which may have several lines, on a
/// terminal of `winsize` (rows, columns). It belongs after the base archive, at a multiple of
/// [`ALIGNMENT`](super::ALIGNMENT).
pub fn exec_archive(command: &str, winsize: Option<(u16, u16)>) -> Vec<u8> {
    session_archive(Some(command), winsize)
}

/// Makes the session archive for an interactive boot on a terminal of `winsize` (rows, columns). It belongs after the
/// base archive, at a multiple of [`ALIGNMENT`](super::ALIGNMENT).
pub fn winsize_archive(winsize: (u16, u16)) -> Vec<u8> {
    session_archive(None, Some(winsize))
}

/// Makes the archive with kernel modules, given by name in the order in which they can be inserted.
pub(crate) fn modules_archive(modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder(FOLDER, 0o755);
    archive.folder(MODULES_FOLDER, 0o755);
    for (index, (name, module)) in modules.iter().enumerate() {
        archive.file(
            &format!("{MODULES_FOLDER}/{index:04}-{name}.ko"),
            0o644,
            module,
        );
    }
    archive.finish()
}

/// Makes the archive that has /init mount `root`, if there is one, then the directories `mounts` of the host in their order. It
/// belongs after the base archive, at a multiple of [`ALIGNMENT`](super::ALIGNMENT).
pub fn mounts_archive(root: Option<&GuestRoot>, mounts: &[Mount]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder(FOLDER, 0o755);
    if let Some(root) = root {
        archive.file(ROOT_FILE, 0o644, root.line().as_bytes());
    }
    if !mounts.is_empty() {
        let scripts: Vec<_> = mounts.iter().map(Mount::script).collect();
        archive.file(MOUNTS_FILE, 0o644, scripts.join(" &&\n").as_bytes());
    }
    archive.finish()
}

fn session_archive(command: Option<&str>, winsize: Option<(u16, u16)>) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder(FOLDER, 0o755);
    if let Some(command) = command {
        archive.file(EXEC_FILE, 0o755, command.as_bytes());
    }
    if let Some((rows, columns)) = winsize {
        archive.file(
            WINSIZE_FILE,
            0o644,
            format!("{rows} {columns}\n").as_bytes(),
        );
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ALIGNMENT;
    use super::super::archive::read_back::{Member, members};
    use super::*;

    fn content<'a>(members: &'a [Member], name: &str) -> Option<&'a [u8]> {
        members
            .iter()
            .find(|member| member.name == name)
            .map(|member| member.content.as_slice())
    }

    proptest! {
        #[test]
        fn any_command_round_trips(command in "(?s).*", winsize: Option<(u16, u16)>) {
            let archive = exec_archive(&command, winsize);
            prop_assert_eq!(archive.len() % ALIGNMENT, 0);
            let members = members(&archive);
            prop_assert_eq!(content(&members, EXEC_FILE), Some(command.as_bytes()));
            let expected = winsize.map(|(rows, columns)| format!("{rows} {columns}\n").into_bytes());
            prop_assert_eq!(content(&members, WINSIZE_FILE), expected.as_deref());
        }
    }

    #[test]
    fn an_interactive_boot_has_no_command() {
        let members = members(&winsize_archive((50, 132)));
        assert_eq!(content(&members, EXEC_FILE), None);
        assert_eq!(
            content(&members, WINSIZE_FILE),
            Some(b"50 132\n".as_slice())
        );
    }

    #[test]
    fn mounts_are_quoted() {
        let mount = |path: &str, read_only| Mount {
            tag: "volume0".into(),
            path: path.into(),
            read_only,
        };
        let archive = mounts_archive(None, &[mount("/a b", false), mount("/it's $HOME", true)]);
        let expected = "$busybox mkdir -p '/a b' && $busybox mount -t virtiofs -o rw 'volume0' '/a b' &&\n\
            $busybox mkdir -p '/it'\\''s $HOME' && $busybox mount -t virtiofs -o ro 'volume0' '/it'\\''s $HOME'";
        let members = members(&archive);
        assert_eq!(content(&members, MOUNTS_FILE), Some(expected.as_bytes()));
        assert_eq!(content(&members, ROOT_FILE), None);
    }

    #[test]
    fn a_root_is_mounted_as_its_kind_demands() {
        let disk = "vdc".into();
        for (root, line) in [
            (GuestRoot::Directory(RootChanges::Dropped), "ro\n"),
            (GuestRoot::Directory(RootChanges::Kept), "rw\n"),
            (GuestRoot::Squashfs { disk }, "squashfs vdc\n"),
        ] {
            let members = members(&mounts_archive(Some(&root), &[]));
            assert_eq!(content(&members, ROOT_FILE), Some(line.as_bytes()));
            assert_eq!(content(&members, MOUNTS_FILE), None);
        }
    }

    #[test]
    fn modules_are_in_the_order_of_their_names() {
        let modules: Vec<_> = (0..300)
            .map(|index| (format!("module{}", 300 - index), vec![index as u8]))
            .collect();
        let mut members = members(&modules_archive(&modules));
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let files = members.iter().filter(|member| member.name.ends_with(".ko"));
        assert!(
            files
                .map(|file| &file.content)
                .eq(modules.iter().map(|(_, module)| module))
        );
    }

    #[test]
    fn the_folder_comes_first() {
        assert_eq!(members(&exec_archive("true", None))[0].name, FOLDER);
    }
}
