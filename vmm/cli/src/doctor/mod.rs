//! `replex doctor`: what this host offers, and what that brings or costs, a line each.

mod guest;
mod host;
mod native;

use std::{
    fmt,
    io::{self, Write},
};

/// What the host offers of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The thing.
    name: &'static str,
    state: State,
    /// What it brings, or what its absence costs.
    text: String,
}

/// How much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Limited,
    Missing,
}

impl Finding {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        let (state, text) = (State::Ok, text.into());
        Self { name, state, text }
    }

    fn limited(name: &'static str, text: impl Into<String>) -> Self {
        let (state, text) = (State::Limited, text.into());
        Self { name, state, text }
    }

    fn missing(name: &'static str, text: impl Into<String>) -> Self {
        let (state, text) = (State::Missing, text.into());
        Self { name, state, text }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, state, text } = self;
        write!(f, "{name:<16} {state:<8} {text}")
    }
}

/// Prints what this host offers. Returns the exit status: 0 if guests can run here, 1 if not.
pub fn doctor() -> u8 {
    // A machine that runs makes the largest demands: the others tell what is wrong if it does not.
    let guest = guest::finding();
    let runs = guest.state != State::Missing;
    let mut out = io::stdout().lock();
    for finding in [guest].into_iter().chain(host::findings()) {
        // A reader that has seen enough is no failure.
        let _ = writeln!(out, "{finding}");
    }
    match runs {
        true => 0,
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned() {
        let lines = [
            Finding::ok("a", "x"),
            Finding::limited("file descriptors", "x"),
            Finding::missing("abc", "x"),
        ]
        .map(|finding| finding.to_string());
        assert!(
            lines.iter().all(|line| line.find(" x") == Some(25)),
            "{lines:?}"
        );
    }

    #[test]
    fn each_thing_has_one_line_and_a_reason() {
        let findings = host::findings();
        for (index, finding) in findings.iter().enumerate() {
            assert!(finding.name.len() <= 16, "{finding}");
            assert!(
                !finding.text.is_empty() && !finding.text.contains('\n'),
                "{finding}"
            );
            let same = |other: &Finding| other.name == finding.name;
            assert!(!findings[..index].iter().any(same), "{finding}");
        }
    }
}
