//! The arguments of `replex run`.

use std::{ffi::OsString, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Arg, Args, builder::ArgPredicate};

use super::{DebugArgs, DeviceArgs, KernelArgs, MachineArgs};
use crate::volume::SharedDir;

/// Examples and exit statuses, as `--help` shows them.
const AFTER_HELP: &str = "\
Examples:
  replex run -- uname -a                          busybox, on the default kernel
  replex run ./rootfs -- make -C /src             a directory as root; changes are gone at the end
  replex run -v $PWD:/src -w /src ./rootfs -- make
  replex run / -- make                            the root of this host, unchanged at the end
  replex run -t image.tar                         an image's own command, on a terminal

Standard input is the command's, unless it is a terminal and neither -i nor -t is given. With -t, all keys are the command's, ctrl-c \
among them; ctrl-] three times in a row ends the machine. Without -t, ctrl-c ends the machine. At a terminal, without a command, -t \
and a login shell are implied.

SIGTERM ends the machine at once, with status 143; the command does not see it.

Shared directories have neither O_TMPFILE nor extended attributes.

Exit status: the command's own; 128+n if signal n has ended it; 126 if it cannot be executed, 127 if it is not there. When \
the status is replex's own, the last line of standard error begins with \"replex:\" and says why:
  2       bad usage or input
  117     standard output or another stream has failed, such as by a full disk
  118     denied by --sandbox: a thread has tried what it may not do
  119     the time of --timeout is over
  120     the guest powered off or hangs, and the command had not ended
  121     the guest rebooted
  122     the guest's kernel panicked
  123     triple fault
  124     the command could not be started; unsupported guest behaviour, or an internal error
  125     ended by ctrl-]
  128+n   ended by signal n, such as 130 by ctrl-c

Environment:
  REPLEX_CACHE   folder for guests, images and unpacked kernels (default: in the user's cache)
  RUST_LOG       what to log to standard error, e.g. debug";

/// Run a command in a Linux machine, on the files of a directory or an image.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, mut_arg("mem", with_room))]
pub struct RunArgs {
    /// Root of the command: a directory of the host, an image, or the name of a root that `replex guest` has made. Without one it is
    /// the initramfs, which has busybox.
    #[arg(value_name = "IMAGE|DIR|NAME", conflicts_with = "root")]
    pub source: Option<PathBuf>,
    /// Command and its arguments, which are passed exactly. Default: the image's own, or else a shell.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// Run the command in this directory of the host as its root. Changes are in memory, and gone at the end.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Make changes in the directory itself.
    #[arg(long)]
    pub rw: bool,
    /// Set a variable in the command's environment. K alone has the value that it has here. May be given several times.
    #[arg(short, long, value_name = "K[=V]")]
    pub env: Vec<OsString>,
    /// Working directory in the guest, an absolute path. Missing folders are made. Default: the image's, or /.
    #[arg(short, long, value_name = "DIR", conflicts_with = "pwd")]
    pub workdir: Option<PathBuf>,
    /// Work in the current directory, which has to lie in the root's directory or in one that is shared.
    #[arg(long)]
    pub pwd: bool,
    /// User, and group, of the command: names of the root's /etc/passwd and /etc/group, or numbers. Default: the image's, or root.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Program that takes COMMAND as its arguments, in place of the image's.
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Let the command read standard input, even if it is a terminal.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// End the machine after this time, with status 119.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Show the guest's console, with the kernel's messages, on standard error.
    #[arg(long)]
    pub console: bool,
    /// Share the directory HOST, which the guest can only read, at GUEST or else at the same path. May be given several times.
    #[arg(long, value_name = "[GUEST=]HOST")]
    pub rodir: Vec<SharedDir>,
    /// Share the directory HOST, at GUEST or else at the same path. May be given several times.
    #[arg(long, value_name = "[GUEST=]HOST")]
    pub rwdir: Vec<SharedDir>,
    /// The kernel and what it is told.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// The machine without its devices.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Number of processors; more than 1 is not supported.
    #[arg(long, value_name = "N", value_parser = one_processor, help_heading = "Machine", default_value = "1", hide_default_value = true)]
    pub cpus: NonZeroU32,
    /// Devices.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// What shows how the guest runs.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// Memory of a machine whose root is a directory or an image, where programs are larger and changes are kept in memory.
const ROOM: &str = "1G";

/// Returns the option of the guest's memory with its defaults for `replex run`.
fn with_room(memory: Arg) -> Arg {
    let given = |option| (option, ArgPredicate::IsPresent, ROOM);
    memory
        .default_value_ifs(["source", "root"].map(given))
        .hide_default_value(true)
        .help("Guest memory, in MiB or with suffix K, M or G. Default: 1G with a root, else 256M. The host gives what the guest uses")
}

/// Parses a positive number of seconds, whole or not.
fn seconds(text: &str) -> Result<Duration, String> {
    // Signs, exponents and names of numbers would be parsed, too.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err("not a number of seconds".into());
    }
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("the machine needs some time".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("too long".into()),
    }
}

/// Parses the number of processors.
fn one_processor(text: &str) -> Result<NonZeroU32, String> {
    let count: NonZeroU32 = text.parse().map_err(|_| "not a number of processors")?;
    match count.get() {
        1 => Ok(count),
        _ => Err("a machine has one processor; more are not supported".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_root_brings_memory() {
        for (args, expected) in [
            (&[][..], 256 << 20),
            (&["--", "ls"], 256 << 20),
            (&["dir"], 1 << 30),
            (&["--root", "dir"], 1 << 30),
            (&["dir", "-m", "64"], 64 << 20),
            (&["--mem", "64", "--root", "dir"], 64 << 20),
        ] {
            let args = [&["replex", "run"], args].concat();
            match Cli::try_parse_from(&args).unwrap().command {
                Command::Run(run) => assert_eq!(run.machine.mem, expected, "{args:?}"),
                _ => unreachable!(),
            }
        }
    }

    #[test]
    fn times_are_positive() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in [
            "",
            "0",
            "0.0",
            "-1",
            "+1",
            "1e3",
            "inf",
            "nan",
            "1s",
            ".",
            "9999999999999999999999",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_may_be_too_long() {
        assert_eq!(seconds("99999999999999999999"), Err("too long".into()));
    }

    #[test]
    fn there_is_one_processor() {
        assert!(one_processor("1").is_ok());
        for text in ["0", "2", "-1", "x", ""] {
            assert!(one_processor(text).is_err(), "{text}");
        }
        assert!(one_processor("4").unwrap_err().contains("not supported"));
    }
}
