//! Addition, subtraction, logic and comparison (SDM Vol. 1, 7.3.2 "Binary Arithmetic Instructions").

use super::exec::Exec;
use super::flags::of_result;
use super::word::Word;
use crate::cpu::eflags::{AF, CF, OF, STATUS, ZF};
use crate::cpu::regs::{EAX, EBX, ECX, EDX};
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

/// AF is the carry out of this bit.
const AF_BIT: u32 = 3;

/// A two-operand operation on the low `W::BITS` bits: result and status flags.
pub trait Binary {
    /// Computes `a op b`; `carry` is CF before, 0 or 1.
    fn apply<W: Word>(a: W, b: W, carry: u32) -> (W, u32);
}

/// ADD.
pub struct Add;
/// ADC.
pub struct Adc;
/// SUB and CMP.
pub struct Sub;
/// SBB.
pub struct Sbb;
/// AND and TEST.
pub struct And;
/// OR.
pub struct Or;
/// XOR.
pub struct Xor;

/// `a + b + carry`. The carry out of each bit gives CF and AF; OF is set when both signs differ from the result's.
#[inline(always)]
pub fn add<W: Word>(a: W, b: W, carry: u32) -> (W, u32) {
    let (a, b) = (a.zero_extend(), b.zero_extend());
    let sum = a.wrapping_add(b).wrapping_add(carry.into());
    let carries = a & b | (a | b) & !sum;
    let overflow = (a ^ sum) & (b ^ sum);
    arithmetic_flags(W::cut(sum), carries, overflow)
}

/// `a - b - borrow`.
#[inline(always)]
pub fn sub<W: Word>(a: W, b: W, borrow: u32) -> (W, u32) {
    let (a, b) = (a.zero_extend(), b.zero_extend());
    let difference = a.wrapping_sub(b).wrapping_sub(borrow.into());
    let borrows = !a & b | (!a | b) & difference;
    let overflow = (a ^ b) & (a ^ difference);
    arithmetic_flags(W::cut(difference), borrows, overflow)
}

#[inline(always)]
fn arithmetic_flags<W: Word>(result: W, carries: u64, overflow: u64) -> (W, u32) {
    let cf = if carries & W::SIGN != 0 { CF } else { 0 };
    let of = if overflow & W::SIGN != 0 { OF } else { 0 };
    let af = (carries >> AF_BIT & 1) as u32 * AF;
    (result, of_result(result) | cf | of | af)
}

/// Logic clears CF and OF; AF is undefined and cleared.
#[inline(always)]
fn logic<W: Word>(result: u64) -> (W, u32) {
    let result = W::cut(result);
    (result, of_result(result))
}

impl Binary for Add {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, _: u32) -> (W, u32) {
        add(a, b, 0)
    }
}

impl Binary for Adc {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, carry: u32) -> (W, u32) {
        add(a, b, carry)
    }
}

impl Binary for Sub {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, _: u32) -> (W, u32) {
        sub(a, b, 0)
    }
}

impl Binary for Sbb {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, carry: u32) -> (W, u32) {
        sub(a, b, carry)
    }
}

impl Binary for And {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, _: u32) -> (W, u32) {
        logic(a.zero_extend() & b.zero_extend())
    }
}

impl Binary for Or {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, _: u32) -> (W, u32) {
        logic(a.zero_extend() | b.zero_extend())
    }
}

impl Binary for Xor {
    #[inline(always)]
    fn apply<W: Word>(a: W, b: W, _: u32) -> (W, u32) {
        logic(a.zero_extend() ^ b.zero_extend())
    }
}

/// `destination = destination op source`, and flags.
pub fn binary<O: Binary, W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let carry = cx.carry();
    let mut status = 0;
    cx.modify_operand(insn, 0, |_, old| {
        let (new, flags) = O::apply::<W>(old, source, carry);
        status = flags;
        new
    })?;
    cx.set_status(STATUS, status);
    Ok(())
}

/// CMP and TEST: flags of `first op second`.
pub fn compare<O: Binary, W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let second = cx.read_operand::<W>(insn, 1)?;
    let first = cx.read_operand::<W>(insn, 0)?;
    let (_, flags) = O::apply(first, second, 0);
    cx.set_status(STATUS, flags);
    Ok(())
}

/// INC: CF is kept.
pub fn inc<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    step(cx, insn, add::<W>)
}

/// DEC: CF is kept.
pub fn dec<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    step(cx, insn, sub::<W>)
}

#[inline(always)]
fn step<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    operation: impl Fn(W, W, u32) -> (W, u32),
) -> Result<(), Fault> {
    let mut status = 0;
    cx.modify_operand(insn, 0, |_, old| {
        let (new, flags) = operation(old, W::cut(1), 0);
        status = flags;
        new
    })?;
    cx.set_status(STATUS & !CF, status);
    Ok(())
}

/// NEG: CF tells whether the operand was not zero.
pub fn neg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let mut status = 0;
    cx.modify_operand(insn, 0, |_, old| {
        let (new, flags) = sub(W::cut(0), old, 0);
        status = flags;
        new
    })?;
    cx.set_status(STATUS, status);
    Ok(())
}

/// NOT: no flags.
pub fn not<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.modify_operand::<W>(insn, 0, |_, old| W::cut(!old.zero_extend()))
}

/// XADD: the source register receives the old destination.
pub fn xadd<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let mut status = 0;
    // With one register as both operands the sum wins, so the source goes first.
    cx.modify_operand(insn, 0, |cx, old| {
        let (new, flags) = add(old, source, 0);
        status = flags;
        cx.set_register(insn.ops[1], old);
        new
    })?;
    cx.set_status(STATUS, status);
    Ok(())
}

/// CMPXCHG: the accumulator is compared. A destination in memory is written in either case; a register that differs is left alone,
/// its upper half included, and so is the accumulator otherwise.
pub fn cmpxchg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let accumulator = W::register(&cx.cpu.regs, EAX);
    let mut found = accumulator;
    if insn.ops[0] == Operand::Mem {
        let address = insn.effective_address(cx.cpu);
        cx.modify(insn.mem.segment, address, |_, old| {
            found = old;
            if old == accumulator { source } else { old }
        })?;
    } else {
        found = cx.read_operand(insn, 0)?;
        if found == accumulator {
            cx.set_register(insn.ops[0], source);
        }
    }
    if found != accumulator {
        found.set_register(&mut cx.cpu.regs, EAX);
    }
    cx.set_status(STATUS, sub(accumulator, found, 0).1);
    Ok(())
}

/// CMPXCHG8B: EDX:EAX is compared with m64, ECX:EBX replaces it; only ZF changes.
pub fn cmpxchg8b(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let linear = cx.writable(insn.mem.segment, insn.effective_address(cx.cpu), 8)?;
    let privilege = cx.cpu.privilege();
    cx.prepare_write(linear, 8, privilege)?;
    let old = cx.load_at::<u64>(linear, privilege)?;
    let pair = |high, low| u64::from(cx.cpu.regs.get(high)) << 32 | u64::from(cx.cpu.regs.get(low));
    let equal = old == pair(EDX, EAX);
    let new = if equal { pair(ECX, EBX) } else { old };
    cx.store_at(linear, privilege, new)?;
    if !equal {
        cx.cpu.regs.set(EAX, old as u32);
        cx.cpu.regs.set(EDX, (old >> 32) as u32);
    }
    cx.set_status(ZF, if equal { ZF } else { 0 });
    Ok(())
}

/// CMPXCHG16B: RDX:RAX is compared with m128, RCX:RBX replaces it; only ZF changes. #GP(0) unless the operand is aligned.
pub fn cmpxchg16b(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    const BYTES: u32 = 16;
    let address = insn.effective_address(cx.cpu);
    if !cx
        .cpu
        .linear64(insn.mem.segment, address)
        .is_multiple_of(BYTES.into())
    {
        return Err(Fault::gp(0));
    }
    let linear = cx.writable(insn.mem.segment, address, BYTES)?;
    let privilege = cx.cpu.privilege();
    cx.prepare_write(linear, BYTES, privilege)?;
    let old = cx.load_at::<u128>(linear, privilege)?;
    let regs = &mut cx.cpu.regs;
    let pair = |high, low| u128::from(regs.get64(high)) << 64 | u128::from(regs.get64(low));
    let equal = old == pair(EDX, EAX);
    let new = if equal { pair(ECX, EBX) } else { old };
    cx.store_at(linear, privilege, new)?;
    if !equal {
        cx.cpu.regs.set64(EAX, old as u64);
        cx.cpu.regs.set64(EDX, (old >> 64) as u64);
    }
    cx.set_status(ZF, if equal { ZF } else { 0 });
    Ok(())
}
