//! What the tests need of the system and of Debian's archive, or why it is not there.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_kernels::{HostFiles, HostKernel, fetch_host};
use tests::{fetched::fetched, report::report};

/// The virtual machine monitor.
pub const QEMU: &str = "qemu-system-x86_64";

/// Environment variable that chooses the kernel by its name.
const KERNEL: &str = "REPLEX_KMOD_KERNEL";

/// Environment variable with the folder of a kernel's sources in which a kernel was built, to take the place of Debian's.
const TREE: &str = "REPLEX_KMOD_TREE";

/// The programs that are run, and where Debian has them.
const PROGRAMS: [(&str, &str); 3] = [(QEMU, "qemu-system-x86"), ("gcc", "gcc"), ("make", "make")];

/// The kernel to test on.
///
/// # Panics
/// If the environment names an unknown one.
pub fn chosen_kernel() -> HostKernel {
    match env::var(KERNEL) {
        Ok(name) => name
            .parse()
            .unwrap_or_else(|error| panic!("{KERNEL}: {error}")),
        Err(_) => HostKernel::Linux6_1,
    }
}

/// The folder that a kernel of the user's own was built in, if there is one.
pub fn own_tree() -> Option<PathBuf> {
    env::var_os(TREE).map(PathBuf::from)
}

/// The files of the kernel to test on. None, and the reason is printed, if the tests cannot run here.
///
/// # Panics
/// If the kernel cannot be fetched and that is not known.
pub fn kernel() -> Option<HostFiles> {
    let missing = missing();
    if !missing.is_empty() {
        report(&format!("skipped: not installed: {}", missing.join(", ")));
        return None;
    }
    let kernel = chosen_kernel();
    let fetched = fetched(format_args!("kernel {kernel}"), |progress| {
        fetch_host(kernel, progress)
    });
    match own_tree() {
        Some(tree) => fetched.map(|debian| HostFiles {
            kernel: tree.join("arch/x86/boot/bzImage"),
            build: tree,
            modules: Vec::new(),
            ..debian
        }),
        None => fetched,
    }
}

/// What is not installed.
fn missing() -> Vec<String> {
    let programs = PROGRAMS.iter().filter(|(name, _)| !runs(name));
    let mut missing: Vec<_> = programs
        .map(|(name, package)| format!("{name} (Debian package {package})"))
        .collect();
    if missing.is_empty() && !has_static_libc() {
        missing.push("libc.a (libc6-dev)".to_owned());
    }
    if missing.is_empty() && !has_libelf() {
        missing.push("libelf.so.1, for the kernel's objtool (libelf1)".to_owned());
    }
    missing
}

/// Whether a program is there and says its version.
pub fn runs(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match version {
        Ok(status) => status.success(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => panic!("{program}: {error}"),
    }
}

/// The path that gcc finds for a library's file: the bare name if it finds none.
fn library(file: &str) -> String {
    let output = Command::new("gcc")
        .arg(format!("-print-file-name={file}"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn has_static_libc() -> bool {
    Path::new(&library("libc.a")).is_absolute()
}

fn has_libelf() -> bool {
    Path::new(&library("libelf.so.1")).is_absolute()
}
