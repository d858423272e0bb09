//! Standard input, output and error of commands: separate, and byte for byte.

use std::{
    fs::{self, File},
    io::Read as _,
    process::Stdio,
    thread,
};

use guest_kernels::Guest;
use tests::hang::Guarded;

use crate::program::{Boot, Input};

/// Bytes of input and output.
const BYTES: usize = 8 << 20;

/// Passes bytes through a guest, beside a line of standard error, to the status 7.
fn bytes_and_status(guest: Guest) {
    let Some(boot) = Boot::run_of(guest) else {
        return;
    };
    let mut random = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(BYTES)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    fs::write(&file, &bytes).unwrap();
    let ended = boot
        .input(Input::File(file))
        .script("echo an error >&2; cat; exit 7");
    assert_eq!(ended.stderr, "an error\n");
    assert_eq!(ended.code(), Some(7));
    assert_eq!(ended.stdout.len(), BYTES);
    assert!(ended.stdout == bytes, "other bytes");
}

#[test]
fn debian_686_passes_bytes_and_status() {
    bytes_and_status(Guest::Debian686);
}

#[test]
fn debian_686_pae_passes_bytes_and_status() {
    bytes_and_status(Guest::Debian686Pae);
}

/// The streams can be opened again, also by a user who is not root.
#[test]
fn streams_are_opened_by_their_names() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let ended = boot
        .with("-u", "nobody")
        .input(Input::Pipe("input\n".into()))
        .script("cat < /dev/stdin > /dev/stdout; echo error > /dev/stderr; [ -t 1 ] || echo no terminal > /dev/fd/1");
    assert_eq!(ended.text(), "input\nno terminal\n");
    assert_eq!(ended.stderr, "error\n");
    assert_eq!(ended.code(), Some(0));
}

/// Neither input that nobody reads nor a process that holds the output keeps the machine.
#[test]
fn the_machine_ends_with_the_command() {
    let Some(boot) = Boot::run_of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .input(Input::Open)
        .script("sleep 1000000 & seq 100000; exit 0");
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text().lines().count(), 100_000);
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_command_whose_output_nobody_reads_is_told_by_a_signal() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let mut child = boot
        .command_line(&["yes"])
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let program = Guarded::new(child);
    let mut some = [0; 4];
    stdout.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"y\ny\n");
    drop(stdout);
    let errors = thread::spawn(move || {
        let mut errors = String::new();
        stderr.read_to_string(&mut errors).unwrap();
        errors
    });
    // SIGPIPE
    assert_eq!(program.wait().code(), Some(128 + 13));
    assert_eq!(errors.join().unwrap(), "");
}

/// Output that the host cannot write is no success, whether the command finds out or has ended by then.
#[test]
fn output_that_cannot_be_written_is_told() {
    for script in ["echo lost", "yes", "trap '' PIPE; yes 2> /dev/null; exit 3"] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = boot
            .command_line(&["sh", "-c", script])
            .command()
            .stdin(Stdio::null())
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ended.stderr),
            "replex: output of the command is lost: No space left on device (os error 28)\n",
            "{script}"
        );
        assert_eq!(ended.status.code(), Some(117), "{script}");
    }
}

/// The input of a command that reads a part of it and goes on.
#[test]
fn input_that_is_not_read_is_no_harm() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    fs::write(&file, vec![b'x'; BYTES]).unwrap();
    let ended = boot
        .input(Input::File(file))
        .script("head -c 5; exec < /dev/null; echo; echo end");
    assert_eq!(ended.text(), "xxxxx\nend\n");
    assert_eq!(ended.code(), Some(0));
}
