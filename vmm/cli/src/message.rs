//! Messages to the user, each one line of standard error.

use std::io::{self, IsTerminal, Write};

/// Prints `message` on one line, behind the program's name.
pub fn complain(message: &str) {
    let line: Vec<&str> = message.lines().map(str::trim).collect();
    // The terminal may be raw.
    let end = if io::stderr().is_terminal() {
        "\r\n"
    } else {
        "\n"
    };
    // Nobody is left to be told that standard error is closed.
    let _ = write!(io::stderr(), "replex: {}{end}", line.join("; "));
}

/// Prints `message` like [`complain`] if standard error is a terminal. Progress is of no use in a file or to a program.
pub fn report_progress(message: &str) {
    if io::stderr().is_terminal() {
        complain(message);
    }
}
