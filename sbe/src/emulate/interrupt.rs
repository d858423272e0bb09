//! Delivering interrupts and exceptions (SDM Vol. 3A, chapter 6 "Interrupt and Exception Handling"; Vol. 2A, "INT n").
//!
//! ```text
//!   handler faults ─► raise ──┬─► policy ─► enter ─► gate ─┬─► interrupt or trap gate: frame on the same or an inner stack
//!   INTR, NMI, INT n ─► deliver ┘             │            ├─► task gate: task switch
//!                                             │            └─► real-address mode: vector table
//!                                             └─ faults ─► raise again, as a double fault, or shutdown (double_fault.rs)
//! ```
//!
//! The policy (intercept.rs) is asked about each event by itself, those raised during a delivery too.
//!
//! A delivery that faults has changed nothing, unless the fault came after a task switch: then it belongs to the new task.

use super::double_fault::{self, Verdict};
use super::exec::Exec;
use super::task::SwitchFault;
use super::transfer_stack::TransferStack;
use crate::cpu::Pending;
use crate::cpu::control::{DR6_BD, DR7_GD};
use crate::cpu::eflags::{AC, IF, OF, RF, TF};
use crate::cpu::segment::{SegReg, Selector};
use crate::decode::Insn;
use crate::fault::{Exception, Fault, Unsupported, Vector};
use crate::policy::EventSource;
use mmu::{LinearAddr, Privilege};

pub use super::iret::iret;

/// Error code bit: the event was not caused by the program itself (SDM Vol. 3A, 6.13 "Error Code").
const ERROR_EXT: u32 = 1 << 0;
/// Error code bit: the index names a gate in the IDT.
const ERROR_IDT: u32 = 1 << 1;
/// Bytes of an entry of the real-address mode vector table.
const REAL_VECTOR_BYTES: u32 = 4;

/// Exceptions in a row, each during the delivery of the one before, after which there will be no end: #AC at ring 3 on a
/// misaligned stack of ring 3. A processor would be stuck until RESET.
const MAX_NESTED: u32 = 16;

/// What the processor delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Interrupt on the INTR pin. EFLAGS.RF is pushed as it stands: the caller sets it before when it interrupts a
    /// repeated string instruction between two iterations.
    External(u8),
    /// Non-maskable interrupt. Blocks further ones.
    Nmi,
    /// INT n, INT3 or INTO: obeys the gate's DPL.
    Software(u8),
    /// A fault: RF is pushed as one.
    Fault(Exception),
    /// A trap, or an instruction breakpoint: RF is pushed as it stands.
    Trap(Exception),
    /// What somebody made of an intercepted event. One that was an exception is a fault.
    Changed {
        /// Where the event came from.
        source: EventSource,
        /// Its new vector.
        vector: u8,
        /// What is pushed as error code.
        code: Option<u32>,
        /// What CR2 receives.
        address: Option<u32>,
    },
}

impl Event {
    /// Its vector.
    pub fn vector(self) -> u8 {
        match self {
            Self::External(vector) | Self::Software(vector) | Self::Changed { vector, .. } => {
                vector
            }
            Self::Nmi => Vector::Nmi as u8,
            Self::Fault(exception) | Self::Trap(exception) => exception.vector as u8,
        }
    }

    /// The error code that goes on the handler's stack.
    pub fn error_code(self) -> Option<u32> {
        match self {
            Self::Fault(exception) | Self::Trap(exception) => exception.code,
            Self::Changed { code, .. } => code,
            Self::External(_) | Self::Nmi | Self::Software(_) => None,
        }
    }

    /// Where it comes from.
    pub fn source(self) -> EventSource {
        match self {
            Self::External(_) | Self::Nmi => EventSource::External,
            Self::Software(_) => EventSource::Software,
            Self::Fault(_) | Self::Trap(_) => EventSource::Exception,
            Self::Changed { source, .. } => source,
        }
    }

    /// What CR2 receives with it.
    pub fn fault_address(self) -> Option<u32> {
        match self {
            Self::Fault(exception) => exception.fault_address(),
            Self::Changed { address, .. } => address,
            _ => None,
        }
    }

    /// The same with another vector and error code. CR2 receives an address if it is still a page fault.
    pub fn changed(self, vector: u8, code: Option<u32>) -> Self {
        let is_page_fault = vector == Vector::PageFault as u8;
        Self::Changed {
            source: self.source(),
            vector,
            code,
            address: self.fault_address().filter(|_| is_page_fault),
        }
    }

    /// Error code of a fault about the event's gate.
    pub fn gate_code(self) -> u32 {
        u32::from(self.vector()) << 3 | ERROR_IDT
    }

    /// Whether it obeys the DPL of its gate.
    pub fn is_software(self) -> bool {
        self.source() == EventSource::Software
    }

    /// Whether an instruction asks for it, which faults if the delivery does: INT n, INT3, INTO, INT1.
    fn is_instruction(self) -> bool {
        self.is_software() || matches!(self, Self::Trap(_))
    }

    fn is_debug(self) -> bool {
        self.source() == EventSource::Exception && self.vector() == Vector::Debug as u8
    }

    /// `flags` as the handler will see them pushed.
    pub fn flags_image(self, flags: u32) -> u32 {
        match self {
            Self::Fault(_)
            | Self::Changed {
                source: EventSource::Exception,
                ..
            } => flags | RF,
            _ => flags,
        }
    }
}

/// Adds EXT to the error code of a selector fault.
fn from_outside(fault: Fault) -> Fault {
    use Vector::{GeneralProtection, InvalidTss, SegmentNotPresent, StackFault};
    match fault {
        Fault::Exception(Exception {
            vector: vector @ (InvalidTss | SegmentNotPresent | StackFault | GeneralProtection),
            code: Some(code),
            ..
        }) => Fault::Exception(Exception::with_code(vector, code | ERROR_EXT)),
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
    pub fn raise_debug(&mut self, dr6_bits: u32) -> Result<(), Fault> {
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
            let verdict = double_fault::verdict(event.vector(), next.vector);
            if verdict != Verdict::Serial {
                // A page fault sets CR2 even if it goes on as a double fault.
                self.latch_fault_address(next.fault_address());
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

    fn latch_fault_address(&mut self, address: Option<u32>) {
        if let Some(address) = address {
            self.cpu.cr2 = address;
        }
    }

    /// Delivers an interrupt, EIP being where its handler returns to. What goes wrong on the way is raised.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn deliver(&mut self, event: Event) -> Result<(), Fault> {
        self.consult(event, 0)?;
        self.deliver_admitted(event)
    }

    /// Delivers `event` on behalf of `insn`.
    ///
    /// # Errors
    /// As [`Self::deliver_admitted`]; [`Fault::Intercepted`] where the policy says so.
    fn deliver_for(&mut self, insn: &Insn, event: Event) -> Result<(), Fault> {
        self.consult(event, insn.len)?;
        self.deliver_admitted(event)
    }

    /// Delivers `event`, about which the policy has been asked, EIP being where its handler returns to.
    ///
    /// # Errors
    /// For an instruction (INT n, INT3, INTO, INT1) the fault on the way that makes it fault, with nothing changed. What goes
    /// wrong with the delivery of an interrupt is raised here; as [`Self::raise`] then.
    pub fn deliver_admitted(&mut self, event: Event) -> Result<(), Fault> {
        match self.enter(event) {
            Err(SwitchFault::OldTask(fault)) if event.is_instruction() => Err(fault),
            Err(fault) => self.raise_fault(fault.into()),
            Ok(()) => Ok(()),
        }
    }

    /// Enters the handler of `event`, which ends HLT. A fault has changed nothing but NMI blocking, unless it is the handler's
    /// task's.
    fn enter(&mut self, event: Event) -> Result<(), SwitchFault> {
        if event == Event::Nmi {
            self.cpu.nmi_blocked = true;
        }
        let entered = if self.cpu.is_protected() {
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
        Ok(())
    }

    /// Raises what came after an instruction took effect; passes on what is no exception.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn raise_fault(&mut self, fault: Fault) -> Result<(), Fault> {
        match fault {
            Fault::Exception(exception) => self.raise(exception),
            other => Err(other),
        }
    }

    /// Real-address mode: FLAGS, CS and IP are pushed, never an error code (SDM Vol. 3A, 20.1.4 "Interrupt and
    /// Exception Handling").
    fn deliver_real(&mut self, event: Event) -> Result<(), Fault> {
        let offset = u32::from(event.vector()) * REAL_VECTOR_BYTES;
        if offset + REAL_VECTOR_BYTES - 1 > u32::from(self.cpu.idtr.limit) {
            return Err(Fault::gp(event.gate_code()));
        }
        let address = LinearAddr::from(self.cpu.idtr.base.wrapping_add(offset));
        let entry: u32 = self.load_at(address, Privilege::Supervisor)?;
        let words = [
            self.cpu.eflags,
            self.cpu.seg(SegReg::Cs).selector.0.into(),
            self.cpu.eip,
        ];
        let mut stack = TransferStack::current(self.cpu);
        stack.check_room::<u16>(words.len() as u32)?;
        self.check_near_target(entry & 0xFFFF)?;
        stack.prepare::<u16>(self, words.len() as u32)?;
        for word in words {
            stack.push(self, word as u16)?;
        }
        stack.commit(self.cpu);
        self.set_eflags(self.cpu.eflags & !(IF | TF | AC | RF));
        self.enter_paragraph(Selector((entry >> 16) as u16), entry & 0xFFFF);
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
