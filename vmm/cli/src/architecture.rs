//! [`Programs`]: the architecture of the programs in a machine's root, and which kernel they need.

use std::{
    fs::{File, Metadata},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use guest_kernels::{Architecture, Guest};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

/// The program that every root of a distribution has.
const SHELL: &str = "bin/sh";
/// The beginning of an ELF file up to `e_machine` (System V ABI, "ELF Header").
const IDENT: usize = 20;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// The architectures of a root's shell and of the command, as far as these tell: a command may be a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    shell: Option<Architecture>,
    command: Option<Architecture>,
    /// Whether the command is a file of the root. A script is run by programs like the shell then.
    has_command: bool,
}

impl Programs {
    /// Looks at the shell of the root `dir`, and at the command, the first file that is there of the paths `command`.
    pub fn of_root(dir: &Path, command: &[PathBuf]) -> Self {
        let Ok(root) = File::open(dir) else {
            return Self::default();
        };
        let command = command.iter().find_map(|path| open(&root, path));
        Self {
            shell: open(&root, Path::new(SHELL)).and_then(of_program),
            has_command: command.is_some(),
            command: command.and_then(of_program),
        }
    }

    /// Looks at the shell of the root `dir` only, which is the command.
    pub fn of_shell(dir: &Path) -> Self {
        Self::of_root(dir, &[SHELL.into()])
    }

    /// The programs of an image, which says its architecture.
    pub fn of_image(architecture: Option<Architecture>) -> Self {
        Self {
            shell: architecture,
            ..Self::default()
        }
    }

    /// Returns the guest that is to run the command: `asked`, or else the one that runs the shell, too.
    ///
    /// # Errors
    /// If `asked` cannot run it.
    pub fn guest(self, asked: Option<Guest>) -> Result<Guest> {
        let Some(guest) = asked else {
            return Ok(self.widest().map_or_else(Guest::default, Guest::of));
        };
        let needed = self.command.or(self.shell.filter(|_| self.has_command));
        match needed.filter(|needed| !guest.runs().contains(needed)) {
            None => Ok(guest),
            Some(needed) => bail!(
                "does not run programs for {needed}, which the root has; guest {} does",
                Guest::of(needed)
            ),
        }
    }

    /// The architecture of the kernel that runs all of them.
    fn widest(self) -> Option<Architecture> {
        let all = [self.shell, self.command].into_iter().flatten();
        // A 64-bit kernel runs 32-bit programs, too.
        all.reduce(|one, other| match one {
            Architecture::I386 => other,
            Architecture::Amd64 => one,
        })
    }
}

/// Opens the file at `path` below `root`, where links lead to, too. None if there is no regular file.
fn open(root: &File, path: &Path) -> Option<File> {
    let how = OpenHow::new()
        // Whatever is there, this does not wait for anybody.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(root, path, how).ok()?);
    let is_file = |metadata: Metadata| metadata.is_file();
    file.metadata().is_ok_and(is_file).then_some(file)
}

/// Returns the architecture of a program.
fn of_program(mut file: File) -> Option<Architecture> {
    let mut ident = [0; IDENT];
    file.read_exact(&mut ident).ok()?;
    of_elf(&ident)
}

/// Returns the architecture of the ELF file with this beginning.
fn of_elf(ident: &[u8; IDENT]) -> Option<Architecture> {
    if !ident.starts_with(b"\x7fELF") {
        return None;
    }
    match u16::from_le_bytes([ident[18], ident[19]]) {
        EM_386 => Some(Architecture::I386),
        EM_X86_64 => Some(Architecture::Amd64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use guest_kernels::tiny::{elf, elf64};
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_root_is_of_its_widest_program() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let of = |program: &str| Programs::of_root(root, &[program.into()]).widest();
        assert_eq!(of("/usr/bin/narrow"), None);
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("/usr/bin", root.join("bin")).unwrap();
        fs::write(root.join("usr/bin/narrow"), elf(&[])).unwrap();
        fs::write(root.join("usr/bin/wide"), elf64(&[])).unwrap();
        fs::write(root.join("usr/bin/script"), "#!/bin/sh").unwrap();
        mkfifo(&root.join("usr/bin/fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(of("/bin/narrow"), Some(Architecture::I386));
        assert_eq!(of("bin/wide"), Some(Architecture::Amd64));
        for none in [
            "/bin/script",
            "/bin/fifo",
            "/bin",
            "/bin/none",
            "",
            "/dev/null",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        // Links lead to nothing outside the root.
        symlink("../../../../usr/bin/narrow", root.join("usr/bin/sh")).unwrap();
        assert_eq!(of("/bin/script"), Some(Architecture::I386));
        assert_eq!(of("/bin/wide"), Some(Architecture::Amd64));
        fs::remove_file(root.join("usr/bin/sh")).unwrap();
        symlink("/etc/alternatives/sh", root.join("usr/bin/sh")).unwrap();
        fs::create_dir_all(root.join("etc/alternatives")).unwrap();
        symlink("/bin/wide", root.join("etc/alternatives/sh")).unwrap();
        assert_eq!(of("/bin/narrow"), Some(Architecture::Amd64));
        assert_eq!(Programs::of_shell(root).widest(), Some(Architecture::Amd64));
        let nothing = Programs::of_shell(&root.join("none"));
        assert_eq!(nothing, Programs::default());
    }

    #[test]
    fn a_kernel_is_asked_for_what_the_command_needs() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let asked = |guest, command: &[&str]| {
            let command: Vec<PathBuf> = command.iter().map(PathBuf::from).collect();
            Programs::of_root(root, &command).guest(guest).ok()
        };
        let narrow = Guest::Debian686;
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("bin/sh"), elf64(&[])).unwrap();
        fs::write(root.join("bin/narrow"), elf(&[])).unwrap();
        fs::write(root.join("bin/script"), "#!/bin/sh").unwrap();
        for (command, is_run) in [
            (&["/bin/sh"][..], false),
            (&["/bin/script"], false),
            (&["/bin/narrow"], true),
            (&["/none", "/bin/narrow", "/bin/sh"], true),
            (&["/none", "/bin/script", "/bin/narrow"], false),
            // It may be in a volume.
            (&["/none"], true),
        ] {
            assert_eq!(
                asked(Some(narrow), command).is_some(),
                is_run,
                "{command:?}"
            );
            for wide in [None, Some(Guest::DebianAmd64)] {
                assert_eq!(asked(wide, command), Some(Guest::DebianAmd64));
            }
        }
        fs::remove_file(root.join("bin/sh")).unwrap();
        assert_eq!(asked(None, &["/bin/narrow"]), Some(narrow));
        assert_eq!(asked(None, &["/bin/script"]), Some(Guest::default()));
    }

    #[test]
    fn other_files_have_no_architecture() {
        let mut arm = [0; IDENT];
        arm[..4].copy_from_slice(b"\x7fELF");
        arm[18] = 40;
        assert_eq!(of_elf(&arm), None);
        assert_eq!(of_elf(&[0; IDENT]), None);
    }
}
