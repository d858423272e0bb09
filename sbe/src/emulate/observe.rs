//! Reports of what the processor does to the bus, while somebody observes it.
//!
//! All reports pass here, whichever engine runs: the translator leaves to the emulator the instructions that call these functions
//! (`translate/classify.rs`). Where a function takes the `length` of an instruction, EIP is past that; else it is 0.

use super::event::Event;
use super::exec::Exec;
use crate::cpu::control::ControlRegister;
use crate::cpu::segment::SegReg;
use crate::guest_event::GuestEvent;
use crate::observation::{ControlWrite, Direction, Observation, PortAccess};
use crate::width::Width;

impl Exec<'_> {
    /// CS and EIP of the instruction of `length` bytes before EIP.
    fn place(&self, length: u8) -> (u16, u64) {
        let cs = self.cpu.seg(SegReg::Cs).selector.0;
        (cs, self.cpu.eip_before(length))
    }

    /// The event as observers and the policy see it.
    pub fn describe(&self, event: Event, length: u8) -> GuestEvent {
        event.seen_at(self.place(length))
    }

    /// Reports an event that is about to be delivered.
    pub fn observe_event(&mut self, event: GuestEvent) {
        if self.interceptor.is_observed() {
            self.bus.observe(&Observation::Event(event));
        }
    }

    /// Reports that `register`, which held `old`, has been written.
    pub fn observe_control(&mut self, register: ControlRegister, old: u64, length: u8) {
        if !self.interceptor.is_observed() {
            return;
        }
        let (cs, eip) = self.place(length);
        self.bus.observe(&Observation::Control(ControlWrite {
            register,
            old,
            new: self.cpu.control_register(register),
            cs,
            eip,
        }));
    }

    /// Reports that a port has been read or written. `value` has no bits above `width`.
    pub fn observe_port(
        &mut self,
        direction: Direction,
        port: u16,
        (width, value): (Width, u32),
        length: u8,
    ) {
        if !self.interceptor.is_observed() {
            return;
        }
        let (cs, eip) = self.place(length);
        self.bus.observe(&Observation::Port(PortAccess {
            direction,
            port,
            width,
            value,
            cs,
            eip,
        }));
    }
}
