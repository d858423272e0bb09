//! Differential run against the real CPU: `differential [--mode 32|64|compat] [--engine NAME] [--cases N] [--seed N]
//! [--local PERCENT] [--reports N] [--form NAME] [--v2] [--table] [--exclusions]`.
//!
//! Exit status 0: everything agrees; 1: mismatches; 2: it could not run.

use clap::{Parser, ValueEnum};
use std::process::ExitCode;
use tests::differential::campaign::Campaign;
use tests::differential::exclusions;
use tests::differential::forms;
use tests::differential::machine::Side;
use tests::differential::mode::Mode;

/// An engine's name on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum EngineName {
    /// The emulator alone.
    Emulator,
    /// The translator, by tables and through windows, and the emulator.
    Translator,
    /// The real CPU itself, in a second process.
    Native,
}

/// A mode's name on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    /// 32-bit code below a 32-bit kernel.
    #[value(name = "32")]
    Protected,
    /// 64-bit code.
    #[value(name = "64")]
    Bits64,
    /// 32-bit code below a 64-bit kernel.
    #[value(name = "compat")]
    Compatibility,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Protected => Self::Protected,
            ModeName::Bits64 => Self::Bits64,
            ModeName::Compatibility => Self::Compatibility,
        }
    }
}

/// Compares generated cases on the real CPU with the engines.
#[derive(Parser)]
struct Options {
    /// The mode of the cases.
    #[arg(long, value_enum, default_value = "32")]
    mode: ModeName,
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
    /// Only forms that x86-64-v2 adds to the x86-64 baseline.
    #[arg(long)]
    v2: bool,
    /// Print what is not compared and not generated, with reasons, and run nothing.
    #[arg(long)]
    exclusions: bool,
    /// Print the table of forms, with the exceptions of each.
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mode = Mode::from(options.mode);
    if options.exclusions {
        print!("{}", exclusions::listing(mode));
        return ExitCode::SUCCESS;
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let forms = forms::generated(mode)
        .into_iter()
        .filter(|form| format!("{form:?}").starts_with(&options.form))
        .filter(|&form| !options.v2 || forms::is_of_v2(form))
        .collect();
    let campaign = Campaign {
        mode,
        twice: matches!(options.engine, EngineName::Native),
        sides: match options.engine {
            EngineName::Emulator => vec![Side::Emulator],
            EngineName::Translator => vec![Side::Emulator, Side::Tables, Side::Windows],
            EngineName::Native => Vec::new(),
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
        if mode.is_64() {
            println!("{}", findings.coverage.strange());
        }
        let missing = findings.coverage.missing(mode);
        println!("{} of the table not yet met: {missing:?}", missing.len());
        println!(
            "never without an exception: {:?}",
            findings.coverage.never_executed()
        );
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
