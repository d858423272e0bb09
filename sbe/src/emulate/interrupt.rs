//! Delivering interrupts and exceptions (SDM Vol. 3A, chapter 6 "Interrupt and Exception Handling"; Vol. 2A, "INT n").
//!
//! ```text
//!   handler faults ─► raise ──┬─► policy ─► enter ─► gate ─┬─► interrupt or trap gate: frame on the same or an inner stack
//!   INTR, NMI, INT n ─► deliver ┘             │            ├─► task gate: task switch
//!                                             │            ├─► IA-32e mode: 64-bit gate, stack aligned, often from the TSS
//!                                             │            └─► real-address mode: vector table
//!                                             └─ faults ─► raise again, as a double fault, or shutdown (double_fault.rs)
//! ```
//!
//! The policy (intercept.rs) is asked about each event by itself, those raised during a delivery too.
//!
//! A delivery that faults has changed nothing, unless the fault came after a task switch: then it belongs to the new task.

use super::double_fault::{self, Verdict};
use super::event::Event;
use super::exec::Exec;
use super::task::SwitchFault;
use super::transfer_stack::TransferStack;
use crate::cpu::Pending;
use crate::cpu::control::{DR6_BD, DR7_GD};
use crate::cpu::eflags::{AC, IF, OF, RF, TF};
use crate::cpu::segment::{SegReg, Selector};
use crate::decode::Insn;
use crate::fault::{Exception, Fault, Unsupported, Vector};
use mmu::Privilege;

/// Error code bit: the event was not caused by the program itself (SDM Vol. 3A, 6.13 "Error Code").
const ERROR_EXT: u32 = 1 << 0;
/// Bytes of an entry of the real-address mode vector table.
const REAL_VECTOR_BYTES: u32 = 4;

/// Number of exceptions in a row, each raised during the delivery of the one before, that is taken for endless: for example #AC
/// at ring 3 on a misaligned stack of ring 3. A processor would be stuck until RESET.
const MAX_NESTED: u32 = 16;

/// Adds EXT to the error code of a selector fault.
fn from_outside(fault: Fault) -> Fault {
    use Vector::{GeneralProtection, InvalidTss, SegmentNotPresent, StackFault};
    match fault {
        Fault::Exception(Exception {
            vector: vector @ (InvalidTss | SegmentNotPresent | StackFault | GeneralProtection),
            code: Some(code),
            ..
        }) => Fault::Exception(Exception::with_code(vector, u32::from(code) | ERROR_EXT)),
        other => other,
    }
}

impl Exec<'_> {
    /// Raises an exception that an instruction returned as a fault, EIP being that instruction's. Faults on the way are
    /// raised in turn, as a double fault where the manual says so.
    ///
    /// # Errors
    /// [`Fault::Shutdown`] on a triple fault, [`Fault::Intercepted`] where the policy says so.
    pub fn raise(&mut self, exception: Exception) -> Result<(), Fault> {
        self.raise_event(Event::Fault(exception))
    }

    /// Raises #DB for the conditions `dr6_bits`, which are added to DR6. EIP is where the handler returns to; general
    /// detect is a fault, the others are traps or instruction breakpoints.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn raise_debug(&mut self, dr6_bits: u64) -> Result<(), Fault> {
        self.cpu.dr[6] |= dr6_bits;
        let exception = Exception::plain(Vector::Debug);
        self.raise_event(if dr6_bits & DR6_BD != 0 {
            Event::Fault(exception)
        } else {
            Event::Trap(exception)
        })
    }

    fn raise_event(&mut self, event: Event) -> Result<(), Fault> {
        self.consult(event, 0)?;
        self.raise_admitted(event)
    }

    /// Raises the exception `event`, about which the policy has been asked.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn raise_admitted(&mut self, event: Event) -> Result<(), Fault> {
        let mut event = event;
        for _ in 0..MAX_NESTED {
            self.latch_fault_address(event.fault_address());
            let next = match self.enter(event).map_err(Fault::from) {
                Err(Fault::Exception(next)) => next,
                done => return done,
            };
            self.note_undelivered(event, 0);
            let verdict = double_fault::verdict(event.vector(), next.vector);
            if verdict != Verdict::Serial {
                // A page fault sets CR2 even if it goes on as a double fault.
                self.latch_fault_address(next.fault_address());
                self.note_undelivered(Event::Fault(next), 0);
            }
            event = Event::Fault(match verdict {
                Verdict::Serial => next,
                Verdict::DoubleFault => Exception::with_code(Vector::DoubleFault, 0),
                Verdict::Shutdown => return Err(Fault::Shutdown),
            });
            self.consult(event, 0)?;
        }
        Err(Fault::Unsupported(Unsupported::EndlessExceptions))
    }

    /// Notes that `event` could not be delivered. `length` is that of the instruction before EIP if it asked for the event, else 0.
    #[cold]
    fn note_undelivered(&mut self, event: Event, length: u8) {
        let seen = self.describe(event, length);
        self.undelivered.push(seen);
    }

    fn latch_fault_address(&mut self, address: Option<u64>) {
        if let Some(address) = address {
            self.cpu.cr2 = address;
        }
    }

    /// Delivers an interrupt, EIP being where its handler returns to. A fault on the way is raised.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn deliver(&mut self, event: Event) -> Result<(), Fault> {
        self.consult(event, 0)?;
        self.deliver_admitted(event, 0)
    }

    /// Delivers `event` on behalf of `insn`.
    ///
    /// # Errors
    /// As [`Self::deliver_admitted`]; [`Fault::Intercepted`] where the policy says so.
    fn deliver_for(&mut self, insn: &Insn, event: Event) -> Result<(), Fault> {
        self.consult(event, insn.len)?;
        self.deliver_admitted(event, insn.len)
    }

    /// Delivers `event`, about which the policy has been asked, EIP being where its handler returns to. `length` is that of the
    /// instruction before EIP if it asks for the event, else 0.
    ///
    /// # Errors
    /// For an instruction (INT n, INT3, INTO, INT1): the fault on the way, which becomes the instruction's, with nothing changed.
    /// A fault during the delivery of an interrupt is raised here; the errors are then those of [`Self::raise`].
    pub fn deliver_admitted(&mut self, event: Event, length: u8) -> Result<(), Fault> {
        let Err(fault) = self.enter(event) else {
            return Ok(());
        };
        self.note_undelivered(event, length);
        match fault {
            SwitchFault::OldTask(fault) if event.is_instruction() => Err(fault),
            fault => self.raise_fault(fault.into()),
        }
    }

    /// Enters the handler of `event`, which ends HLT. A fault has changed nothing but NMI blocking, unless it is the handler's
    /// task's.
    fn enter(&mut self, event: Event) -> Result<(), SwitchFault> {
        if event == Event::Nmi {
            self.cpu.nmi_blocked = true;
        }
        let entered = if self.cpu.is_long() {
            self.deliver_long(event).map_err(SwitchFault::OldTask)
        } else if self.cpu.is_protected() {
            self.deliver_protected(event)
        } else {
            self.deliver_real(event).map_err(SwitchFault::OldTask)
        };
        if let Err(fault) = entered {
            return Err(if event.is_software() {
                fault
            } else {
                fault.map(from_outside)
            });
        }
        if event.is_debug() {
            self.cpu.dr[7] &= !DR7_GD;
        }
        self.cpu.pending.clear(Pending::HALT);
        self.cpu.delivered += 1;
        self.undelivered.clear();
        Ok(())
    }

    /// Raises a fault that came after an instruction took effect; passes on what is no exception.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn raise_fault(&mut self, fault: Fault) -> Result<(), Fault> {
        match fault {
            Fault::Exception(exception) => self.raise(exception),
            other => Err(other),
        }
    }

    /// Delivers `event` in real-address mode: FLAGS, CS and IP are pushed, never an error code (SDM Vol. 3A, 20.1.4 "Interrupt and
    /// Exception Handling").
    fn deliver_real(&mut self, event: Event) -> Result<(), Fault> {
        let offset = u32::from(event.vector()) * REAL_VECTOR_BYTES;
        if offset + REAL_VECTOR_BYTES - 1 > u32::from(self.cpu.idtr.limit) {
            return Err(Fault::gp(event.gate_code()));
        }
        let address = self.cpu.system_address(self.cpu.idtr.base, offset);
        let entry: u32 = self.load_at(address, Privilege::Supervisor)?;
        let words = [
            self.cpu.eflags,
            self.cpu.seg(SegReg::Cs).selector.0.into(),
            self.cpu.eip as u32,
        ];
        let mut stack = TransferStack::current(self.cpu);
        stack.check_room::<u16>(words.len() as u32)?;
        self.check_near_target((entry & 0xffff).into())?;
        stack.prepare::<u16>(self, words.len() as u32)?;
        for word in words {
            stack.push(self, word as u16)?;
        }
        stack.commit(self.cpu);
        self.set_eflags(self.cpu.eflags & !(IF | TF | AC | RF));
        self.enter_paragraph(Selector((entry >> 16) as u16), (entry & 0xffff).into());
        Ok(())
    }
}

/// INT n. In virtual-8086 mode it needs IOPL 3.
pub fn int_n(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    if cx.cpu.is_v86() && cx.cpu.iopl() < 3 {
        return Err(Fault::gp(0));
    }
    cx.deliver_for(insn, Event::Software(insn.imm as u8))
}

/// INT3.
pub fn int3(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.deliver_for(insn, Event::Software(Vector::Breakpoint as u8))
}

/// INTO.
pub fn into(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    if cx.cpu.eflags & OF == 0 {
        return Ok(());
    }
    cx.deliver_for(insn, Event::Software(Vector::Overflow as u8))
}

/// INT1: #DB that changes no bit of DR6 and ignores the gate's DPL.
pub fn int1(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.deliver_for(insn, Event::Trap(Exception::plain(Vector::Debug)))
}
