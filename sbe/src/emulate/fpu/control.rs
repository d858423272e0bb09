//! x87 control instructions that need no host: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, WAIT
//! (SDM Vol. 1, 8.3.11 "x87 FPU Control Instructions").
//!
//! Control instructions leave the last-instruction pointers alone.

use super::available;
use crate::cpu::fpu::{FSW_B, FSW_ES, FSW_SF, X87_EXCEPTIONS};
use crate::cpu::regs::EAX;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::fault::Fault;

/// WAIT: reports a pending x87 error.
pub fn wait(exec: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    available::wait(exec.cpu)
}

/// FNINIT.
pub fn fninit(exec: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    exec.cpu.fpu.init_x87();
    Ok(())
}

/// FNCLEX: clears the exception flags, SF, ES and B.
pub fn fnclex(exec: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    let fpu = &mut exec.cpu.fpu;
    fpu.set_fsw(fpu.fsw() & !(X87_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B));
    Ok(())
}

/// FNENI, FNDISI and FNSETPM: instructions of the 8087 and 80287 that do nothing on later ones
/// (SDM Vol. 3B, 22.18 "x87 FPU").
pub fn obsolete(exec: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)
}

/// FLDCW m2byte.
pub fn fldcw(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::x87(exec.cpu)?;
    let value = exec.read_operand(insn, 0)?;
    exec.cpu.fpu.set_fcw(value);
    Ok(())
}

/// FNSTCW m2byte.
pub fn fnstcw(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    exec.write_operand(insn, 0, exec.cpu.fpu.fcw())
}

/// FNSTSW m2byte.
pub fn fnstsw(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    exec.write_operand(insn, 0, exec.cpu.fpu.fsw())
}

/// FNSTSW AX.
pub fn fnstsw_ax(exec: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    exec.cpu.regs.set16(EAX, exec.cpu.fpu.fsw());
    Ok(())
}
