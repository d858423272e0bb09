//! The host's kernel module, which fills windows in the host's page-fault handler: whether a machine uses it, and what it did.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use log::{debug, warn};
use mmu::{Kmod, KmodError, KmodStats, Memory};
use sbe::{NoWindows, VcpuConfig};
use thiserror::Error;

/// The target of what is logged about the module.
pub const LOG_TARGET: &str = "kmod";

/// The choice whether the host's kernel module is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KmodUse {
    /// Uses the module where its device can be opened.
    #[default]
    Auto,
    /// Uses windows without the module.
    Off,
    /// Makes no machine without the module.
    Require,
}

impl KmodUse {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Off, Self::Require];
}

impl fmt::Display for KmodUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Require => "require",
        })
    }
}

impl FromStr for KmodUse {
    type Err = UnknownKmodUse;

    fn from_str(text: &str) -> Result<Self, UnknownKmodUse> {
        let named = Self::ALL
            .into_iter()
            .find(|choice| choice.to_string() == text);
        named.ok_or(UnknownKmodUse)
    }
}

/// A word that is not a choice of [`KmodUse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is one of auto, off and require")]
pub struct UnknownKmodUse;

/// The reason why a machine that requires the host's kernel module cannot be made.
#[derive(Debug, Error)]
pub enum KmodRefusal {
    /// The module is not there or cannot be used.
    #[error(transparent)]
    Unusable(KmodError),
    /// The processor has no use for it.
    #[error("the kernel module fills windows, and there are none: {0}")]
    NoWindows(NoWindows),
}

/// The choices about the host's kernel module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmodConfig {
    /// Whether the module is used.
    pub usage: KmodUse,
    /// The path of its device.
    pub device: PathBuf,
}

impl Default for KmodConfig {
    /// `/dev/replex`, where it can be opened.
    fn default() -> Self {
        Self {
            usage: KmodUse::default(),
            device: Kmod::PATH.into(),
        }
    }
}

/// The shadow in which programs have windows on guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ShadowStats {
    /// Mappings of the RAM's memfd.
    #[default]
    Mmap,
    /// Windows of the host's kernel module, with its counts, or the reason why they are not known.
    Kmod(Result<KmodStats, String>),
}

impl ShadowStats {
    /// The shadow of the machine that has opened `kmod`, if it has.
    pub(crate) fn new(kmod: Option<&Kmod>) -> Self {
        kmod.map_or(Self::Mmap, |kmod| {
            Self::Kmod(kmod.stats().map_err(|error| error.to_string()))
        })
    }
}

impl fmt::Display for ShadowStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = match self {
            Self::Mmap => return f.write_str("mmap"),
            Self::Kmod(Err(reason)) => return write!(f, "kmod: counts unknown: {reason}"),
            Self::Kmod(Ok(stats)) => stats,
        };
        let KmodStats {
            faults,
            around,
            upgrades,
            empty,
            absent,
            refused,
            zaps,
            held,
        } = stats;
        write!(
            f,
            "kmod: {faults} faults, {around} around, {upgrades} upgrades, {empty} empty, {absent} absent, {refused} refused, {zaps} zaps, {held} held"
        )
    }
}

/// Opens the module's device for a machine with this memory, as `config` says and if the processor can use it.
///
/// # Errors
/// If the module is required and cannot be used.
pub(crate) fn open(
    config: &KmodConfig,
    vcpu: &VcpuConfig,
    memory: &Memory,
) -> Result<Option<Arc<Kmod>>, KmodRefusal> {
    let required = match config.usage {
        KmodUse::Off => return Ok(None),
        KmodUse::Auto => false,
        KmodUse::Require => true,
    };
    match vcpu.check_windows() {
        Err(reason) if required => return Err(KmodRefusal::NoWindows(reason)),
        Err(_) => return Ok(None),
        Ok(()) => {}
    }
    match Kmod::open(&config.device, memory) {
        Ok(kmod) => Ok(Some(kmod)),
        Err(error) if required => Err(KmodRefusal::Unusable(error)),
        Err(error) if error.is_absent() => {
            debug!(target: LOG_TARGET, "{error}");
            Ok(None)
        }
        Err(error) => {
            warn!(target: LOG_TARGET, "{error}; going on without it");
            Ok(None)
        }
    }
}
