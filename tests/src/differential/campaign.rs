//! A campaign: many batches, each run on the real CPU and on the engine, compared, counted.
//!
//! The real CPU is asked a second time when the sides differ, because the host's interrupts show in one place: their return
//! to ring 3 loads 0 into a data segment register that holds a null selector 1 to 3 (SDM Vol. 2A, IRET, "RETURN-TO-OUTER-
//! PRIVILEGE-LEVEL"). If the engine's first answer equals the second of the real CPU, the case agrees; it is counted as
//! unsteady. An engine that is wrong differs both times.

use super::case::{Case, Outcome};
use super::compare::{differences, show};
use super::coverage::Coverage;
use super::generate::Generator;
use super::layout::BATCH;
use super::machine::{Kernel, Machine, MachineError};
use super::native::{Native, NativeError, Program};
use super::shrink::shrink;
use iced_x86::Code;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Why a campaign could not go on.
#[derive(Debug, Error)]
pub enum CampaignError {
    /// The real CPU could not be asked.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// The engine did not start.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A case on which the real CPU and the engine disagree.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Index of the case in the campaign.
    pub case: u64,
    /// What was found, with the reduced case.
    pub report: String,
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What was generated.
    pub coverage: Coverage,
    /// Number of cases that disagreed.
    pub mismatches: u64,
    /// Number of cases to which the real CPU gave two answers, the second of them the engine's.
    pub unsteady: u64,
    /// The first of them, reduced.
    pub reports: Vec<Mismatch>,
    /// Why workers stopped early.
    pub errors: Vec<CampaignError>,
}

/// Settings of a campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Forms to draw from; at least one.
    pub forms: Vec<Code>,
    /// Everything follows from it.
    pub seed: u64,
    /// Cases to run, rounded up to whole batches.
    pub cases: u64,
    /// Worker threads, each with its own child process and machine.
    pub workers: usize,
    /// Mismatches to reduce and report; all are counted.
    pub reports: usize,
}

impl Campaign {
    /// Runs it; what the workers found, merged in the order of the cases.
    pub fn run(&self) -> Result<Findings, CampaignError> {
        let program = Program::build()?;
        let kernel = Kernel::build()?;
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
        let mut generator = Generator::new(self.forms.clone());
        let mut pair = Pair {
            native: Native::start(program)?,
            machine: Machine::boot(kernel)?,
            kernel,
        };
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            let first = batch * BATCH as u64;
            if first >= self.cases {
                return Ok(());
            }
            let cases = generator.batch(self.seed, batch);
            let outcomes = match pair.native.run(&cases) {
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
            for ((index, case), real) in (first..).zip(&cases).zip(&outcomes) {
                found.coverage.add(case, real);
                let answer = pair.ask_engine(case)?;
                let differences = answer.differences(case, real);
                if differences.is_empty() {
                    continue;
                }
                let again = pair.native.run(std::slice::from_ref(case))?;
                if answer.differences(case, &again[0]).is_empty() {
                    found.unsteady += 1;
                    continue;
                }
                found.mismatches += 1;
                if found.reports.len() < self.reports {
                    let report = pair.report(case, &differences)?;
                    found.reports.push(Mismatch {
                        case: index,
                        report,
                    });
                }
            }
        }
    }
}

/// What the engine made of a case, or why it could not run it.
struct Answer(Result<Outcome, MachineError>);

impl Answer {
    /// What differs from `real`.
    fn differences(&self, case: &Case, real: &Outcome) -> Vec<String> {
        match &self.0 {
            Ok(outcome) => differences(case, real, outcome),
            Err(error) => vec![format!("engine: {error}")],
        }
    }
}

/// The two sides.
struct Pair<'p> {
    native: Native<'p>,
    machine: Machine,
    kernel: &'p Kernel,
}

impl Pair<'_> {
    /// Runs `case` on the engine, which starts afresh if that fails.
    fn ask_engine(&mut self, case: &Case) -> Result<Answer, MachineError> {
        let answer = self.machine.run(case);
        if answer.is_err() {
            self.machine = Machine::boot(self.kernel)?;
        }
        Ok(Answer(answer))
    }

    /// Runs `case` on both sides; what differs.
    fn differs(&mut self, case: &Case) -> Result<Vec<String>, CampaignError> {
        let outcomes = self.native.run(std::slice::from_ref(case))?;
        Ok(self.ask_engine(case)?.differences(case, &outcomes[0]))
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
