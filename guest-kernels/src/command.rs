//! Programs of Debian that are run to their end, and whose output is kept.

use std::process::{Command, Stdio};

use crate::error::FetchError;

/// The number of lines of standard error that are kept in an error message.
const STDERR_LINES: usize = 8;

/// A program that this crate runs, and the Debian package that contains it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// The name, which is looked up in PATH.
    pub(crate) name: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
}

impl Program {
    /// Creates a command without standard input, with messages in English so that errors read the same everywhere.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.name);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Makes an error of the reason why the program did not start.
    pub(crate) fn start_error(self) -> impl FnOnce(std::io::Error) -> FetchError {
        move |reason| FetchError::Start {
            program: self.name,
            package: self.package,
            reason,
        }
    }

    /// Runs `command`, made by [`Program::command`], and returns its standard output. An error shows only the arguments
    /// `shown`.
    pub(crate) fn run(self, mut command: Command, shown: &[&str]) -> Result<String, FetchError> {
        let output = command.output().map_err(self.start_error())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(FetchError::Command {
            command: [&[self.name], shown].concat().join(" "),
            status: output.status,
            stderr: last_lines(&output.stderr),
        })
    }
}

/// The last lines that a program wrote to its standard error.
pub(crate) fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Program = Program {
        name: "sh",
        package: "dash",
    };

    fn sh(script: &str) -> Result<String, FetchError> {
        let mut command = SH.command();
        command.args(["-c", script]);
        SH.run(command, &["-c", "SCRIPT"])
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(sh("echo one; echo two >&2").unwrap(), "one\n");
    }

    #[test]
    fn failure_names_the_command_its_status_and_its_last_words() {
        let message = sh("seq 100 >&2; exit 7").unwrap_err().to_string();
        assert_eq!(
            message,
            "sh -c SCRIPT: exit status: 7\n93\n94\n95\n96\n97\n98\n99\n100"
        );
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let none = Program {
            name: "replex-no-such-program",
            package: "some-package",
        };
        let message = none.run(none.command(), &[]).unwrap_err().to_string();
        assert!(
            message
                .starts_with("cannot run replex-no-such-program (Debian package some-package): "),
            "{message}"
        );
    }
}
