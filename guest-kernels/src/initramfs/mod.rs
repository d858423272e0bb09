//! The initramfs, with busybox, a link for each of its applets, and an init that runs a shell, a script or a command.
//!
//! The base archive is the same for every boot and is kept uncompressed in the cache. A second, small archive after it,
//! the session archive, is made for each boot. The kernel unpacks both into the same tree (Linux documentation,
//! "initramfs buffer format"):
//!
//! ```text
//! ┌─────────────────────────────┬───────────────────────────────┐
//! │ base: /init /bin /etc /dev  │ session: /replex/exec, winsize│
//! └─────────────────────────────┴───────────────────────────────┘
//! 0                             a multiple of ALIGNMENT
//! ```
//!
//! A command with streams of its own comes in one beside it (`launch`).
//! Modules, if there are devices that need some, come in an archive like it (`/replex/modules`), and so does the host's time
//! (`clock`).
//! Files of the user's own come in two further archives, around all others (`added`).

mod added;
mod applets;
mod archive;
mod clock;
mod launch;
mod programs;
mod session;

pub use added::{AddError, AddedArchives, Addition, AdditionParseError, added_archives};
pub use archive::{ALIGNMENT, Archive, DeviceNumber};
pub use clock::clock_archive;
pub use launch::{
    FAILED, GuestCommand, GuestNetwork, GuestTerminal, STATUS, STDERR, STDIN, STDOUT, Status,
    run_archive,
};
use programs::Programs;
pub(crate) use session::modules_archive;
pub use session::{
    GuestRoot, Mount, ROOT_TAG, RootChanges, exec_archive, mounts_archive, winsize_archive,
};

use crate::architecture::Architecture;

/// The first program in user space.
const INIT: &str = include_str!("init.sh");
/// The file that a login shell reads first.
const PROFILE: &str = include_str!("profile.sh");
/// The script that gives the network card the address from DHCP.
const UDHCPC: &str = include_str!("udhcpc.sh");
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost replex\n";

/// The folders of the tree with their modes, parents first.
const FOLDERS: [(&str, u32); 12] = [
    (".", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("replex", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

/// The links that make the usual folders of programs one folder.
const FOLDER_LINKS: [(&str, &str); 4] = [
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/tmp", "../tmp"),
];

/// The character devices that exist before /init mounts devtmpfs, with name, mode and number (Linux documentation,
/// "Linux allocated devices").
const DEVICES: [(&str, u32, DeviceNumber); 3] = [
    ("dev/console", 0o600, DeviceNumber { major: 5, minor: 1 }),
    ("dev/null", 0o666, DeviceNumber { major: 1, minor: 3 }),
    (
        "dev/ttyS0",
        0o600,
        DeviceNumber {
            major: 4,
            minor: 64,
        },
    ),
];

/// Makes the base archive with `busybox`, a static busybox for `architecture`.
///
/// If the table of applets cannot be read from the binary, the archive has no links, and /init installs them.
pub(crate) fn base_archive(busybox: &[u8], architecture: Architecture) -> Vec<u8> {
    let programs = Programs::of(architecture);
    let mut archive = Archive::default();
    for (name, mode) in FOLDERS {
        archive.folder(name, mode);
    }
    for (name, mode, number) in DEVICES {
        archive.device(name, mode, number);
    }
    archive.file("bin/busybox", 0o755, busybox);
    for applet in applets::names(busybox).unwrap_or_default() {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for (name, target) in FOLDER_LINKS {
        archive.link(name, target);
    }
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("replex/prepare", 0o755, programs.prepare);
    archive.file("replex/launch", 0o755, programs.launch);
    archive.file("etc/udhcpc.sh", 0o755, UDHCPC.as_bytes());
    for (name, content) in [
        ("etc/group", GROUP),
        ("etc/hosts", HOSTS),
        ("etc/passwd", PASSWD),
        ("etc/profile", PROFILE),
    ] {
        archive.file(name, 0o644, content.as_bytes());
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::archive::read_back::{Member, members};
    use super::*;

    /// The part of a busybox binary that matters here. It has no "true", so that the test can use that name.
    const BUSYBOX: &[u8] =
        b"\x7fELF\0[\0[[\0ash\0busybox\0cttyhack\0mount\0poweroff\0setsid\0sh\0stty\0\0tail";

    fn find<'a>(members: &'a [Member], name: &str) -> &'a Member {
        members
            .iter()
            .find(|member| member.name == name)
            .unwrap_or_else(|| panic!("no member {name}"))
    }

    #[test]
    fn the_archive_reads_back() {
        let members = members(&base_archive(BUSYBOX, Architecture::I386));
        assert_eq!(find(&members, "bin/busybox").content, BUSYBOX);
        assert_eq!(find(&members, "bin/busybox").mode, 0o100755);
        assert_eq!(find(&members, "init").mode, 0o100755);
        assert_eq!(find(&members, "init").content, INIT.as_bytes());
        assert_eq!(find(&members, "bin/sh").mode, 0o120777);
        assert_eq!(find(&members, "bin/sh").content, b"busybox");
        assert_eq!(find(&members, "dev/console").mode, 0o020600);
        assert_eq!(find(&members, "dev/console").device, (5, 1));
        assert_eq!(find(&members, "tmp").mode, 0o041777);
    }

    #[test]
    fn the_program_itself_is_not_replaced_by_a_link() {
        let members = members(&base_archive(BUSYBOX, Architecture::I386));
        assert_eq!(
            members
                .iter()
                .filter(|member| member.name == "bin/busybox")
                .count(),
            1
        );
    }

    #[test]
    fn every_parent_comes_before_its_members_and_no_name_twice() {
        let members = members(&base_archive(BUSYBOX, Architecture::I386));
        for (index, member) in members.iter().enumerate() {
            let before = &members[..index];
            assert!(
                before.iter().all(|other| other.name != member.name),
                "{} twice",
                member.name
            );
            if let Some((parent, _)) = member.name.rsplit_once('/') {
                assert!(
                    before.iter().any(|other| other.name == parent),
                    "{} has no parent",
                    member.name
                );
            }
        }
    }

    #[test]
    fn the_programs_of_init_are_for_the_architecture() {
        // e_machine of the System V ABI, "ELF Header".
        for (architecture, machine) in [(Architecture::I386, 3), (Architecture::Amd64, 62)] {
            let members = members(&base_archive(BUSYBOX, architecture));
            for name in ["replex/prepare", "replex/launch"] {
                let program = &find(&members, name).content;
                assert_eq!(program[18..20], [machine, 0], "{name} for {architecture:?}");
            }
        }
    }

    #[test]
    fn without_an_applet_table_there_are_no_links() {
        let members = members(&base_archive(b"\x7fELF", Architecture::I386));
        assert!(members.iter().all(|member| member.name != "bin/sh"));
    }

    #[test]
    fn the_shell_scripts_have_no_syntax_error() {
        for script in [INIT, PROFILE] {
            let shell = Command::new("sh")
                .arg("-n")
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut shell = match shell {
                Ok(shell) => shell,
                Err(error) => {
                    crate::tell_skipped(&format!("cannot run sh: {error}"));
                    return;
                }
            };
            shell
                .stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            let output = shell.wait_with_output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
