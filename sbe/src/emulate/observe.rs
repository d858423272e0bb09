//! Telling the bus what happens, while somebody observes the processor.
//!
//! All that is told of passes here, whichever engine runs: the translator leaves to the emulator what these functions are called
//! for (`translate/classify.rs`). Where a function takes the `length` of an instruction, EIP is past that; else it is 0.

use super::exec::Exec;
use super::interrupt::Event;
use crate::bus::Width;
use crate::cpu::control::ControlRegister;
use crate::cpu::segment::SegReg;
use crate::guest_event::GuestEvent;
use crate::observation::{ControlWrite, Direction, Observation, PortAccess};
use mmu::LinearAddr;

impl Exec<'_> {
    /// CS and EIP of the instruction of `length` bytes before EIP.
    fn place(&self, length: u8) -> (u16, u32) {
        let cs = self.cpu.seg(SegReg::Cs).selector.0;
        (cs, self.cpu.eip.wrapping_sub(length.into()))
    }

    /// `event` as those see it who watch.
    pub fn describe(&self, event: Event, length: u8) -> GuestEvent {
        let (cs, eip) = self.place(length);
        GuestEvent {
            vector: event.vector(),
            source: event.source(),
            error_code: event.error_code(),
            cr2: event.fault_address().map(LinearAddr::from),
            cs,
            eip,
        }
    }

    /// `event` is about to be delivered.
    pub fn observe_event(&mut self, event: GuestEvent) {
        if self.interceptor.is_observed() {
            self.bus.observe(&Observation::Event(event));
        }
    }

    /// `register`, which held `old`, has been written.
    pub fn observe_control(&mut self, register: ControlRegister, old: u32, length: u8) {
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

    /// A port has been read or written. `value` has no bits above `width`.
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
