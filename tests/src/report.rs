//! [`report`]: what is to be seen in every run of a test.

use std::io::{self, Write as _};

/// Prints a line past the test runner's capture, such as counts, or the reason why a test is skipped, which must not look like one
/// that ran.
pub fn report(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
