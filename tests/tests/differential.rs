//! The engines against the real CPU, at a size for every `cargo test`; `cargo run --release -p tests --bin differential`
//! runs as many cases as one likes.

use iced_x86::Code;
use tests::differential::campaign::{Campaign, Findings};
use tests::differential::forms;
use tests::differential::machine::Side;
use tests::differential::mode::Mode;
use tests::report::report;

/// The seed of these runs, one with which the cases of 64-bit code meet all that [`strange`](tests::differential::strange) asks for.
const SEED: u64 = 0x1a33;

/// The engines that `mode` is compared with; there are no windows for 32-bit code on 64-bit processors.
fn sides(mode: Mode) -> Vec<Side> {
    match mode {
        Mode::Protected | Mode::Bits64 => vec![Side::Emulator, Side::Tables, Side::Windows],
        Mode::Compatibility => vec![Side::Emulator, Side::Tables],
    }
}

/// Runs `cases` cases of `mode` over `forms`, prints what was found, and fails on any disagreement.
fn run(mode: Mode, what: &str, forms: Vec<Code>, cases: u64) -> Findings {
    assert!(!forms.is_empty(), "no form called {what}");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let findings = Campaign {
        mode,
        twice: false,
        sides: sides(mode),
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
    let findings = run(
        Mode::Protected,
        "all forms",
        forms::generated(Mode::Protected),
        20_000,
    );
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

#[test]
fn the_engines_agree_with_the_real_cpu_about_64_bit_code() {
    let mode = Mode::Bits64;
    let findings = run(mode, "64-bit code", forms::generated(mode), 30_000);
    assert_eq!(findings.coverage.missing(mode), []);
    let strange = findings.coverage.strange();
    assert_eq!(strange.missing(), [] as [&str; 0], "{strange}");
}

#[test]
fn the_engines_agree_with_the_real_cpu_about_compatibility_mode() {
    let mode = Mode::Compatibility;
    let findings = run(mode, "compatibility mode", forms::generated(mode), 20_000);
    assert_eq!(findings.coverage.missing(mode), []);
    let local = findings.coverage.local();
    assert!(local.code16 > 500 && local.stack16 > 500, "{local}");
}

/// XLAT adds AL to the address of its table, so that it may access memory behind the end of what is not canonical.
#[test]
fn the_engines_agree_with_the_real_cpu_about_tables_of_xlat() {
    run(Mode::Bits64, "Xlat", vec![Code::Xlat_m8], 20_000);
}

/// The answers of the real CPU to 64-bit code have to agree with what holds for every outcome, and with each other.
#[test]
fn the_real_cpu_agrees_with_itself_about_64_bit_code() {
    let findings = Campaign {
        mode: Mode::Bits64,
        twice: true,
        sides: Vec::new(),
        forms: forms::generated(Mode::Bits64),
        local_share: 25,
        seed: SEED,
        cases: 5_000,
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        reports: 3,
    }
    .run()
    .unwrap_or_else(|error| panic!("64-bit code: {error}"));
    for mismatch in &findings.reports {
        println!("--- case {}\n{}", mismatch.case, mismatch.report);
    }
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert_eq!(findings.mismatches, 0);
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
    for mode in [Mode::Protected, Mode::Bits64] {
        for name in delicate {
            let chosen: Vec<Code> = forms::generated(mode)
                .into_iter()
                .filter(|form| format!("{form:?}").starts_with(name))
                .collect();
            // 64-bit mode has no ARPL, BOUND and the like.
            if mode == Mode::Protected || !chosen.is_empty() {
                run(mode, name, chosen, 2_000);
            }
        }
    }
}
