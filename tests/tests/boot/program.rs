//! Runs of the `replex` program.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write as _},
    path::PathBuf,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use guest_kernels::Guest;

use tests::{built::replex, hang::Guarded, signals::with_default_signals};

use crate::guests;

/// Standard input of the program.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// /dev/null.
    #[default]
    Null,
    /// No open file.
    Closed,
    /// A pipe with this text in it, less than a pipe holds, that then ends.
    Pipe(String),
    /// This file.
    File(PathBuf),
    /// A pipe that stays open and empty.
    Open,
}

/// A boot of a guest.
#[derive(Debug)]
pub struct Boot {
    /// The release that `uname -r` must print.
    pub release: String,
    args: Vec<OsString>,
    input: Input,
}

/// A running program, whose output is read meanwhile.
pub struct Running {
    program: Guarded,
    _stdin: Option<ChildStdin>,
    stdout: Reader,
    stderr: Reader,
}

type Reader = thread::JoinHandle<Vec<u8>>;

/// The end of a run.
#[derive(Debug)]
pub struct Ended {
    /// The program's exit status.
    pub status: ExitStatus,
    /// All that the program wrote to standard output.
    pub stdout: Vec<u8>,
    /// All that the program wrote to standard error.
    pub stderr: String,
}

impl Boot {
    /// A boot of `guest`, or none if it cannot be had and that is known (see [`guests`]).
    pub fn of(guest: Guest) -> Option<Self> {
        Some(Self {
            release: guests::release(guest)?,
            args: vec!["boot".into(), "--guest".into(), guest.name().into()],
            input: Input::default(),
        })
    }

    /// A run of a command on `guest`, by `replex run`, or none if it cannot be had and that is known.
    pub fn run_of(guest: Guest) -> Option<Self> {
        Some(Self {
            release: guests::release(guest)?,
            args: ["run", "--guest", guest.name()].map(OsString::from).into(),
            input: Input::default(),
        })
    }

    /// A run of a command on the guest that its root needs, which is `guest`; or none as by [`Self::run_of`].
    pub fn run_for_root(guest: Guest) -> Option<Self> {
        Some(Self {
            release: guests::release(guest)?,
            args: vec!["run".into()],
            input: Input::default(),
        })
    }

    /// A boot of a kernel's file.
    pub fn of_kernel(file: &str) -> Self {
        Self {
            release: String::new(),
            args: ["boot", "--kernel", file].map(OsString::from).into(),
            input: Input::default(),
        }
    }

    /// Adds an option with its value.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        self.args.extend([option.into(), value.into()]);
        self
    }

    /// Adds the command of `replex run`, with its arguments.
    pub fn command_line<T: AsRef<OsStr>>(mut self, command: &[T]) -> Self {
        self.args.push("--".into());
        self.args
            .extend(command.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs a script in the guest, by `replex run`.
    pub fn script(self, script: &str) -> Ended {
        self.command_line(&["sh", "-c", script]).run()
    }

    /// Adds an option without a value.
    pub fn flag(mut self, option: &str) -> Self {
        self.args.push(option.into());
        self
    }

    /// Sets standard input.
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// The program with its arguments; standard streams are the caller's.
    pub fn command(&self) -> Command {
        let mut command = match self.input {
            Input::Closed => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"exec "$0" "$@" <&-"#]).arg(replex());
                shell
            }
            _ => Command::new(replex()),
        };
        command.args(&self.args).env_remove("RUST_LOG");
        with_default_signals(&mut command);
        command
    }

    /// Starts the program, standard output and standard error being pipes.
    pub fn start(&self) -> Running {
        let child = self
            .command()
            .stdin(match &self.input {
                Input::Null | Input::Closed => Stdio::null(),
                Input::Pipe(_) | Input::Open => Stdio::piped(),
                Input::File(path) => File::open(path).unwrap().into(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut program = Guarded::new(child);
        let child = &mut program.child;
        if let (Some(mut stdin), Input::Pipe(text)) = (child.stdin.take(), &self.input) {
            // It fits in the pipe, so this does not wait for the guest.
            stdin.write_all(text.as_bytes()).unwrap();
        }
        let open = match &self.input {
            Input::Open => child.stdin.take(),
            _ => None,
        };
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        Running {
            program,
            _stdin: open,
            stdout,
            stderr,
        }
    }

    /// Runs the program to its end.
    pub fn run(&self) -> Ended {
        self.start().end()
    }

    /// Runs `command` in the guest.
    pub fn exec(self, command: &str) -> Ended {
        self.with("--exec", command).run()
    }
}

impl Running {
    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.program.child.id()
    }

    /// Whether its standard output is open still.
    pub fn is_open(&self) -> bool {
        !self.stdout.is_finished()
    }

    /// Waits until the program ends.
    pub fn end(self) -> Ended {
        let (stdout, stderr) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
        Ended {
            status: self.program.wait(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}

impl Ended {
    /// The exit status, none after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Reader {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}
