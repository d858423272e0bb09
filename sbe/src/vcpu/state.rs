//! [`VcpuState`]: a processor's state as it is saved, with the event that the policy has stopped.

use super::Vcpu;
use crate::cpu::{Cpu, CpuState, CpuStateError};
use crate::emulate::HeldState;
use serde::{Deserialize, Serialize};

/// The state of a virtual processor between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// Architectural state.
    pub cpu: CpuState,
    /// The event of an [`Exit::Intercept`](super::Exit::Intercept) that the next run has to do with, and what was decided.
    pub held: Option<HeldState>,
}

impl Vcpu {
    /// The processor's state. `host_time_stamp` is as in [`Cpu::save`]. Memory and the PDPTE registers are the MMU's; policy,
    /// breakpoints and watchpoints are its owner's.
    pub fn save(&self, host_time_stamp: u64) -> VcpuState {
        VcpuState {
            cpu: self.cpu.save(host_time_stamp),
            held: self.interceptor.save(),
        }
    }

    /// Takes over a saved state. `host_time_stamp` is as in [`Cpu::restore`]. Memory and the PDPTE registers are those that the
    /// MMU has; its other paging registers follow the processor's.
    ///
    /// # Errors
    /// As [`Cpu::restore`]; nothing has changed.
    pub fn restore(
        &mut self,
        state: &VcpuState,
        host_time_stamp: u64,
    ) -> Result<(), CpuStateError> {
        let cpu = Cpu::restore(&state.cpu, host_time_stamp)?;
        self.interceptor.restore(state.held, &cpu)?;
        self.cpu = cpu;
        self.mmu.set_paging(self.cpu.paging());
        self.mmu.flush_all();
        Ok(())
    }
}
