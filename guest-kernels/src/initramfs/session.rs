//! The session archive, which tells /init what to do in one boot.
//!
//! | file | meaning |
//! |---|---|
//! | `/replex/exec` | the shell script to run instead of an interactive shell |
//! | `/replex/winsize` | the size of the terminal on the console, "ROWS COLUMNS" |
//! | `/replex/modules/NN-NAME.ko` | kernel modules, to be inserted in this order |
//!
//! /init runs `/replex/exec` with standard input from /dev/null, standard output on ttyS1 (raw, byte for byte) and
//! standard error on the console. Then it waits until both are sent and writes the exit status, 0 to 255, to I/O port
//! 0xf4.

use super::archive::Archive;

const FOLDER: &str = "replex";
const EXEC_FILE: &str = "replex/exec";
const WINSIZE_FILE: &str = "replex/winsize";
const MODULES_FOLDER: &str = "replex/modules";

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
            &format!("{MODULES_FOLDER}/{index:02}-{name}.ko"),
            0o644,
            module,
        );
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
    fn the_folder_comes_first() {
        assert_eq!(members(&exec_archive("true", None))[0].name, FOLDER);
    }
}
