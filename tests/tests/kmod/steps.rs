//! [`Steps`]: what the commands of a script printed, and how they ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The definitions that the scripts begin with.
const PRELUDE: &str = include_str!("steps.sh");

/// The prefix of the lines around a step's output.
const MARK: &str = "= ";

/// A script of steps, for `/bin/sh`.
pub fn script(steps: &str) -> String {
    format!("#!/bin/sh\n{PRELUDE}{steps}")
}

/// The steps of a script by their names.
#[derive(Debug)]
pub struct Steps(BTreeMap<String, Step>);

/// A command that has ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The exit status.
    pub status: Option<i32>,
    /// Standard output and standard error.
    pub printed: String,
}

impl Steps {
    /// Takes apart what a script printed. What is not of a step is left out.
    pub fn parse(printed: &str) -> Self {
        let mut steps = BTreeMap::new();
        let mut current: Option<(String, Step)> = None;
        for line in printed.lines() {
            match (line.strip_prefix(MARK), &mut current) {
                (Some(mark), Some((name, step))) if mark.starts_with("status ") => {
                    step.status = mark["status ".len()..].parse().ok();
                    steps.insert(std::mem::take(name), std::mem::take(step));
                    current = None;
                }
                (Some(name), None) => current = Some((name.to_owned(), Step::default())),
                (_, Some((_, step))) => writeln!(step.printed, "{line}").unwrap(),
                (None, None) => {}
            }
        }
        Self(steps)
    }

    /// The step of this name.
    ///
    /// # Panics
    /// If there was none, or it did not end.
    pub fn get(&self, name: &str) -> &Step {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no step {name} in {self:#?}"))
    }
}

#[test]
fn steps_are_taken_apart() {
    let steps =
        Steps::parse("noise\n= one\n= a\nb\n= status 3\nnoise\n= two\n= status 0\n= lost\n");
    let one = Step {
        status: Some(3),
        printed: "= a\nb\n".into(),
    };
    assert_eq!(*steps.get("one"), one);
    assert_eq!(steps.get("two").status, Some(0));
    assert_eq!(steps.0.len(), 2);
}
