//! Debian's own gdb, if it is installed, at work on guests.

mod debian;
mod segments;

use std::{
    io::{self, BufRead as _, BufReader, PipeReader, Write as _},
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tests::{hang::Guarded, report::report};

const GDB: &str = "gdb";
/// gdb's prompt.
const ASK: &str = "(gdb) ";

/// A running gdb.
struct Gdb {
    process: Guarded,
    commands: ChildStdin,
    output: BufReader<PipeReader>,
    /// Commands given so far.
    count: usize,
}

impl Gdb {
    /// gdb with the symbols in `file`.
    fn start(file: &Path) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        let child = Command::new(GDB)
            .args(["-nx", "-q"])
            .arg(file)
            .env_remove("DEBUGINFOD_URLS")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let mut process = Guarded::new(child);
        let mut gdb = Self {
            commands: process.child.stdin.take().unwrap(),
            output: BufReader::new(reader),
            process,
            count: 0,
        };
        for setting in ["pagination off", "confirm off", "width 0"] {
            gdb.command(&format!("set {setting}"));
        }
        gdb
    }

    /// Gives gdb a command and returns the answer.
    fn command(&mut self, command: &str) -> String {
        self.give(command);
        self.answer()
    }

    fn give(&mut self, command: &str) {
        self.count += 1;
        let end = self.end();
        writeln!(self.commands, "{command}\necho {end}\\n").unwrap();
    }

    /// Returns the text that gdb prints when it is done with the last command.
    fn end(&self) -> String {
        format!("done with {}", self.count)
    }

    /// Reads the whole answer of gdb to the last command.
    fn answer(&mut self) -> String {
        let end = self.end();
        let mut answer = String::new();
        loop {
            let line = self.line(&answer);
            if line == end {
                return answer;
            }
            answer += &line;
            answer.push('\n');
        }
    }

    fn line(&mut self, before: &str) -> String {
        let mut line = String::new();
        let len = self.output.read_line(&mut line).unwrap();
        assert!(len > 0, "gdb has ended after:\n{before}");
        line.trim_end().replace(ASK, "")
    }

    /// Continues the guest, interrupts it as ctrl-c does, and returns gdb's answer.
    fn interrupt(&mut self) -> String {
        self.give("continue");
        while self.line("continue") != "Continuing." {}
        self.ctrl_c();
        self.answer()
    }

    fn ctrl_c(&self) {
        let pid = Pid::from_raw(i32::try_from(self.process.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
    }

    /// The number that gdb prints for `expression`.
    fn number(&mut self, expression: &str) -> u32 {
        let answer = self.command(&format!("printf \"%u\\n\", {expression}"));
        answer.trim().parse().unwrap_or_else(|_| panic!("{answer}"))
    }

    fn quit(mut self) {
        writeln!(self.commands, "quit").unwrap();
        assert_eq!(self.process.wait().code(), Some(0));
    }
}

/// Whether gdb is installed. Says so if it is not.
fn is_installed() -> bool {
    let version = Command::new(GDB).arg("--version").output();
    let is_installed = version.is_ok_and(|output| output.status.success());
    if !is_installed {
        report(&format!("skipped: {GDB} is not installed"));
    }
    is_installed
}
