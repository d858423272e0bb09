//! [`VmState`]: a machine as plain data, to be moved into another [`Vm`] in this process or another.
//!
//! ```text
//!   Vm::save ──► VmState, serde's ──► Vm::restore
//!   Vm::memory ──► Memory::file, a memfd ──────┘
//! ```
//!
//! Saved is what the guest can observe: processors, devices, the time, and the map of memory. The bytes of memory stay in
//! their file, which goes along. What is derived (translations, TLB), what was counted, and what the owner has asked for
//! (breakpoints, policy, trace, the console) is not saved.

use std::fs::File;

use mmu::{Memory, MemoryError, MemoryState};
use sbe::{
    VcpuState,
    cpu::{CpuStateError, host_time_stamp},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    board::{BoardState, BoardStateError},
    bus::{AttachError, Device, Resources},
    vm::{Vm, VmConfig, VmError},
};

/// The state of a machine that stands still.
///
/// ```
/// use vmm::{BootSource, Kernel, StopReason, Vm, VmConfig, VmState, console::pipe};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = Kernel::flat(vec![
///     0xb0, 42, // mov al, 42
///     0xe6, 0xf4, // out F4h, al  ; ends the machine
/// ]);
/// let source = BootSource {
///     kernel: &kernel,
///     initrd: &[],
///     cmdline: "",
/// };
/// let config = VmConfig::default();
/// let mut vm = Vm::boot(&config, &source)?;
/// let (mut line, _) = pipe()?;
/// vm.step(&mut line);
/// let state = postcard::to_stdvec(&vm.save()?)?;
/// let memory = vm.memory().file().try_clone()?;
/// drop(vm);
///
/// // Here, or in a process that has been given the bytes and the file descriptor:
/// let state: VmState = postcard::from_bytes(&state)?;
/// let mut vm = Vm::restore(&config, state, memory, Vec::new())?;
/// assert!(matches!(vm.run(&mut line), StopReason::DebugExit(42)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmState {
    memory: MemoryState,
    vcpus: Vec<VcpuState>,
    board: BoardState,
    swallowed: Option<u8>,
}

/// The reason why a machine was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The file is no guest memory, or the map of it is none.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host did not grant what a machine needs.
    #[error(transparent)]
    Host(#[from] VmError),
    /// The state has another number of processors than one.
    #[error("a machine has one processor, not {0}")]
    Processors(usize),
    /// A processor cannot have this state.
    #[error(transparent)]
    Processor(#[from] CpuStateError),
    /// A device of the caller's has no place.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The board cannot have this state.
    #[error(transparent)]
    Board(#[from] BoardStateError),
}

impl Vm {
    /// The state of the machine, which stands still between two runs. The bytes of its memory are those of
    /// [`Memory::file`].
    ///
    /// # Errors
    /// If a device cannot be saved.
    pub fn save(&self) -> Result<VmState, BoardStateError> {
        let time_stamp = host_time_stamp();
        Ok(VmState {
            memory: self.memory().save(),
            vcpus: self.vcpus().map(|vcpu| vcpu.save(time_stamp)).collect(),
            board: self.board().save()?,
            swallowed: self.swallowed(),
        })
    }

    /// Makes a machine that goes on where another was saved. `memory` is the file of its memory, which the other does not use
    /// any more; `devices` are those of the caller that were attached to it. A PC's devices that had been detached are left
    /// out. The configuration may name another engine; the size of memory and the processor's model are those of the state.
    /// To the guest no time has passed.
    ///
    /// # Errors
    /// See [`RestoreError`]: the state may have come from anywhere.
    pub fn restore(
        config: &VmConfig,
        state: VmState,
        memory: File,
        devices: Vec<(Resources, Box<dyn Device>)>,
    ) -> Result<Self, RestoreError> {
        let [processor] = state.vcpus.as_slice() else {
            return Err(RestoreError::Processors(state.vcpus.len()));
        };
        let width = processor.cpu.model.paging_model().linear_width;
        let memory = Memory::restore(state.memory, memory, width)?;
        let mut config = config.clone();
        config.vcpu.model = processor.cpu.model;
        let mut vcpu = Self::processor(&config, &memory)?;
        vcpu.restore(processor, host_time_stamp())?;
        let mut vm = Self::new(memory, vcpu)?;
        for name in vm.board().device_names() {
            let replaced = devices.iter().any(|(resources, _)| resources.name == name);
            if replaced || !state.board.has_device(&name) {
                vm.detach(&name);
            }
        }
        for (resources, device) in devices {
            vm.attach_boxed(&resources, device)?;
        }
        vm.restore_board(state.board, state.swallowed)?;
        Ok(vm)
    }
}
