//! Near control transfers (SDM Vol. 1, 7.3.8 "Control Transfer Instructions").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::canonical::is_canonical;
use crate::cpu::eflags::ZF;
use crate::cpu::regs::ECX;
use crate::cpu::segment::SegReg;
use crate::decode::Insn;
use crate::fault::Fault;

impl Exec<'_> {
    /// Moves EIP to `target` cut to the operand size; #GP(0) outside the code segment, or if it is not canonical.
    #[inline(always)]
    pub fn near_jump<W: Word>(&mut self, target: u64) -> Result<(), Fault> {
        let target = target & W::MASK;
        self.check_near_target(target)?;
        self.cpu.eip = target;
        Ok(())
    }

    /// Raises #GP(0) if `target` lies outside the code segment, or is not canonical in 64-bit mode.
    #[inline(always)]
    pub fn check_near_target(&self, target: u64) -> Result<(), Fault> {
        let is_valid = match self.cpu.is_code64() {
            true => is_canonical(target),
            false => target <= self.cpu.seg(SegReg::Cs).limit.into(),
        };
        if is_valid { Ok(()) } else { Err(Fault::gp(0)) }
    }

    #[inline(always)]
    fn jump_relative<W: Word>(&mut self, insn: &Insn) -> Result<(), Fault> {
        self.near_jump::<W>(self.cpu.eip.wrapping_add(insn.immediate()))
    }

    /// The count register by address size: RCX, ECX or CX.
    fn counter(&self, insn: &Insn) -> u64 {
        insn.address_register(self.cpu, ECX)
    }
}

/// JMP rel.
pub fn jmp<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.jump_relative::<W>(insn)
}

/// Jcc. `insn.aux` is the condition number.
pub fn jcc<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    if cx.condition(insn.aux as u8) {
        cx.jump_relative::<W>(insn)
    } else {
        Ok(())
    }
}

/// JMP r/m.
pub fn jmp_indirect<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let target = cx.read_operand::<W>(insn, 0)?;
    cx.near_jump::<W>(target.zero_extend())
}

/// CALL rel.
pub fn call<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    call_to::<W>(cx, cx.cpu.eip.wrapping_add(insn.immediate()))
}

/// CALL r/m.
pub fn call_indirect<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let target = cx.read_operand::<W>(insn, 0)?;
    call_to::<W>(cx, target.zero_extend())
}

#[inline(always)]
fn call_to<W: Word>(cx: &mut Exec<'_>, target: u64) -> Result<(), Fault> {
    cx.check_near_target(target & W::MASK)?;
    let back = cx.cpu.eip;
    cx.push(W::cut(back))?;
    cx.cpu.eip = target & W::MASK;
    Ok(())
}

/// RET, with `insn.imm` bytes of arguments released.
pub fn ret<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let target = cx.peek::<W>()?;
    cx.near_jump::<W>(target.zero_extend())?;
    cx.release_stack(u64::from(W::BYTES) + u64::from(insn.imm));
    Ok(())
}

/// JCXZ, JECXZ and JRCXZ.
pub fn jcxz<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    if cx.counter(insn) == 0 {
        cx.jump_relative::<W>(insn)
    } else {
        Ok(())
    }
}

/// LOOP.
pub fn loop_always<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    count_down::<W>(cx, insn, true)
}

/// LOOPE.
pub fn loop_equal<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    count_down::<W>(cx, insn, cx.cpu.eflags & ZF != 0)
}

/// LOOPNE.
pub fn loop_not_equal<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    count_down::<W>(cx, insn, cx.cpu.eflags & ZF == 0)
}

fn count_down<W: Word>(cx: &mut Exec<'_>, insn: &Insn, wanted: bool) -> Result<(), Fault> {
    let left = insn.wrap_address(cx.counter(insn).wrapping_sub(1));
    if left != 0 && wanted {
        cx.jump_relative::<W>(insn)?;
    }
    insn.set_address_register(cx.cpu, ECX, left);
    Ok(())
}
