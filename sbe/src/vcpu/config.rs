//! [`VcpuConfig`]: the choices that make a processor.

use crate::cpu::model::CpuModel;
use crate::translate::{Windows, are_windows_possible};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// The engine that executes guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The exact one-instruction emulator, the reference; several times slower than the translator.
    Emulator,
    /// Host code translated from the guest's, with the emulator for rare instructions. Needs a host with BMI2.
    #[default]
    Translator,
}

/// The choices that make a processor. Those about translated code mean nothing to the emulator, except for `jitdump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuConfig {
    /// The processor model that CPUID announces.
    pub model: CpuModel,
    /// The engine that executes guest code.
    pub engine: Engine,
    /// The capacity of the cache for translated code, in bytes: one of [`crate::CODE_CACHES`].
    pub code_cache: usize,
    /// The choice of the guest's address spaces that get windows.
    pub windows: Windows,
    /// Whether all translated code is checked before it runs. Code that could let the guest out ends the run with
    /// [`crate::Exit::Internal`].
    pub verify_code: bool,
    /// Whether the translator keeps what [`crate::Vcpu::dump_code`] needs.
    pub record_code: bool,
    /// Whether the time spent in translated code is measured, for [`crate::TranslationStats::executing`].
    pub measure_code: bool,
    /// The folder for `jit-PID.dump`, the file by which `perf` names translated code; `None` writes no such file.
    pub jitdump: Option<PathBuf>,
}

impl Default for VcpuConfig {
    /// The translator with 32 MiB of code, windows where they pay, and nothing checked, recorded or measured.
    fn default() -> Self {
        Self {
            model: CpuModel::default(),
            engine: Engine::default(),
            code_cache: 32 << 20,
            windows: Windows::default(),
            verify_code: false,
            record_code: false,
            measure_code: false,
            jitdump: None,
        }
    }
}

impl VcpuConfig {
    /// Checks that such a processor can have windows on this host.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn check_windows(&self) -> Result<(), NoWindows> {
        match (self.engine, self.windows) {
            (Engine::Emulator, _) => Err(NoWindows::Emulator),
            (Engine::Translator, Windows::Never) => Err(NoWindows::Never),
            (Engine::Translator, _) if !are_windows_possible() => Err(NoWindows::Host),
            (Engine::Translator, _) => Ok(()),
        }
    }
}

/// The reason why a processor has no windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoWindows {
    /// The engine is the emulator.
    #[error("the emulator runs the guest")]
    Emulator,
    /// No address space is to get one.
    #[error("windows are never to be used")]
    Never,
    /// The host does not let a process set the base of GS, or handle SIGSEGV.
    #[error("the host does not let programs set GS's base")]
    Host,
}

/// The reason why a processor could not be made.
#[derive(Debug, Error)]
pub enum VcpuError {
    /// The host's processor lacks BMI2, which translated code uses.
    #[error("the translator needs a processor with BMI2")]
    NoBmi2,
    /// The host does not let SIGSEGV be handled, which translated code of 64-bit processors relies on.
    #[error("the translator cannot handle SIGSEGV, as 64-bit processors need it")]
    NoFaults,
    /// The host's processor lacks instructions that the model announces.
    #[error("model {model} needs a host with {extension}")]
    Missing {
        /// The name of the model.
        model: &'static str,
        /// The extension that is missing.
        extension: &'static str,
    },
    /// The MMU is not of the model's kind ([`CpuModel::paging_model`]).
    #[error("the MMU is that of another model")]
    OtherMmu,
    /// The host did not grant memory for code, or [`VcpuConfig::code_cache`] is out of range.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// The file for `perf` could not be created, or the engine is the emulator, which has nothing to write to it.
    #[error("jitdump: {0}")]
    Jitdump(io::Error),
}
