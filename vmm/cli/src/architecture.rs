//! The architecture of the programs in a directory that is to be a machine's root: which kernel it needs.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use guest_kernels::Architecture;
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

/// Returns the architecture of the kernel that runs the shell of the root `dir` and `program`, a path in it, as far as these are
/// there. None if they do not tell: a program may be a script.
pub fn of_root(dir: &Path, program: Option<&Path>) -> Option<Architecture> {
    let dir = File::open(dir).ok()?;
    let programs = [Some(Path::new(SHELL)), program];
    let found = programs
        .into_iter()
        .flatten()
        .filter_map(|program| of_program(&dir, program));
    // A 64-bit kernel runs 32-bit programs, too.
    found.reduce(|one, other| match one {
        Architecture::I386 => other,
        Architecture::Amd64 => one,
    })
}

/// Returns the architecture of the program at `path` below `root`, where links lead to, too.
fn of_program(root: &File, path: &Path) -> Option<Architecture> {
    let how = OpenHow::new()
        // Whatever is there, this does not wait for anybody.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(root, path, how).ok()?);
    if !file
        .metadata()
        .is_ok_and(|metadata: fs::Metadata| metadata.is_file())
    {
        return None;
    }
    let mut ident = [0; IDENT];
    (&file).read_exact(&mut ident).ok()?;
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
    use std::os::unix::fs::symlink;

    use guest_kernels::tiny::{elf, elf64};
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_root_is_of_its_widest_program() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let of = |program: &str| of_root(root, Some(Path::new(program)));
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
        assert_eq!(of_root(&root.join("none"), None), None);
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
