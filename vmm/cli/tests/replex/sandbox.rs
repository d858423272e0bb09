//! The sandbox of a running program, and what `replex doctor` says of the host.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{ECHO, Replex, elf};

/// The number behind `name` in the status of a thread (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<u32> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

/// The threads of a process: by their names, NO_NEW_PRIVS and the number of filters.
fn threads(process: &str) -> BTreeMap<String, (u32, u32)> {
    let tasks = fs::read_dir(Path::new("/proc").join(process).join("task")).unwrap();
    let threads = tasks.map(|task| {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let filters = field(&status, "Seccomp_filters:").expect("Linux 5.9 or later");
        let privileges = field(&status, "NoNewPrivs:").unwrap();
        (name.trim().to_owned(), (privileges, filters))
    });
    threads.collect()
}

/// A machine with all devices that have threads, whose guest has answered.
fn start(replex: &Replex, more: &[&str]) -> Child {
    let kernel = replex.file("echo", &elf(ECHO));
    let disk = replex.file("disk", &[0; 4096]);
    let share = format!("{}:/share", replex.dir.path().display());
    let socket = format!("unix:{}", replex.dir.path().join("gdb").display());
    let trace = replex.dir.path().join("trace");
    let args = [
        &[
            "boot", "--kernel", &kernel, "--disk", &disk, "--rng", "--net", "user",
        ],
        &["--volume", &share, "--gdb", &socket][..],
        &["--trace", trace.to_str().unwrap()],
        more,
    ]
    .concat();
    let mut child = replex
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut prompt = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut prompt)
        .unwrap();
    assert_eq!(prompt, *b">");
    child
}

/// Lets the guest end, and returns what the program has said.
fn end(mut child: Child) -> String {
    child.stdin.take().unwrap().write_all(&[4]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_thread_of_a_machine_is_confined_unless_that_is_switched_off() {
    let (_, own) = threads("self").into_values().next().unwrap();
    for (sandbox, filters) in [(&[][..], own + 2), (&["--sandbox", "off"], own)] {
        let replex = Replex::new();
        let child = start(&replex, sandbox);
        let threads = threads(&child.id().to_string());
        let names: Vec<_> = threads.keys().map(String::as_str).collect();
        let expected = ["gdb", "net", "replex", "signals", "virtio-blk", "virtio-fs"];
        assert_eq!(names, expected);
        for (name, (privileges, found)) in threads {
            assert_eq!(found, filters, "{sandbox:?}: {name}");
            assert!(privileges == 1 || filters == own, "{sandbox:?}: {name}");
        }
        // gdb is invited, and nothing else said.
        let stderr = end(child);
        assert!(
            stderr.starts_with("replex: gdb: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
        let left: Vec<_> = fs::read_dir(replex.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!left.contains(&"gdb".to_owned()), "{left:?}");
        assert!(fs::metadata(replex.dir.path().join("trace")).unwrap().len() > 0);
    }
}

#[test]
fn the_doctor_says_what_there_is_and_by_its_status_whether_guests_run() {
    let replex = Replex::new();
    let output = replex.run(&["doctor"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    assert!(output.stderr.is_empty());
    assert!(stdout.lines().count() > 10, "{stdout}");
    for line in stdout.lines() {
        let state = line[17..25].trim_end();
        assert!(["ok", "limited", "missing"].contains(&state), "{line}");
    }
    let cache = replex.dir.path().display().to_string();
    for (name, part) in [
        ("guest code", "runs"),
        ("cache", cache.as_str()),
        ("kernel module", "/dev/replex"),
    ] {
        let line = stdout.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn the_doctor_finds_a_host_on_which_no_guest_runs() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 1000000 && exec \"$0\" doctor"])
        .arg(env!("CARGO_BIN_EXE_replex"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    let first = stdout.lines().next().unwrap();
    assert!(first.starts_with("guest code       missing"), "{first}");
    let line = stdout
        .lines()
        .find(|line| line.starts_with("address space"))
        .unwrap();
    assert!(
        line.contains("limited") && line.contains("976 MiB"),
        "{line}"
    );
}
