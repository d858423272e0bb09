//! What the guest gets of a command: arguments, environment, working directory, user.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use guest_kernels::Guest;

use crate::program::Boot;

#[test]
fn arguments_and_environment_are_exact() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let arguments: [&[u8]; 9] = [
        b"",
        b" two  words ",
        b"line\nline\n",
        b"'\"\\$HOME`id`*",
        b"-n",
        b"--",
        b"\xff\xfe\x01\x7f",
        "größer".as_bytes(),
        &[b'x'; 100_000],
    ];
    let mut command: Vec<OsString> = [
        "sh",
        "-c",
        "printf '%s\\0' \"$@\" \"$TEXT\" \"$HOST\"; env | grep -c ^UNSET",
        "name",
    ]
    .map(OsString::from)
    .into();
    let bytes = arguments.iter().map(|bytes| OsStr::from_bytes(bytes));
    command.extend(bytes.map(OsStr::to_owned));
    let boot = boot
        .with("-e", "TEXT=a = 'b'\n$c")
        .with("-e", "HOST")
        .with("-e", "UNSET")
        .command_line(&command);
    let output = boot
        .command()
        .env("HOST", "the host's")
        .env_remove("UNSET")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let mut expected = Vec::new();
    for text in arguments
        .into_iter()
        .chain([&b"a = 'b'\n$c"[..], b"the host's"])
    {
        expected.extend(text);
        expected.push(0);
    }
    expected.extend(b"0\n");
    assert!(
        output.stdout == expected,
        "{:?}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_command_has_its_environment_directory_and_user() {
    let Some(boot) = Boot::run_of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .with("-w", "/tmp/made/for it")
        .with("-u", "1234:tty")
        .with("-e", "LAST=1")
        .script("pwd; id -u; id -g; id -G; echo $HOME $PATH $LAST; umask; cat /proc/self/status | grep SigBlk; ls /proc/self/fd | wc -w; ip addr show lo | grep -o 'inet 127.0.0.1/8'");
    assert_eq!(ended.stderr, "");
    assert_eq!(
        ended.text(),
        "/tmp/made/for it\n1234\n5\n5\n\
         / /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin 1\n\
         0022\nSigBlk:\t0000000000000000\n4\ninet 127.0.0.1/8\n"
    );
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn what_cannot_be_executed_is_told_as_shells_do() {
    for (command, status, message) in [
        (
            &["nothing-like-this"][..],
            127,
            "replex: nothing-like-this: not found\n",
        ),
        (
            &["/no/such/file"],
            127,
            "replex: /no/such/file: not found\n",
        ),
        (
            &["/etc/passwd"],
            126,
            "replex: /etc/passwd: permission denied\n",
        ),
        (&[""], 127, "replex: : not found\n"),
    ] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let ended = boot.command_line(command).run();
        assert_eq!(ended.stderr, message);
        assert_eq!(ended.code(), Some(status), "{command:?}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn an_unknown_user_is_refused_by_the_guest() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let ended = boot.with("-u", "nobody:wheel").script("echo never");
    assert_eq!(ended.stderr, "replex: wheel: no such group in /etc/group\n");
    assert_eq!((ended.code(), ended.text().as_str()), (Some(126), ""));
}
