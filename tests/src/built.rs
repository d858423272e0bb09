//! Programs of this workspace, built as the running test was.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The field of cargo's messages that names an executable.
const EXECUTABLE: &str = "\"executable\":\"";

/// The file of the program `replex`.
pub fn replex() -> &'static Path {
    static REPLEX: OnceLock<PathBuf> = OnceLock::new();
    REPLEX.get_or_init(|| {
        run(cargo("build").args(["--package", "replex"]));
        folder().join("replex")
    })
}

/// The file of one of this package's test programs, a folder or file in `tests/`.
///
/// # Panics
/// If it cannot be built.
pub fn test(name: &str) -> PathBuf {
    let mut cargo = cargo("test");
    cargo.args(["--no-run", "--message-format", "json"]);
    cargo.args(["--package", env!("CARGO_PKG_NAME"), "--test", name]);
    let messages = run(&mut cargo);
    let mut files = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once(EXECUTABLE)?;
        Some(rest.split_once('"')?.0)
    });
    PathBuf::from(files.next_back().expect("cargo names the executable"))
}

/// The folder of the profile that this test was built in.
fn folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// A command of cargo's that builds into the folder of this test (`TARGET/PROFILE/deps`).
fn cargo(command: &str) -> Command {
    let folder = folder();
    let profile = match folder.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        named => named,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([command, "--locked", "--quiet", "--profile", profile])
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// Runs cargo, and returns what it prints.
fn run(cargo: &mut Command) -> String {
    let output = cargo.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{cargo:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
