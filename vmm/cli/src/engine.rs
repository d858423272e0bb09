//! The choice of the engine: the one that the user names, or the best that the host can run.

use clap::{
    ValueEnum,
    builder::{EnumValueParser, TypedValueParser},
};
use vmm::{Engine, VcpuError, VmError};

use crate::message::complain;

/// An engine's name on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Code translated from the guest's, page by page; needs a host with BMI2.
    Translator,
    /// The exact one-instruction emulator, the reference; several times slower.
    Emulator,
}

impl From<Name> for Engine {
    fn from(name: Name) -> Self {
        match name {
            Name::Translator => Self::Translator,
            Name::Emulator => Self::Emulator,
        }
    }
}

/// Returns the parser of `--engine`.
pub fn parser() -> impl TypedValueParser<Value = Engine> {
    EnumValueParser::<Name>::new().map(Engine::from)
}

/// Starts a machine on the engine that the user named, or else on the default one. If the host cannot run the default one, the
/// emulator takes its place, and the user is told, since it is slow.
///
/// # Errors
/// The errors of `start`.
pub fn choose<M>(
    named: Option<Engine>,
    start: impl Fn(Engine) -> Result<M, VmError>,
) -> Result<M, VmError> {
    let engine = named.unwrap_or_default();
    match start(engine) {
        Err(VmError::Processor(error @ (VcpuError::NoBmi2 | VcpuError::NoFaults)))
            if named.is_none() =>
        {
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
            (Some(Engine::Translator), Engine::Translator),
            (Some(Engine::Emulator), Engine::Emulator),
        ] {
            assert_eq!(choose(named, Ok).unwrap(), chosen);
        }
    }

    #[test]
    fn without_bmi2_the_emulator_runs_unless_the_translator_is_named() {
        assert_eq!(choose(None, old_host).unwrap(), Engine::Emulator);
        assert_eq!(
            choose(Some(Engine::Emulator), old_host).unwrap(),
            Engine::Emulator
        );
        assert!(matches!(
            choose(Some(Engine::Translator), old_host),
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
