//! Which engine runs the guest: the one named, or the best that the host can run.

use clap::ValueEnum;
use sbe::{Engine, VcpuError};

use super::complain;
use crate::vm::VmError;

/// An engine as the user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Code translated from the guest's, page by page; needs a host with BMI2.
    Translator,
    /// The exact one-instruction emulator, the reference; several times slower.
    Emulator,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Translator => Self::Translator,
            EngineName::Emulator => Self::Emulator,
        }
    }
}

/// Starts a machine on the engine that the user named. If none was named, on the default one; where the host cannot run that,
/// on the emulator, and the user is told, since that is slow.
///
/// # Errors
/// Those of `start`.
pub fn choose<M>(
    named: Option<EngineName>,
    start: impl Fn(Engine) -> Result<M, VmError>,
) -> Result<M, VmError> {
    let engine = named.map_or_else(Engine::default, Engine::from);
    match start(engine) {
        Err(VmError::Processor(error @ VcpuError::NoBmi2)) if named.is_none() => {
            complain(&format!(
                "{error}; using the emulator, which is much slower"
            ));
            start(Engine::Emulator)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;

    /// A host without what the translator needs.
    fn old_host(engine: Engine) -> Result<Engine, VmError> {
        match engine {
            Engine::Emulator => Ok(engine),
            Engine::Translator => Err(VcpuError::NoBmi2.into()),
        }
    }

    #[test]
    fn a_capable_host_runs_what_is_named_and_else_the_translator() {
        for (named, chosen) in [
            (None, Engine::Translator),
            (Some(EngineName::Translator), Engine::Translator),
            (Some(EngineName::Emulator), Engine::Emulator),
        ] {
            assert_eq!(choose(named, Ok).unwrap(), chosen);
        }
    }

    #[test]
    fn without_bmi2_the_emulator_runs_unless_the_translator_is_named() {
        assert_eq!(choose(None, old_host).unwrap(), Engine::Emulator);
        assert_eq!(
            choose(Some(EngineName::Emulator), old_host).unwrap(),
            Engine::Emulator
        );
        assert!(matches!(
            choose(Some(EngineName::Translator), old_host),
            Err(VmError::Processor(VcpuError::NoBmi2))
        ));
    }

    #[test]
    fn other_errors_are_no_reason_for_the_emulator() {
        let poor_host = |engine| match engine {
            Engine::Emulator => Ok(engine),
            Engine::Translator => {
                Err(VcpuError::Host(io::Error::from(ErrorKind::OutOfMemory)).into())
            }
        };
        assert!(matches!(
            choose(None, poor_host),
            Err(VmError::Processor(VcpuError::Host(error))) if error.kind() == ErrorKind::OutOfMemory
        ));
    }
}
