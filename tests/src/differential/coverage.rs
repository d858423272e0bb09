//! The coverage of a campaign: the forms that were generated, and the outcomes of their cases.

use super::case::{Case, Outcome, SS};
use super::forms;
use super::mode::Mode;
use super::strange::Strange;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt;

/// Counts of one form; `exceptions` are those of `faulted`, by vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    generated: u64,
    executed: u64,
    faulted: u64,
    exceptions: BTreeMap<u8, u64>,
}

impl Counts {
    fn fault(&mut self, outcome: &Outcome) {
        self.faulted += 1;
        if let Some(exception) = outcome.exception {
            *self.exceptions.entry(exception.vector).or_default() += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.generated += other.generated;
        self.executed += other.executed;
        self.faulted += other.faulted;
        for (vector, count) in other.exceptions {
            *self.exceptions.entry(vector).or_default() += count;
        }
    }
}

/// The end of a case; offsets are in its code.
enum End {
    /// The case reached the exit.
    Through,
    /// An exception of the instruction at this offset.
    Fault(usize),
    /// An exception after the instruction that ends at this offset.
    Trap(usize),
    /// A 16-bit transfer left the code: which unit that was is not known, and none is counted as executed.
    Elsewhere,
}

impl End {
    fn of(case: &Case, outcome: &Outcome) -> Self {
        /// Vectors of #DB, #BP and #OF, which come after their instruction.
        const TRAPS: [u8; 3] = [1, 3, 4];
        let Some(exception) = outcome.exception else {
            return Self::Through;
        };
        let at = case.position(outcome.end.cs, outcome.end.rip) as usize;
        if at > case.code.len() {
            Self::Elsewhere
        } else if TRAPS.contains(&exception.vector) {
            Self::Trap(at)
        } else {
            Self::Fault(at)
        }
    }
}

/// Counts of all forms.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    forms: BTreeMap<Code, Counts>,
    exceptions: BTreeMap<u8, u64>,
    cases: u64,
    local: LocalCases,
    strange: Strange,
}

/// Counts of cases in segments of the LDT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalCases {
    /// Cases that start in such segments, or run code in one.
    pub all: u64,
    /// Those of them that run 16-bit code.
    pub code16: u64,
    /// Those of them that start on a 16-bit stack.
    pub stack16: u64,
}

impl fmt::Display for LocalCases {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of them in segments of the LDT ({} with 16-bit code, {} on 16-bit stacks)",
            self.all, self.code16, self.stack16
        )
    }
}

impl Coverage {
    /// Adds one case, as the real CPU ran it.
    pub fn add(&mut self, case: &Case, outcome: &Outcome) {
        self.cases += 1;
        if case.is_local() {
            self.local.all += 1;
            self.local.code16 += u64::from(case.pieces().any(|piece| piece.bits == 16));
            let stack = case.segment(case.start.segments[SS]);
            self.local.stack16 += u64::from(stack.is_some_and(|stack| !stack.big));
        }
        if let Some(exception) = outcome.exception {
            *self.exceptions.entry(exception.vector).or_default() += 1;
        }
        if case.mode().is_64() {
            self.strange.add(case, outcome);
        }
        let end = End::of(case, outcome);
        for unit in &case.units {
            let counts = self.forms.entry(unit.form).or_default();
            counts.generated += 1;
            match end {
                End::Through => counts.executed += 1,
                End::Fault(at) if at == unit.main => counts.fault(outcome),
                End::Fault(at) if at > unit.main => counts.executed += 1,
                End::Trap(at) if (unit.at + 1..=unit.at + unit.len).contains(&at) => {
                    counts.fault(outcome);
                }
                End::Trap(at) if at > unit.main => counts.executed += 1,
                End::Fault(_) | End::Trap(_) | End::Elsewhere => {}
            }
        }
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.local.all += other.local.all;
        self.local.code16 += other.local.code16;
        self.local.stack16 += other.local.stack16;
        self.strange.merge(other.strange);
        for (vector, count) in other.exceptions {
            *self.exceptions.entry(vector).or_default() += count;
        }
        for (form, counts) in other.forms {
            self.forms.entry(form).or_default().merge(counts);
        }
    }

    /// Number of cases.
    pub fn cases(&self) -> u64 {
        self.cases
    }

    /// Numbers of cases in segments of the LDT.
    pub fn local(&self) -> LocalCases {
        self.local
    }

    /// Counts of the faults of 64-bit code at addresses that no program can use.
    pub fn strange(&self) -> &Strange {
        &self.strange
    }

    /// Returns the forms of the table for `mode` that have never been drawn so far.
    pub fn missing(&self, mode: Mode) -> Vec<Code> {
        forms::generated(mode)
            .into_iter()
            .filter(|form| !self.forms.contains_key(form))
            .collect()
    }

    /// Returns the forms that have been drawn, but never went through without an exception; those apart that always raise one.
    pub fn never_executed(&self) -> Vec<Code> {
        self.forms
            .iter()
            .filter(|(form, counts)| counts.executed == 0 && !forms::always_faults(**form))
            .map(|(form, _)| *form)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<34} {:>10} {:>10} {:>10}  by vector",
            "form", "generated", "executed", "faulted"
        )?;
        for (form, counts) in &self.forms {
            let name = if *form == Code::INVALID {
                "(undefined encodings)".to_owned()
            } else {
                format!("{form:?}")
            };
            let Counts {
                generated,
                executed,
                faulted,
                exceptions,
            } = counts;
            writeln!(
                out,
                "{name:<34} {generated:>10} {executed:>10} {faulted:>10}  {exceptions:?}",
            )?;
        }
        writeln!(
            out,
            "\ncases ended by exception, by vector: {:?}",
            self.exceptions
        )?;
        write!(out, "{} forms generated", self.forms.len())
    }
}
