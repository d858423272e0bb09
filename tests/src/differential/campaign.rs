//! A campaign: many batches, each run on the real CPU and on the engines, compared, counted.
//!
//! The emulator takes part in every campaign: beside the translator it tells how many instructions a case executes, and so
//! how many of them the translator did not leave to it.
//!
//! The real CPU is asked again when the sides differ, because the host's interrupts show in two places: their return to ring 3
//! loads 0 into a data segment register that holds a null selector 1 to 3 (SDM Vol. 2A, IRET, "RETURN-TO-OUTER-PRIVILEGE-LEVEL"),
//! and a switch of tasks may lose the pointers to the last x87 instruction ([`super::pointers`]). If the engines' first answers
//! equal a later one of the real CPU, the case agrees; it is counted as unsteady. An engine that is wrong differs every time.

use super::case::{Case, Outcome};
use super::compare::{differences, engine_differences, show};
use super::coverage::Coverage;
use super::generate::Generator;
use super::layout::BATCH;
use super::machine::{Kernel, Machine, MachineError, Ran, Side};
use super::mode::Mode;
use super::native::{Native, NativeError, Program};
use super::properties::violations;
use super::shrink::shrink;
use iced_x86::Code;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Times that the real CPU is asked again about a case.
const TIMES_AGAIN: usize = 4;

/// A reason why a campaign could not go on.
#[derive(Debug, Error)]
pub enum CampaignError {
    /// The real CPU could not be asked.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// An engine did not start.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A case on which the real CPU and an engine disagree.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Index of the case in the campaign.
    pub case: u64,
    /// A text that shows the disagreement and the reduced case.
    pub report: String,
}

/// Counts of executed cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instructions executed, those included that fault.
    pub executed: u64,
    /// Instructions that ran as translated code.
    pub translated: u64,
    /// Cases of which at least one instruction ran as translated code.
    pub cases: u64,
}

impl Tally {
    /// Adds a case of which the emulator executed `all` instructions alone, and `left` beside the translator.
    fn add(&mut self, all: u64, left: u64) {
        let translated = all.saturating_sub(left);
        self.executed += all;
        self.translated += translated;
        self.cases += u64::from(translated != 0);
    }

    fn merge(&mut self, other: Self) {
        self.executed += other.executed;
        self.translated += other.translated;
        self.cases += other.cases;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of {} instructions ran as translated code, in {} cases",
            self.translated, self.executed, self.cases
        )
    }
}

/// The findings of a campaign.
#[derive(Debug, Default)]
pub struct Findings {
    /// The coverage of the generated cases.
    pub coverage: Coverage,
    /// Number of cases that disagreed.
    pub mismatches: u64,
    /// Number of cases to which the real CPU gave several answers, a later one of them the engines'.
    pub unsteady: u64,
    /// The counts of executed cases.
    pub tally: Tally,
    /// The first mismatches, reduced.
    pub reports: Vec<Mismatch>,
    /// The errors that stopped workers early.
    pub errors: Vec<CampaignError>,
}

/// Settings of a campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The mode of the cases.
    pub mode: Mode,
    /// Whether the real CPU runs every batch twice, in two processes, and has to answer the same.
    pub twice: bool,
    /// The engines to compare with the real CPU; the tally is of the first and the last.
    pub sides: Vec<Side>,
    /// Forms to draw from; at least one.
    pub forms: Vec<Code>,
    /// Share of the cases that use segments of the LDT, in percent.
    pub local_share: u32,
    /// The seed that everything follows from.
    pub seed: u64,
    /// Cases to run, rounded up to whole batches.
    pub cases: u64,
    /// Worker threads, each with its own child process and machines.
    pub workers: usize,
    /// Mismatches to reduce and report; all are counted.
    pub reports: usize,
}

impl Campaign {
    /// Runs the campaign and returns the findings of its workers, merged in the order of the cases.
    pub fn run(&self) -> Result<Findings, CampaignError> {
        let program = Program::build(self.mode)?;
        let kernel = Kernel::build(self.mode)?;
        let next = AtomicU64::new(0);
        let mut all = Findings::default();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.workers)
                .map(|_| scope.spawn(|| self.work(&program, &kernel, &next)))
                .collect();
            for worker in workers {
                let found = worker.join().expect("a worker does not panic");
                all.coverage.merge(found.coverage);
                all.mismatches += found.mismatches;
                all.unsteady += found.unsteady;
                all.tally.merge(found.tally);
                all.reports.extend(found.reports);
                all.errors.extend(found.errors);
            }
        });
        all.reports.sort_by_key(|mismatch| mismatch.case);
        all.reports.truncate(self.reports);
        Ok(all)
    }

    fn work(&self, program: &Program, kernel: &Kernel, next: &AtomicU64) -> Findings {
        let mut found = Findings::default();
        if let Err(error) = self.batches(program, kernel, next, &mut found) {
            found.errors.push(error);
        }
        found
    }

    fn batches(
        &self,
        program: &Program,
        kernel: &Kernel,
        next: &AtomicU64,
        found: &mut Findings,
    ) -> Result<(), CampaignError> {
        let mut sides = Sides::start(program, kernel, &self.sides)?;
        let mut again = match self.twice {
            true => Some(Native::start(program)?),
            false => None,
        };
        let mut generator = Generator::new(
            self.mode,
            self.forms.clone(),
            self.local_share,
            sides.native.records_pointers(),
        );
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            let first = batch * BATCH as u64;
            if first >= self.cases {
                return Ok(());
            }
            let cases = generator.batch(self.seed, batch);
            let outcomes = match sides.native.run(&cases) {
                Err(NativeError::Lost { case, how }) => {
                    let report =
                        format!("the native program was lost: {how}\n{}", show(&cases[case]));
                    found.mismatches += 1;
                    found.reports.push(Mismatch {
                        case: first + case as u64,
                        report,
                    });
                    continue;
                }
                outcomes => outcomes?,
            };
            if let Some(again) = &mut again {
                self.compare_with_itself(again, first, &cases, &outcomes, found)?;
            }
            for ((index, case), real) in (first..).zip(&cases).zip(&outcomes) {
                found.coverage.add(case, real);
                let answers = sides.ask_engines(case)?;
                answers.count(&mut found.tally);
                let differences = answers.differences(case, real);
                if differences.is_empty() {
                    continue;
                }
                if sides.agree_later(case, &answers)? {
                    found.unsteady += 1;
                    continue;
                }
                found.mismatches += 1;
                if found.reports.len() < self.reports {
                    let report = sides.report(case, &differences)?;
                    found.reports.push(Mismatch {
                        case: index,
                        report,
                    });
                }
            }
        }
    }
}

impl Campaign {
    /// Runs a batch once more; counts and reports what differs, and what cannot be. A case whose answer comes back later is
    /// unsteady.
    fn compare_with_itself(
        &self,
        again: &mut Native<'_>,
        first: u64,
        cases: &[Case],
        outcomes: &[Outcome],
        found: &mut Findings,
    ) -> Result<(), CampaignError> {
        let others = again.run(cases)?;
        for (index, (case, outcome)) in cases.iter().zip(outcomes).enumerate() {
            let mut wrong = itself_differences(case, outcome, &others[index]);
            if !wrong.is_empty() && answers_later(again, case, outcome)? {
                found.unsteady += 1;
                wrong.clear();
            }
            if case.mode().is_64() {
                wrong.extend(violations(case, outcome));
            }
            if wrong.is_empty() {
                continue;
            }
            found.mismatches += 1;
            if found.reports.len() < self.reports {
                found.reports.push(Mismatch {
                    case: first + index as u64,
                    report: format!("{}{}\n", show(case), wrong.join("\n")),
                });
            }
        }
        Ok(())
    }
}

/// Whether the real CPU, asked again about `case`, gives the answer `expected`.
fn answers_later(
    native: &mut Native<'_>,
    case: &Case,
    expected: &Outcome,
) -> Result<bool, CampaignError> {
    for _ in 0..TIMES_AGAIN {
        let later = native.run(std::slice::from_ref(case))?;
        if itself_differences(case, expected, &later[0]).is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Describes the differences between two answers of the real CPU.
fn itself_differences(case: &Case, first: &Outcome, second: &Outcome) -> Vec<String> {
    engine_differences(["first", "second"], case, first, second)
}

/// The engines' results of a case, or the reasons why they could not run it.
struct Answers(Vec<(Side, Result<Ran, MachineError>)>);

impl Answers {
    /// Describes the differences from `real`, and those between the engines.
    fn differences(&self, case: &Case, real: &Outcome) -> Vec<String> {
        let of_side = |(side, answer): &(Side, Result<Ran, MachineError>)| {
            let found = match answer {
                Ok(ran) => differences(case, real, &ran.outcome),
                Err(error) => vec![error.to_string()],
            };
            let side = *side;
            found
                .into_iter()
                .map(move |difference| format!("{side:?}: {difference}"))
        };
        let mut found: Vec<String> = self.0.iter().flat_map(of_side).collect();
        found.extend(self.differences_between(case));
        found
    }

    /// Describes the differences between the first engine and the others.
    fn differences_between(&self, case: &Case) -> Vec<String> {
        let Some((first, others)) = self.0.split_first() else {
            return Vec::new();
        };
        let (first_side, Ok(expected)) = first else {
            return Vec::new();
        };
        let ran = |(side, answer): &'_ (Side, Result<Ran, MachineError>)| {
            let outcome = &answer.as_ref().ok()?.outcome;
            let names = [format!("{first_side:?}"), format!("{side:?}")];
            let names = [names[0].as_str(), names[1].as_str()];
            Some(engine_differences(names, case, &expected.outcome, outcome))
        };
        others.iter().filter_map(ran).flatten().collect()
    }

    /// Adds the instructions that the case took, if the engines ran it.
    fn count(&self, tally: &mut Tally) {
        if let (Some((_, Ok(all))), Some((_, Ok(left)))) = (self.0.first(), self.0.last()) {
            tally.add(all.emulated, left.emulated);
        }
    }
}

/// The real CPU and the engines.
struct Sides<'p> {
    native: Native<'p>,
    machines: Vec<(Side, Machine)>,
    kernel: &'p Kernel,
}

impl<'p> Sides<'p> {
    /// Starts the real CPU's program and a machine for each of `sides`.
    fn start(
        program: &'p Program,
        kernel: &'p Kernel,
        sides: &[Side],
    ) -> Result<Self, CampaignError> {
        let boot = |&side| Ok((side, Machine::boot(kernel, side)?));
        Ok(Self {
            native: Native::start(program)?,
            machines: sides
                .iter()
                .map(boot)
                .collect::<Result<_, MachineError>>()?,
            kernel,
        })
    }

    /// Runs `case` on every engine. One that fails starts afresh.
    fn ask_engines(&mut self, case: &Case) -> Result<Answers, MachineError> {
        let mut answers = Vec::with_capacity(self.machines.len());
        for (side, machine) in &mut self.machines {
            let answer = machine.run(case);
            if answer.is_err() {
                *machine = Machine::boot(self.kernel, *side)?;
            }
            answers.push((*side, answer));
        }
        Ok(Answers(answers))
    }

    /// Whether the real CPU, asked again about `case`, gives the engines' answers.
    fn agree_later(&mut self, case: &Case, answers: &Answers) -> Result<bool, CampaignError> {
        for _ in 0..TIMES_AGAIN {
            let again = self.native.run(std::slice::from_ref(case))?;
            if answers.differences(case, &again[0]).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs `case` on all sides and returns the differences.
    fn differs(&mut self, case: &Case) -> Result<Vec<String>, CampaignError> {
        let outcomes = self.native.run(std::slice::from_ref(case))?;
        Ok(self.ask_engines(case)?.differences(case, &outcomes[0]))
    }

    /// Reduces a failing case and describes it. A case that agrees when it runs again depends on those before it.
    fn report(&mut self, case: &Case, first: &[String]) -> Result<String, CampaignError> {
        let smallest = shrink(case, |candidate| {
            self.differs(candidate).is_ok_and(|found| !found.is_empty())
        });
        let found = self.differs(&smallest)?;
        let forms: Vec<String> = smallest
            .units
            .iter()
            .map(|unit| format!("{:?}", unit.form))
            .collect();
        let differences = match found.as_slice() {
            [] => format!("agrees when run again; at first:\n{}", first.join("\n")),
            found => found.join("\n"),
        };
        Ok(format!(
            "{}\n{}{differences}\n",
            forms.join(", "),
            show(&smallest)
        ))
    }
}
