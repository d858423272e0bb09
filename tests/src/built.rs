//! Programs of this workspace, built as the running test was.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

/// The file of the program `replex`.
///
/// # Panics
/// If it cannot be built.
pub fn replex() -> &'static Path {
    static REPLEX: OnceLock<PathBuf> = OnceLock::new();
    REPLEX.get_or_init(|| {
        // Its own test needs it.
        test("replex");
        folder().join("replex")
    })
}

/// The file of a test program of this workspace, a folder or file in a package's `tests/`.
///
/// # Panics
/// If it cannot be built.
pub fn test(name: &str) -> PathBuf {
    let messages = run(cargo_test().args(["--message-format", "json", "--test", name]));
    let mut messages = messages.lines().map(|line| {
        let message: Value = serde_json::from_str(line).expect("cargo's messages are JSON");
        message
    });
    let executable = messages.find_map(|message| {
        // Programs that tests need are told of, too, and may have the same names.
        let is_test = message["target"]["kind"] == json!(["test"]);
        let executable = message["executable"].as_str().filter(|_| is_test);
        executable.map(PathBuf::from)
    });
    executable.expect("cargo names the executable")
}

/// The folder of the profile that this test was built in.
fn folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// A command of cargo's that builds tests into the folder of this one (`TARGET/PROFILE/deps`), with the features that the whole
/// workspace needs: with others, most would be built a second time.
fn cargo_test() -> Command {
    let folder = folder();
    let profile = match folder.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        named => named,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["test", "--no-run", "--workspace", "--locked", "--quiet"])
        .args(["--profile", profile])
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
