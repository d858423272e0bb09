//! [`VcpuState`]: a processor's state as it is saved, with the event that the policy has stopped.

use super::Vcpu;
use crate::cpu::{Cpu, CpuState, CpuStateError};
use crate::emulate::HeldState;
use mmu::MmuState;
use serde::{Deserialize, Serialize};

/// The state of a virtual processor between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// Architectural state.
    pub cpu: CpuState,
    /// Registers of the MMU.
    pub mmu: MmuState,
    /// The event of an [`Exit::Intercept`](super::Exit::Intercept) that the next run has to do with, and what was decided.
    pub held: Option<HeldState>,
}

impl Vcpu {
    /// The processor's state. `host_time_stamp` is as in [`Cpu::save`]. Memory is not part of it; policy, breakpoints and
    /// watchpoints are the owner's.
    pub fn save(&self, host_time_stamp: u64) -> VcpuState {
        VcpuState {
            cpu: self.cpu.save(host_time_stamp),
            mmu: self.mmu.save(),
            held: self.interceptor.save(),
        }
    }

    /// Takes over a saved state; memory is what the MMU has. `host_time_stamp` is as in [`Cpu::restore`].
    ///
    /// # Errors
    /// If a register cannot have its value. The processor is then not to be run.
    pub fn restore(
        &mut self,
        state: &VcpuState,
        host_time_stamp: u64,
    ) -> Result<(), CpuStateError> {
        let cpu = Cpu::restore(&state.cpu, host_time_stamp)?;
        if *self.mmu.model() != cpu.model.paging_model() {
            return Err(CpuStateError {
                field: "model's linear addresses",
                value: cpu.model.paging_model().linear_width.bits().into(),
            });
        }
        if cpu.model.level() != self.cpu.model.level() {
            return Err(CpuStateError {
                field: "model's instructions",
                value: cpu.model as u64,
            });
        }
        self.interceptor.restore(state.held, &cpu)?;
        let paging = cpu.paging();
        let refused = CpuStateError {
            field: "PDPTE",
            value: state
                .mmu
                .invalid_pdpte(self.mmu.model())
                .unwrap_or_default(),
        };
        self.mmu.restore(paging, &state.mmu).map_err(|_| refused)?;
        self.cpu = cpu;
        self.undelivered.clear();
        Ok(())
    }
}
