//! The finding that matters: whether a guest runs.

use vmm::{
    Engine, Rom, Start, StopReason, VcpuConfig, VcpuError, Vm, VmConfig, VmError, console::pipe,
};

use super::Finding;

const NAME: &str = "guest code";

/// The status with which the guest ends.
const STATUS: u8 = 42;

/// Runs a guest of two instructions on a machine of the default size.
pub fn finding() -> Finding {
    match run(Engine::Translator) {
        Ok(()) => Finding::ok(NAME, "runs, translated"),
        Err(Failure::Machine(VmError::Processor(VcpuError::NoBmi2))) => {
            match run(Engine::Emulator) {
                Ok(()) => Finding::limited(
                    NAME,
                    "runs on the emulator, many times slower than translated",
                ),
                Err(failure) => Finding::missing(NAME, failure.text()),
            }
        }
        Err(failure) => Finding::missing(NAME, failure.text()),
    }
}

/// Why the guest has not run.
enum Failure {
    Machine(VmError),
    Stop(String),
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Machine(error) => format!("no machine: {error}"),
            Self::Stop(reason) => format!("a guest of two instructions ends otherwise: {reason}"),
        }
    }
}

fn run(engine: Engine) -> Result<(), Failure> {
    let config = VmConfig {
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let rom = Rom {
        address: 0xffff_fff0,
        // mov al, STATUS; out 0xf4, al
        bytes: &[0xb0, STATUS, 0xe6, 0xf4],
    };
    let mut vm = Vm::power_on(&config, &[rom], &Start::default()).map_err(Failure::Machine)?;
    let (mut line, _) = pipe().map_err(|error| Failure::Stop(error.to_string()))?;
    match vm.run(&mut line) {
        StopReason::DebugExit(STATUS) => Ok(()),
        stop => Err(Failure::Stop(stop.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn the_guest_runs_where_the_tests_run() {
        assert_ne!(finding().state, State::Missing, "{}", finding());
        assert!(run(Engine::Emulator).is_ok());
    }
}
