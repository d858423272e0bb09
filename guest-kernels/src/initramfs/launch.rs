//! The archive that has /init run one command with streams of its own, in a root of choice.
//!
//! | file | meaning |
//! |---|---|
//! | `/replex/command` | the command: strings, each with its NUL |
//! | `/replex/terminal` | there if the command runs on the terminal of the virtio console |
//! | `/replex/network` | the network card's address, netmask and router, and a resolver |
//!
//! /init starts the program `/replex/launch` (`programs/launch.c`) and connects the command's standard streams with the ports
//! [`STDIN`], [`STDOUT`] and [`STDERR`] of the virtio console, or with its terminal, /dev/hvc0. When the command has ended and the
//! directories of the host are taken off, a [`Status`] goes to the port [`STATUS`], and /init waits for the end of the machine. A
//! command that cannot be executed has the status 126 or 127, as in shells.
//!
//! If the root or the directories cannot be mounted, the ports not found or `/replex/launch` not run, /init writes [`FAILED`] to
//! I/O port 0xf4, after the messages of what failed on the system console.

use std::net::Ipv4Addr;

use super::archive::Archive;

/// The name of the port that leads to the command's standard input.
pub const STDIN: &str = "replex.stdin";
/// The name of the port with the command's standard output.
pub const STDOUT: &str = "replex.stdout";
/// The name of the port with the command's standard error.
pub const STDERR: &str = "replex.stderr";
/// The name of the port with the command's [`Status`].
pub const STATUS: &str = "replex.status";

/// The byte that /init writes to I/O port 0xf4 if it cannot mount the root or the directories of the host, find the ports or run
/// `/replex/launch`.
pub const FAILED: u8 = 124;

const FOLDER: &str = "replex";
const COMMAND_FILE: &str = "replex/command";
const TERMINAL_FILE: &str = "replex/terminal";
const NETWORK_FILE: &str = "replex/network";

/// A command for the guest. Its strings may have any bytes but NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestCommand {
    /// The program, which is looked for in the PATH of `env` unless its name has a slash, and its arguments.
    pub args: Vec<Vec<u8>>,
    /// The environment, as `NAME=VALUE`. HOME is added if it is missing.
    pub env: Vec<Vec<u8>>,
    /// The user, as `USER[:GROUP]`, names or numbers; empty for root.
    pub user: String,
    /// The working directory, an absolute path that is made if it is missing; empty for the root.
    pub folder: Vec<u8>,
    /// The terminal, if the command has one.
    pub terminal: Option<GuestTerminal>,
}

/// The terminal of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestTerminal {
    /// Its size in rows and columns, if that is known.
    pub size: Option<(u16, u16)>,
}

/// The network of the guest, which needs not ask for it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The card's address.
    pub address: Ipv4Addr,
    /// The netmask.
    pub netmask: Ipv4Addr,
    /// The router.
    pub router: Ipv4Addr,
    /// The resolver.
    pub resolver: Ipv4Addr,
}

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command has exited with this status.
    Exited(u8),
    /// This signal has ended the command.
    Signaled(u8),
}

impl Status {
    /// Parses the line that the guest writes, without its end: `exit STATUS` or `signal NUMBER`.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, number) = line.split_once(' ')?;
        let number = number.parse().ok()?;
        match kind {
            "exit" => Some(Self::Exited(number)),
            "signal" if (1..=127).contains(&number) => Some(Self::Signaled(number)),
            _ => None,
        }
    }

    /// Returns the status as shells number it: 128 and the signal's number after a signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Signaled(signal) => 128 | signal,
        }
    }
}

/// Makes the archive that has /init run `command`, with the network card, if there is one, set up as `network` says. It belongs
/// after the base archive, at a multiple of [`ALIGNMENT`](super::ALIGNMENT).
///
/// # Panics
/// If a string has a NUL, or there is no program.
pub fn run_archive(command: &GuestCommand, network: Option<&GuestNetwork>) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder(FOLDER, 0o755);
    archive.file(COMMAND_FILE, 0o600, &encoded(command));
    if command.terminal.is_some() {
        archive.file(TERMINAL_FILE, 0o644, &[]);
    }
    if let Some(network) = network {
        let GuestNetwork {
            address,
            netmask,
            router,
            resolver,
        } = network;
        let line = format!("{address} {netmask} {router} {resolver}\n");
        archive.file(NETWORK_FILE, 0o644, line.as_bytes());
    }
    archive.finish()
}

/// The bytes of the file with the command.
fn encoded(command: &GuestCommand) -> Vec<u8> {
    assert!(!command.args.is_empty(), "no program");
    let size = command.terminal.and_then(|terminal| terminal.size);
    let (rows, columns) = size.unwrap_or_default();
    let mut bytes = Vec::new();
    let mut put = |string: &[u8]| {
        assert!(!string.contains(&0), "a NUL in a string of the command");
        bytes.extend(string);
        bytes.push(0);
    };
    put(command.user.as_bytes());
    put(&command.folder);
    for number in [rows.into(), columns.into(), command.args.len()] {
        put(number.to_string().as_bytes());
    }
    command.args.iter().for_each(|arg| put(arg));
    command.env.iter().for_each(|variable| put(variable));
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::archive::read_back::members;
    use super::*;

    fn command() -> GuestCommand {
        GuestCommand {
            args: vec![b"echo".to_vec(), b"".to_vec(), b"a\n'\xff".to_vec()],
            env: vec![b"A=b c".to_vec()],
            user: "me:us".into(),
            folder: b"/tmp".to_vec(),
            terminal: None,
        }
    }

    #[test]
    fn a_command_is_strings() {
        let expected = b"me:us\0/tmp\x000\x000\x003\0echo\0\0a\n'\xff\0A=b c\0";
        assert_eq!(encoded(&command()), expected);
        let terminal = GuestTerminal {
            size: Some((24, 80)),
        };
        let on_terminal = GuestCommand {
            args: vec![b"sh".to_vec()],
            env: Vec::new(),
            user: String::new(),
            folder: Vec::new(),
            terminal: Some(terminal),
        };
        assert_eq!(encoded(&on_terminal), b"\0\x0024\x0080\x001\0sh\0");
    }

    #[test]
    fn the_archive_has_what_is_asked_for() {
        let names = |archive: &[u8]| -> Vec<_> {
            members(archive)
                .into_iter()
                .map(|member| member.name)
                .collect()
        };
        let plain = [FOLDER, COMMAND_FILE];
        assert_eq!(names(&run_archive(&command(), None)), plain);
        let network = GuestNetwork {
            address: [10, 0, 2, 15].into(),
            netmask: [255, 255, 255, 0].into(),
            router: [10, 0, 2, 2].into(),
            resolver: [10, 0, 2, 3].into(),
        };
        let on_terminal = GuestCommand {
            terminal: Some(GuestTerminal::default()),
            ..command()
        };
        let archive = run_archive(&on_terminal, Some(&network));
        let all = [&plain[..], &[TERMINAL_FILE, NETWORK_FILE]].concat();
        assert_eq!(names(&archive), all);
        let network = &members(&archive)[3].content;
        assert_eq!(network, b"10.0.2.15 255.255.255.0 10.0.2.2 10.0.2.3\n");
    }

    #[test]
    fn statuses_are_numbered_as_by_shells() {
        for (line, code) in [
            ("exit 0", 0),
            ("exit 255", 255),
            ("signal 9", 137),
            ("signal 64", 192),
        ] {
            assert_eq!(Status::parse(line).map(Status::code), Some(code), "{line}");
        }
        for line in [
            "",
            "exit",
            "exit ",
            "exit 256",
            "exit -1",
            "signal 0",
            "signal 128",
            "stop 1",
        ] {
            assert_eq!(Status::parse(line), None, "{line}");
        }
    }
}
