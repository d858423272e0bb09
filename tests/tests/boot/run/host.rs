//! The root of this host: programs that it has, as a user runs them.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use guest_kernels::Guest;
use tests::report::report;

use crate::program::Boot;

/// Folders of programs, in the order in which the guest looks for them.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// A file that the guest makes, and this host does not have.
const NEW: &str = "/new-by-test-of-replex";

/// What is run if the host has the program: the program, the script, and what it prints.
const PROGRAMS: [(&str, &str, &str); 5] = [
    (
        "python3",
        r#"python3 -c 'import json; print(json.dumps({"sum": sum(range(1000)), "half": 1 / 2}))'"#,
        "{\"sum\": 499500, \"half\": 0.5}\n",
    ),
    (
        "perl",
        r#"perl -e 'print join(" ", map { $_ ** 2 } 1 .. 5), "\n"'"#,
        "1 4 9 16 25\n",
    ),
    (
        "gcc",
        "printf '#include <stdio.h>\nint main(void) { printf(\"%%.3f\\\\n\", 22 / 7.0); return 6; }' > /tmp/a.c\n\
         gcc -O2 -o /tmp/a /tmp/a.c && /tmp/a; echo $?",
        "3.143\n6\n",
    ),
    (
        "git",
        "git -c safe.directory='*' -C /src status --short",
        " M changed\n?? new\n",
    ),
    (
        "apt-get",
        "apt-get --version | grep -o '(amd64)'",
        "(amd64)\n",
    ),
];

fn has(program: &str) -> bool {
    FOLDERS
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

/// Makes a repository with a changed and a new file, if the host has git.
fn make_repository(folder: &Path) {
    if !has("git") {
        return;
    }
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(folder).args(args).stdout(Stdio::null());
        assert!(git.status().unwrap().success(), "{args:?}");
    };
    git(&["init", "--quiet"]);
    fs::write(folder.join("changed"), "one\n").unwrap();
    git(&["add", "changed"]);
    let [name, mail] = ["user.name=me", "user.email=me@here"];
    git(&["-c", name, "-c", mail, "commit", "--quiet", "-m", "one"]);
    fs::write(folder.join("changed"), "two\n").unwrap();
    fs::write(folder.join("new"), "").unwrap();
}

#[test]
fn programs_of_this_host_run_in_its_root() {
    if !Path::new("/lib64/ld-linux-x86-64.so.2").exists() {
        report("skipped: the root of this host is not one of amd64");
        return;
    }
    let Some(boot) = Boot::run_for_root(Guest::DebianAmd64) else {
        return;
    };
    let repository = tempfile::tempdir().unwrap();
    make_repository(repository.path());
    let mut script = format!("uname -m; cat /etc/os-release; echo new > {NEW}; cat {NEW}\n");
    let mut expected = "x86_64\n".to_owned();
    expected += &fs::read_to_string("/etc/os-release").unwrap();
    expected += "new\n";
    for (program, command, printed) in PROGRAMS {
        if !has(program) {
            report(&format!("skipped, this host does not have it: {program}"));
            continue;
        }
        writeln!(script, "{command}").unwrap();
        expected += printed;
    }
    let ended = boot
        .with("-v", &format!("{}:/src", repository.path().display()))
        .flag("/")
        .script(&script);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), expected);
    assert_eq!(ended.code(), Some(0));
    assert!(!Path::new(NEW).exists());
}
