//! [`VmConfig`]: the choices that make a machine, and [`Start`]: the beginning of its run.

use sbe::{CpuModel, VcpuConfig};

use crate::{
    kmod::KmodConfig,
    loader::{BootSource, Entry, Mode},
};

/// The choices that make a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// The size of RAM in bytes.
    pub memory: u64,
    /// The processor.
    pub vcpu: VcpuConfig,
    /// The use of the host's kernel module.
    pub kmod: KmodConfig,
}

impl Default for VmConfig {
    /// 256 MiB of RAM, the default processor, and the kernel module where it can be opened.
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            vcpu: VcpuConfig::default(),
            kmod: KmodConfig::default(),
        }
    }
}

/// The beginning of a machine's run.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// A kernel, by the protocol that it is made for.
    Kernel(BootSource<'a>),
    /// A place in one of the ROMs.
    Entry(Entry),
}

impl Start<'_> {
    /// The processor model for it, unless there is reason for another: the default one, or the one with 64-bit mode for a kernel
    /// that needs it.
    pub fn default_model(&self) -> CpuModel {
        match self {
            Self::Kernel(source) if source.kernel.image().mode == Mode::Long => CpuModel::X86_64,
            _ => CpuModel::default(),
        }
    }
}

impl Default for Start<'_> {
    /// The reset vector.
    fn default() -> Self {
        Self::Entry(Entry::default())
    }
}
