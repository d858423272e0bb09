//! [`Exec`]: the processor, its memory and its surroundings, on which handlers work.

use super::interceptor::Interceptor;
use crate::bus::Bus;
use crate::cpu::control::{CR0_AM, DR7_ENABLES};
use crate::cpu::{Cpu, Pending, eflags};
use crate::debugger::Debugger;
use crate::decode::Insn;
use crate::fault::Fault;
use crate::guest_event::GuestEvent;
use crate::host_fpu::HostFpu;
use mmu::Mmu;

/// A function that executes one instruction form.
pub type Handler = fn(&mut Exec<'_>, &Insn) -> Result<(), Fault>;

/// The processor's state, its memory and its surroundings, while instructions execute.
pub struct Exec<'a> {
    /// Architectural state.
    pub cpu: &'a mut Cpu,
    /// Memory as the processor addresses it.
    pub mmu: &'a mut Mmu,
    /// Ports, devices, interrupt pins.
    pub bus: &'a mut dyn Bus,
    /// The host's FPU, on which x87, MMX and SSE instructions execute.
    pub host: &'a mut HostFpu,
    /// The interceptor, which is asked before an event is delivered.
    pub interceptor: &'a mut Interceptor,
    /// The events whose delivery has failed since one succeeded: what led to a triple fault, if it comes to that.
    pub undelivered: &'a mut Vec<GuestEvent>,
    /// Breakpoints and watchpoints.
    pub debugger: &'a mut Debugger,
}

impl Exec<'_> {
    /// Samples INTR and the request to stop, after an access that may have changed them, and takes notice of stores of devices.
    pub fn sample_bus(&mut self) {
        self.snoop();
        let pending = &mut self.cpu.pending;
        if self.bus.intr() {
            pending.set(Pending::INTR);
        } else {
            pending.clear(Pending::INTR);
        }
        if self.bus.stop_requested() {
            pending.set(Pending::STOP);
        }
    }

    /// Takes notice of what others than the processor have stored; stores of devices hit watchpoints, too.
    pub fn snoop(&mut self) {
        self.mmu.snoop();
        if self.cpu.pending.has(Pending::WATCH) {
            for store in self.mmu.take_stores() {
                self.debugger.stored(&store, self.mmu);
            }
        }
    }

    /// Changes the current privilege level.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpu.cpl = cpl;
        self.cpu.pending.set(Pending::REFETCH);
        self.update_access_checks();
    }

    /// Replaces EFLAGS by `value`, fixed bits forced.
    pub fn set_eflags(&mut self, value: u32) {
        self.cpu.eflags = value & eflags::DEFINED | eflags::FIXED;
        self.update_access_checks();
    }

    /// Works out whether memory accesses must be checked for alignment and breakpoints.
    pub fn update_access_checks(&mut self) {
        let cpu = &mut *self.cpu;
        let align = cpu.cr0 & CR0_AM != 0 && cpu.eflags & eflags::AC != 0 && cpu.cpl == 3;
        let watch = cpu.dr[7] & DR7_ENABLES != 0;
        for (wanted, bit) in [(align, Pending::ALIGN), (watch, Pending::DEBUG)] {
            if wanted {
                cpu.pending.set(bit);
            } else {
                cpu.pending.clear(bit);
            }
        }
    }

    /// Hands the paging registers to the MMU. Cached translations stay: the caller flushes what the manual says
    /// (SDM Vol. 3A, 4.10.4 "Invalidation of TLBs and Paging-Structure Caches").
    pub fn update_paging(&mut self) {
        self.mmu.set_paging(self.cpu.paging());
        self.cpu.pending.set(Pending::REFETCH);
    }
}
