//! The engines against the real CPU, at a size for every `cargo test`; `cargo run --release -p tests --bin differential`
//! runs as many cases as one likes.

use iced_x86::Code;
use tests::differential::campaign::{Campaign, Findings};
use tests::differential::forms;
use tests::differential::machine::Side;
use tests::differential::mode::Mode;
use tests::report::report;

/// The seed of these runs.
const SEED: u64 = 0x1a32;

/// Runs `cases` cases over `forms`, prints what was found, and fails on any disagreement.
fn run(what: &str, forms: Vec<Code>, cases: u64) -> Findings {
    assert!(!forms.is_empty(), "no form called {what}");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let findings = Campaign {
        mode: Mode::Protected,
        twice: false,
        sides: vec![Side::Emulator, Side::Tables, Side::Windows],
        forms,
        local_share: 25,
        seed: SEED,
        cases,
        workers,
        reports: 3,
    }
    .run()
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    let count = findings.coverage.cases();
    report(&format!(
        "{what}: seed {SEED:#x}, {count} cases, {}, {} mismatches; {}",
        findings.coverage.local(),
        findings.mismatches,
        findings.tally
    ));
    for mismatch in &findings.reports {
        println!("--- case {}\n{}", mismatch.case, mismatch.report);
    }
    assert!(findings.errors.is_empty(), "{what}: {:?}", findings.errors);
    assert_eq!(
        findings.mismatches, 0,
        "{what}: an engine and the real CPU disagree"
    );
    assert!(count >= cases, "{what}: only {count} cases");
    findings
}

#[test]
fn the_engines_agree_with_the_real_cpu() {
    let findings = run("all forms", forms::generated(Mode::Protected), 20_000);
    let tally = findings.tally;
    assert!(
        tally.translated > tally.executed / 4,
        "the translator ran {tally}"
    );
    assert!(
        findings.coverage.local().code16 > 500 && findings.coverage.local().stack16 > 500,
        "{}",
        findings.coverage.local()
    );
    assert_eq!(
        findings.coverage.missing(Mode::Protected),
        [],
        "forms of the table that were never generated"
    );
}

/// No engine runs 64-bit code yet: the real CPU has to agree with itself and with what holds for every outcome.
#[test]
fn the_real_cpu_agrees_with_itself_about_64_bit_code() {
    let forms = forms::generated(Mode::Bits64);
    let findings = Campaign {
        mode: Mode::Bits64,
        twice: true,
        sides: Vec::new(),
        forms,
        local_share: 25,
        seed: SEED,
        cases: 20_000,
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        reports: 3,
    }
    .run()
    .unwrap_or_else(|error| panic!("64-bit code: {error}"));
    report(&format!(
        "64-bit code: seed {SEED:#x}, {} cases twice, {} mismatches, {} unsteady",
        findings.coverage.cases(),
        findings.mismatches,
        findings.unsteady
    ));
    for mismatch in &findings.reports {
        println!("--- case {}\n{}", mismatch.case, mismatch.report);
    }
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(findings.mismatches, 0);
    assert_eq!(
        findings.coverage.missing(Mode::Bits64),
        [],
        "forms of the table that were never generated"
    );
}

/// Instructions that once disagreed, or that depend on the order of several accesses, get a run of their own.
#[test]
fn delicate_instructions_agree_with_the_real_cpu() {
    let delicate = [
        "Arpl",
        "Cmps",
        "Mov_r32_dr",
        "Mov_dr_r32",
        "Push",
        "Pop",
        "Enter",
        "Leave",
        "Maskmov",
        "Cvt",
        "Fbstp",
        "Fstp",
        "Fld",
        "Fn",
        "Frstor",
        "Fx",
        "Iret",
        "Call",
        "Ret",
        "Bound",
        "Cmpxchg",
        "Div",
        "Idiv",
        "Movs",
        "Stos",
        "Scas",
        "Lods",
    ];
    for name in delicate {
        let chosen: Vec<Code> = forms::generated(Mode::Protected)
            .into_iter()
            .filter(|form| format!("{form:?}").starts_with(name))
            .collect();
        run(name, chosen, 2_000);
    }
}
