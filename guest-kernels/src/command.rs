//! Programs of Debian that are run to their end, and whose output is kept.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

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
        Err(self.failed(shown, output.status, &output.stderr))
    }

    /// Runs `command` like [`Program::run`], and passes each line of its standard output to `line` when it comes.
    pub(crate) fn stream(
        self,
        mut command: Command,
        shown: &[&str],
        mut line: impl FnMut(&str),
    ) -> Result<(), FetchError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(self.start_error())?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stderr = thread::scope(|scope| {
            // A program whose standard error nobody reads stands still when the pipe is full.
            let errors = scope.spawn(|| {
                let mut bytes = Vec::new();
                let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut bytes));
                bytes
            });
            if let Some(stdout) = stdout {
                let lines = BufReader::new(stdout).lines();
                lines.map_while(Result::ok).for_each(|text| line(&text));
            }
            errors.join().unwrap_or_default()
        });
        let status = child.wait().map_err(self.start_error())?;
        if status.success() {
            return Ok(());
        }
        Err(self.failed(shown, status, &stderr))
    }

    /// Makes the error of a command that has failed.
    fn failed(self, shown: &[&str], status: ExitStatus, stderr: &[u8]) -> FetchError {
        FetchError::Command {
            command: [&[self.name], shown].concat().join(" "),
            status,
            stderr: last_lines(stderr),
        }
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
    fn lines_are_passed_on_when_they_come() {
        let stream = |script| {
            let mut command = SH.command();
            command.args(["-c", script]);
            let mut lines = Vec::new();
            let result = SH.stream(command, &["-c", "SCRIPT"], |line| {
                lines.push(line.to_owned())
            });
            (lines, result)
        };
        let (lines, result) = stream("echo one; seq 100000 >&2; echo two");
        assert_eq!(lines, ["one", "two"]);
        result.unwrap();
        let (lines, result) = stream("echo one; echo why >&2; exit 3");
        assert_eq!(lines, ["one"]);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "sh -c SCRIPT: exit status: 3\nwhy");
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
