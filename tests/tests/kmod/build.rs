//! [`Built`]: the module and its test programs, built in a temporary folder.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_kernels::HostFiles;
use tempfile::TempDir;

use crate::tools;

/// The compiler of Debian's kernels, which the headers ask for.
const KERNEL_GCC: &str = "gcc-12";

/// The folder of the module's sources.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kmod");

/// What every program is linked of, beside the file of its name.
const COMMON: [&str; 1] = ["test.c"];
/// The files of the stress program's cases.
const CASES: [&str; 5] = ["refusals.c", "slots.c", "areas.c", "races.c", "pressure.c"];

/// The line of `replex.h` that has the version of the interface, and one with a version that there will not be.
const VERSION: [&str; 2] = [
    "#define REPLEX_VERSION\t\t1\n",
    "#define REPLEX_VERSION\t\t12345\n",
];

/// A folder with a copy of the sources and what was built of them.
pub struct Built(TempDir);

impl Built {
    /// Builds the module.
    ///
    /// # Panics
    /// If it does not build without a warning.
    pub fn new(kernel: &HostFiles) -> Self {
        let built = Self::copied();
        built.build_module(kernel);
        built
    }

    /// Builds the module with another version of the interface.
    ///
    /// # Panics
    /// If it does not build without a warning.
    pub fn of_another_version(kernel: &HostFiles) -> Self {
        let built = Self::copied();
        let header = built.0.path().join("replex.h");
        let text = fs::read_to_string(&header).unwrap();
        let [own, other] = VERSION;
        assert!(text.contains(own), "replex.h without {own:?}");
        fs::write(&header, text.replace(own, other)).unwrap();
        built.build_module(kernel);
        built
    }

    /// The file of the module.
    pub fn module(&self) -> PathBuf {
        self.0.path().join("replex.ko")
    }

    /// Builds the program that puts the module under stress, and returns its file.
    pub fn stress(&self) -> PathBuf {
        self.build_program("stress", &CASES)
    }

    /// Builds the program that counts instructions, and returns its file.
    pub fn count(&self) -> PathBuf {
        self.build_program("count", &[])
    }

    /// A copy of the sources.
    fn copied() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Path::new(SOURCES);
        copy_files(sources, folder.path());
        copy_files(&sources.join("test"), &folder.path().join("test"));
        Self(folder)
    }

    fn build_module(&self, kernel: &HostFiles) {
        let mut make = Command::new("make");
        make.arg("-C").arg(&kernel.build);
        make.arg(format!("M={}", self.0.path().display()));
        // The headers have no vmlinux with type information to add that of the module to.
        make.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
        if !tools::runs(KERNEL_GCC) {
            make.arg("CC=gcc");
        }
        make.env_remove("MAKEFLAGS");
        run_quietly(&mut make);
    }

    fn build_program(&self, name: &str, others: &[&str]) -> PathBuf {
        let folder = self.0.path().join("test");
        let mut gcc = Command::new("gcc");
        gcc.current_dir(&folder)
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"])
            .args(["-static", "-pthread", "-o", name])
            .arg(format!("{name}.c"))
            .args(COMMON)
            .args(others);
        run_quietly(&mut gcc);
        folder.join(name)
    }
}

/// Runs a command that must succeed and write nothing to its standard error.
fn run_quietly(command: &mut Command) {
    let output = command.env("LC_ALL", "C").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{command:?}: {}\n{}{errors}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Copies the sources in a folder, not those below it, to a folder that may not exist.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let is_source = matches!(
            path.extension().and_then(OsStr::to_str),
            Some("c" | "h") | None
        );
        if path.is_file() && is_source {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
