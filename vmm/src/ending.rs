//! [`Ending`]: how a machine has ended, told from the state in which the guest leaves it.
//!
//! A PC has no register that says why it was halted or reset, and its guests have no ACPI. But an operating system that ends in
//! good order puts its interrupt controllers to rest first: when Linux halts, powers off or restarts, `i8259A_shutdown` masks all
//! lines of both 8259As, and then nothing unmasks one (arch/x86/kernel/i8259.c; kernel/reboot.c, `syscore_shutdown`). One that
//! crashes or hangs does not.
//!
//! | the guest | 8259As initialized, all lines masked | otherwise |
//! |---|---|---|
//! | executes HLT with interrupts disabled | power-off | halted: it hangs |
//! | resets the machine | reboot | panic, if interrupts are disabled, a line is unmasked and the mark is there; else reboot |
//! | executes INT n with an IDT of limit 0 | as a reset | as a reset |
//! | shuts down otherwise | triple fault | triple fault |
//!
//! The *mark* is 0x1234, the request for a warm reset, in the BIOS data area's word at 0x472. Linux, which is started with
//! `reboot=panic_warm`, leaves it when it panics, and whenever it resets if the user has added `reboot=warm`; the masks then tell a
//! restart from a panic. INT3 without an IDT is the reset of `reboot=triple`.
//!
//! Not told apart: the emergency restart by SysRq, which also omits `syscore_shutdown`, counts as a panic if the user has added
//! `reboot=warm`; a panic counts as a reboot with `reboot=panic_cold`, or before the 8259As are initialized; another system's reset
//! counts as a panic if it leaves all that a panic leaves; a guest that hangs with all lines masked counts as powered off.

use mmu::{GuestPhys, Memory};
use sbe::{
    CodeAddress, EventSource, TripleFault,
    cpu::{Cpu, eflags},
};

use crate::stop::StopReason;

/// The state in which the guest leaves the machine.
pub struct Ending<'m> {
    /// The processor that ended it.
    pub cpu: &'m Cpu,
    /// The masks of the 8259A pair; `None` until both chips are initialized.
    pub masks: Option<u16>,
    /// The guest's memory.
    pub memory: &'m Memory,
}

const ALL_MASKED: u16 = 0xffff;
/// The word of the BIOS data area that says what kind of reset is wanted.
const BDA_RESET_FLAG: GuestPhys = GuestPhys::new(0x472);
const WARM_RESET: u16 = 0x1234;
/// The length of HLT in bytes. A halted processor's EIP is behind it.
const HLT_LENGTH: u8 = 1;

impl Ending<'_> {
    /// The end by HLT with interrupts disabled.
    pub fn by_halt(&self) -> StopReason {
        match self.masks {
            Some(ALL_MASKED) => StopReason::PowerOff,
            _ => {
                let hlt = self.cpu.eip_before(HLT_LENGTH);
                StopReason::Halted(CodeAddress::of(self.cpu, hlt))
            }
        }
    }

    /// The end by a reset.
    pub fn by_reset(&self) -> StopReason {
        let has_unmasked = self.masks.is_some_and(|masks| masks != ALL_MASKED);
        let is_marked = self.memory.load::<u16>(BDA_RESET_FLAG) == Ok(WARM_RESET);
        match has_unmasked && is_marked && self.cpu.eflags & eflags::IF == 0 {
            true => StopReason::Panic,
            false => StopReason::Reboot,
        }
    }

    /// The end by shutdown of the processor.
    pub fn by_shutdown(&self, fault: TripleFault) -> StopReason {
        let first = fault.events.first();
        let is_called = first.is_some_and(|event| event.source == EventSource::Software);
        match is_called && self.cpu.idtr.limit == 0 {
            true => self.by_reset(),
            false => StopReason::TripleFault(fault),
        }
    }
}
