//! Tests of the translator's in the virtual machine: their windows are the module's.

use ::tests::built;

use super::machine::{Clock, Machine, Purpose};
use super::steps::{self, Steps};

/// Environment variable with the tests that [`tests_of_choice_pass_with_the_module`] runs: a test program of this package, and
/// arguments for it.
const TESTS: &str = "REPLEX_KMOD_TESTS";
const DEFAULT: &str = "stress";

/// The beginning of the names of variables that the tests get, too.
const HANDED_ON: &str = "REPLEX_TORTURE_";

/// Tests of `stress` that have windows and do not take long.
const QUICK: [&str; 2] = [
    "stress control_flow::narrow::random_programs_of_users_in_several_spaces_end_the_same",
    "stress links::narrow",
];

/// Runs commands, each a test program of this package with its arguments, and fails unless all tests pass.
fn pass(commands: &[&str]) {
    let machine = Machine {
        clock: Clock::Host,
        purpose: Purpose::Replex,
    };
    let variables = std::env::vars().filter(|(name, _)| name.starts_with(HANDED_ON));
    let mut script: String = variables
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    script += "export REPLEX_TESTS_IN_VM=1\n";
    let numbered = || commands.iter().enumerate();
    for (number, command) in numbered() {
        script += &format!("step {number} {command} --color never\n");
    }
    let report = super::run(machine, |_, _, initramfs| {
        for command in commands {
            let program = command.split(' ').next().unwrap_or_default();
            initramfs.program(&format!("bin/{program}"), &built::test(program));
        }
        initramfs.script("bin/test", &steps::script(&script));
    });
    let Some(report) = report else { return };
    let steps = Steps::parse(&report.printed);
    for (number, command) in numbered() {
        let step = steps.get(&number.to_string());
        ::tests::report::report(&format!("{command}:\n{}", step.printed.trim()));
        assert_eq!(step.status, Some(0), "{command}");
        assert!(!step.printed.contains(" 0 passed"), "{command}: no test");
    }
}

#[test]
fn the_translator_passes_with_the_module() {
    pass(&QUICK);
}

#[test]
#[ignore = "long: see the head of kmod/main.rs"]
fn tests_of_choice_pass_with_the_module() {
    let tests = std::env::var(TESTS).unwrap_or_else(|_| DEFAULT.to_owned());
    pass(&[&tests]);
}
