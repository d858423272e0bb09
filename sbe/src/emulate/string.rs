//! String instructions and string I/O, alone and repeated (SDM Vol. 1, 7.3.9 "String Instructions").
//!
//! A repeated instruction runs a bounded number of iterations at a time. When it stops early, for the run loop to look at
//! interrupts, EIP stays on it and the counter and index registers tell what is left, as on a processor.

use super::alu;
use super::exec::Exec;
use super::word::Word;
use crate::cpu::Pending;
use crate::cpu::eflags::{DF, IF, RF, STATUS, TF, ZF};
use crate::cpu::regs::{EAX, ECX, EDI, EDX, ESI};
use crate::cpu::segment::SegReg;
use crate::decode::{Flags, Insn};
use crate::fault::Fault;
use mmu::{Order, PAGE_SIZE};

/// Number of iterations between two looks at interrupts.
const BURST: u64 = 1024;
/// Number of iterations done in bulk that take as long as one done alone.
const BULK_SPEED: u64 = 16;
/// Smallest number of iterations that is done in bulk.
const BULK_MINIMUM: u64 = 4;

impl Exec<'_> {
    /// RSI, RDI or RCX, or their lower parts, by address size.
    fn index(&self, insn: &Insn, register: u8) -> u64 {
        insn.address_register(self.cpu, register)
    }

    /// Moves an index register by one element in the direction of DF.
    fn advance<W: Word>(&mut self, insn: &Insn, register: u8) {
        let step = if self.cpu.eflags & DF == 0 {
            u64::from(W::BYTES)
        } else {
            u64::from(W::BYTES).wrapping_neg()
        };
        let value = self.cpu.regs.get64(register).wrapping_add(step);
        insn.set_address_register(self.cpu, register, value);
    }

    /// Runs `step` once, or as often as RCX, ECX or CX says under a repeat prefix. `step` returns whether to go on.
    #[inline(always)]
    fn repeat(
        &mut self,
        insn: &Insn,
        step: impl Fn(&mut Self, &Insn) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        if insn.flags.0 & (Flags::REP | Flags::REPNE) == 0 {
            step(self, insn)?;
            return Ok(());
        }
        // Single steps and breakpoints report after each iteration.
        let burst = if self.is_watched() { 1 } else { BURST };
        let mut left = self.index(insn, ECX);
        let mut done = 0;
        while done < burst {
            if left == 0 {
                return Ok(());
            }
            let before = left;
            let go_on = step(self, insn)?;
            // A step may have done more than one iteration.
            left = self.index(insn, ECX).wrapping_sub(1);
            insn.set_address_register(self.cpu, ECX, left);
            done += 1 + before.wrapping_sub(left) / BULK_SPEED;
            if !go_on || left == 0 {
                return Ok(());
            }
            if self.is_watched() {
                break;
            }
        }
        // What interrupts the instruction here pushes RF set (SDM Vol. 3B, 17.3.1.1).
        self.cpu.eip = self.cpu.eip_before(insn.len);
        self.cpu.eflags |= RF;
        Ok(())
    }

    /// Whether the run loop must look up after each iteration.
    fn is_watched(&self) -> bool {
        let masked = match self.cpu.eflags & IF {
            0 => Pending::INTR | Pending::BREAK,
            _ => Pending::BREAK,
        };
        self.cpu.eflags & TF != 0 || self.cpu.pending.0 & !masked != 0
    }

    /// The order in which elements are accessed.
    fn order(&self) -> Order {
        match self.cpu.eflags & DF {
            0 => Order::Upward,
            _ => Order::Downward,
        }
    }

    /// Executes a part of a repeated MOVS or STOS at once: `transfer` gets the number of elements, at most what is left in the
    /// pages that the given index registers point into, and says whether it did them.
    fn bulk<W: Word>(
        &mut self,
        insn: &Insn,
        indices: &[u8],
        transfer: impl FnOnce(&mut Self, u64) -> Result<bool, Fault>,
    ) {
        let repeated = insn.flags.0 & (Flags::REP | Flags::REPNE) != 0;
        if !repeated || insn.flags.has(Flags::ADDR16) || self.is_watched() {
            return;
        }
        let left = self.index(insn, ECX);
        let order = self.order();
        let room = |&register: &u8| elements_in_page::<W>(self.index(insn, register), order);
        let count = indices.iter().map(room).fold(left, u64::min);
        // The last element stays for the ordinary way, which also reports faults.
        if count < BULK_MINIMUM || !transfer(self, count - 1).unwrap_or(false) {
            return;
        }
        let done = count - 1;
        for &register in indices {
            let value = self.cpu.regs.get64(register);
            let moved = done * u64::from(W::BYTES);
            let value = match order {
                Order::Upward => value.wrapping_add(moved),
                Order::Downward => value.wrapping_sub(moved),
            };
            insn.set_address_register(self.cpu, register, value);
        }
        insn.set_address_register(self.cpu, ECX, left - done);
    }

    /// The offset of the lowest of `count` elements, the first of which an index register points at.
    fn lowest<W: Word>(&self, insn: &Insn, register: u8, count: u64) -> u64 {
        let first = self.index(insn, register);
        match self.order() {
            Order::Upward => first,
            Order::Downward => first.wrapping_sub((count - 1) * u64::from(W::BYTES)),
        }
    }

    /// Whether a repeated comparison goes on after flags were set.
    fn comparison_goes_on(&self, insn: &Insn) -> bool {
        let equal = self.cpu.eflags & ZF != 0;
        if insn.flags.has(Flags::REPNE) {
            !equal
        } else {
            equal
        }
    }
}

/// The number of elements from `first` on that lie in its page.
fn elements_in_page<W: Word>(first: u64, order: Order) -> u64 {
    let offset = first % PAGE_SIZE as u64;
    let room = PAGE_SIZE as u64 - offset;
    let size = u64::from(W::BYTES);
    match order {
        Order::Upward => room / size,
        Order::Downward if room < size => 0,
        Order::Downward => offset / size + 1,
    }
}

/// MOVS.
pub fn movs<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.repeat(insn, |cx, insn| {
        cx.bulk::<W>(insn, &[ESI, EDI], |cx, count| {
            let bytes = count as u32 * W::BYTES;
            let from = cx.lowest::<W>(insn, ESI, count);
            let from = cx.readable(insn.mem.segment, from, bytes)?;
            let to = cx.writable(SegReg::Es, cx.lowest::<W>(insn, EDI, count), bytes)?;
            let (privilege, order) = (cx.cpu.privilege(), cx.order());
            Ok(cx
                .mmu
                .tlb_mut()
                .copy(to, from, privilege, bytes as usize, order))
        });
        let value = cx.load::<W>(insn.mem.segment, cx.index(insn, ESI))?;
        cx.store(SegReg::Es, cx.index(insn, EDI), value)?;
        cx.advance::<W>(insn, ESI);
        cx.advance::<W>(insn, EDI);
        Ok(true)
    })
}

/// STOS.
pub fn stos<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.repeat(insn, |cx, insn| {
        let value = W::register(&cx.cpu.regs, EAX);
        cx.bulk::<W>(insn, &[EDI], |cx, count| {
            let bytes = count as u32 * W::BYTES;
            let to = cx.writable(SegReg::Es, cx.lowest::<W>(insn, EDI, count), bytes)?;
            let privilege = cx.cpu.privilege();
            Ok(cx
                .mmu
                .tlb_mut()
                .fill_run(to, privilege, value, count as usize))
        });
        cx.store(SegReg::Es, cx.index(insn, EDI), value)?;
        cx.advance::<W>(insn, EDI);
        Ok(true)
    })
}

/// LODS.
pub fn lods<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.repeat(insn, |cx, insn| {
        let value = cx.load::<W>(insn.mem.segment, cx.index(insn, ESI))?;
        value.set_register(&mut cx.cpu.regs, EAX);
        cx.advance::<W>(insn, ESI);
        Ok(true)
    })
}

/// CMPS: flags of source minus destination.
pub fn cmps<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.repeat(insn, |cx, insn| {
        // If both fault, the host's processor reports the destination.
        let destination = cx.load::<W>(SegReg::Es, cx.index(insn, EDI))?;
        let source = cx.load::<W>(insn.mem.segment, cx.index(insn, ESI))?;
        let (_, flags) = alu::sub(source, destination, 0);
        cx.set_status(STATUS, flags);
        cx.advance::<W>(insn, ESI);
        cx.advance::<W>(insn, EDI);
        Ok(cx.comparison_goes_on(insn))
    })
}

/// SCAS: flags of accumulator minus destination.
pub fn scas<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.repeat(insn, |cx, insn| {
        let destination = cx.load::<W>(SegReg::Es, cx.index(insn, EDI))?;
        let (_, flags) = alu::sub(W::register(&cx.cpu.regs, EAX), destination, 0);
        cx.set_status(STATUS, flags);
        cx.advance::<W>(insn, EDI);
        Ok(cx.comparison_goes_on(insn))
    })
}

/// INS: the destination is known to be writable before the port is read.
pub fn ins<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let port = cx.cpu.regs.get16(EDX);
    cx.io_allowed(port, W::BYTES)?;
    cx.repeat(insn, |cx, insn| {
        let offset = cx.index(insn, EDI);
        cx.probe_write(SegReg::Es, offset, W::BYTES)?;
        let value = cx.port_in::<W>(insn, port);
        cx.store(SegReg::Es, offset, value)?;
        cx.advance::<W>(insn, EDI);
        Ok(true)
    })
}

/// OUTS.
pub fn outs<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let port = cx.cpu.regs.get16(EDX);
    cx.io_allowed(port, W::BYTES)?;
    cx.repeat(insn, |cx, insn| {
        let value = cx.load::<W>(insn.mem.segment, cx.index(insn, ESI))?;
        cx.port_out(insn, port, value);
        cx.advance::<W>(insn, ESI);
        Ok(true)
    })
}
