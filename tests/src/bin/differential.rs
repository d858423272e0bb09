//! Differential run against the real CPU: `differential [--engine NAME] [--cases N] [--seed N] [--local PERCENT]
//! [--reports N] [--form NAME] [--table] [--exclusions]`.
//!
//! Exit status 0: everything agrees; 1: mismatches; 2: it could not run.

use clap::{Parser, ValueEnum};
use std::process::ExitCode;
use tests::differential::campaign::Campaign;
use tests::differential::exclusions;
use tests::differential::forms;
use tests::differential::machine::Side;

/// An engine's name on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum EngineName {
    /// The emulator alone.
    Emulator,
    /// The translator, by tables and through windows, and the emulator.
    Translator,
}

/// Compares generated cases on the real CPU with the engines.
#[derive(Parser)]
struct Options {
    /// The engine to compare.
    #[arg(long, value_enum, default_value = "translator")]
    engine: EngineName,
    /// Cases to run, rounded up to whole batches.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Seed from which every case follows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of the cases, in percent, that use segments of the LDT.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    local: u32,
    /// Mismatches to reduce and print.
    #[arg(long, default_value_t = 10)]
    reports: usize,
    /// Only forms whose name starts with this, for instance `Push`.
    #[arg(long, default_value = "")]
    form: String,
    /// Print what is not compared and not generated, with reasons, and run nothing.
    #[arg(long)]
    exclusions: bool,
    /// Print the table of forms.
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.exclusions {
        print!("{}", exclusions::listing());
        return ExitCode::SUCCESS;
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let forms = forms::generated()
        .into_iter()
        .filter(|form| format!("{form:?}").starts_with(&options.form))
        .collect();
    let campaign = Campaign {
        sides: match options.engine {
            EngineName::Emulator => vec![Side::Emulator],
            EngineName::Translator => vec![Side::Emulator, Side::Tables, Side::Windows],
        },
        local_share: options.local,
        seed: options.seed,
        cases: options.cases,
        workers,
        reports: options.reports,
        forms,
    };
    let findings = match campaign.run() {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("differential: {error}");
            return ExitCode::from(2);
        }
    };
    for mismatch in &findings.reports {
        println!(
            "--- seed {} case {}\n{}",
            options.seed, mismatch.case, mismatch.report
        );
    }
    if options.table {
        println!("{}", findings.coverage);
    }
    for error in &findings.errors {
        eprintln!("differential: {error}");
    }
    if let EngineName::Translator = options.engine {
        println!("{}", findings.tally);
    }
    println!(
        "seed {}: {} cases, {}, {} mismatches, {} unsteady on the real CPU",
        options.seed,
        findings.coverage.cases(),
        findings.coverage.local(),
        findings.mismatches,
        findings.unsteady
    );
    match (findings.errors.is_empty(), findings.mismatches) {
        (false, _) => ExitCode::from(2),
        (true, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
