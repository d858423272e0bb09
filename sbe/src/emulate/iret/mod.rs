//! IRET (SDM Vol. 2A, "IRET/IRETD/IRETQ"): back from a handler, to the same or an outer privilege level, to virtual-8086 mode,
//! or to the task that the current one is nested in. In 64-bit mode it pops SS:RSP whatever the level.

use super::exec::Exec;
use super::task::Nesting;
use super::transfer_stack::TransferStack;
use super::word::Word;
use crate::cpu::eflags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VIF, VIP, VM};
use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::decode::Insn;
use crate::fault::Fault;

/// Highest offset in a segment of virtual-8086 mode.
const V86_LIMIT: u64 = 0xffff;

/// IRET. It unblocks NMIs even if it faults (SDM Vol. 3C, 27.2.3 "Information About NMI Unblocking Due to IRET").
pub fn iret<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.nmi_blocked = false;
    if cx.cpu.is_v86() {
        if cx.cpu.iopl() < 3 {
            return Err(Fault::gp(0));
        }
    } else if cx.cpu.is_protected() && cx.cpu.eflags & NT != 0 {
        if cx.cpu.is_long() {
            return Err(Fault::gp(0));
        }
        return return_to_task(cx);
    }
    let mut stack = TransferStack::current(cx.cpu);
    let offset = stack.pop::<W>(cx)?.zero_extend();
    let selector = Selector(stack.pop::<W>(cx)?.zero_extend() as u16);
    let image = stack.pop::<W>(cx)?.zero_extend() as u32;
    if image & VM != 0 && cx.cpu.is_protected() && !cx.cpu.is_long() && cx.cpu.cpl == 0 {
        return return_to_v86(cx, stack, selector, offset, image);
    }
    let flags = restored_flags::<W>(cx, image);
    if cx.cpu.has_paragraph_segments() {
        cx.check_near_target(offset)?;
        stack.commit(cx.cpu);
        cx.enter_paragraph(selector, offset);
    } else {
        let pops_stack = cx.cpu.is_code64();
        cx.return_to_segment::<W>(stack, (selector, offset), 0, pops_stack)?;
    }
    cx.set_eflags(flags);
    if cx.cpu.cpl == 3 {
        cx.mmu.fill_after_fault();
    }
    Ok(())
}

/// EFLAGS after `image` is popped: operand size, IOPL and the privilege level returned from decide which bits change.
fn restored_flags<W: Word>(cx: &Exec<'_>, image: u32) -> u32 {
    let cpu = &*cx.cpu;
    let is_wide = W::BITS >= 32;
    let mut writable = STATUS | TF | DF | NT;
    if is_wide {
        writable |= RF | AC | ID;
    }
    if cpu.cpl <= cpu.iopl() {
        writable |= IF;
    }
    if cpu.cpl == 0 {
        writable |= IOPL;
    }
    if cpu.cpl == 0 && cpu.is_protected() && is_wide {
        writable |= VIF | VIP;
    }
    cpu.eflags & !(writable | RF) | image & writable
}

/// Returns to virtual-8086 mode by the rest of the frame: ESP, SS, ES, DS, FS, GS.
fn return_to_v86(
    cx: &mut Exec<'_>,
    mut stack: TransferStack,
    code: Selector,
    offset: u64,
    image: u32,
) -> Result<(), Fault> {
    let mut items = [0; 6];
    for item in &mut items {
        *item = stack.pop::<u32>(cx)?;
    }
    if offset > V86_LIMIT {
        return Err(Fault::gp(0));
    }
    let [pointer, ss, es, ds, fs, gs] = items;
    let registers = [
        (SegReg::Es, es),
        (SegReg::Ds, ds),
        (SegReg::Fs, fs),
        (SegReg::Gs, gs),
    ];
    for (register, selector) in registers {
        cx.cpu.segs[register as usize] = Segment::v86(Selector(selector as u16));
    }
    cx.cpu.segs[SegReg::Cs as usize] = Segment::v86(code);
    cx.cpu.segs[SegReg::Ss as usize] = Segment::v86(Selector(ss as u16));
    cx.cpu.regs.set(ESP, pointer);
    cx.cpu.eip = offset;
    cx.set_eflags(image);
    cx.set_cpl(3);
    Ok(())
}

/// Returns to the task of the back link, which must be busy.
fn return_to_task(cx: &mut Exec<'_>) -> Result<(), Fault> {
    let link = cx.task_link()?;
    let task = cx.find_task(link, Nesting::Return, Fault::ts)?;
    cx.run_task(&task, Nesting::Return)
}

#[cfg(test)]
mod tests;
