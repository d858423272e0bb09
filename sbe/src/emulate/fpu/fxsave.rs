//! FXSAVE, FXRSTOR, LDMXCSR and STMXCSR (SDM Vol. 1, 10.5 "FXSAVE and FXRSTOR Instructions").
//!
//! FXSAVE writes the 288 bytes that are state, 416 in 64-bit mode, and leaves the reserved rest of its operand alone, but the whole
//! operand must be writable. Both move XMM registers and MXCSR whatever CR4.OSFXSR says, which the manual leaves to the processor.
//! With alignment checks on, an operand that is not even 4-byte aligned raises #AC and not #GP, also in a segment that cannot be
//! read. Faults come in the order of AMD's processors.

use super::execute::check_paragraph;
use super::{available, extent};
use crate::cpu::Cpu;
use crate::cpu::fpu::{Layout, MXCSR_MASK, SIZE, USED64};
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::fault::Fault;
use mmu::Access;

/// Bytes of the first access, for which limit and alignment are checked.
const FIRST: u32 = 4;
/// Bytes of the parts that are accessed one after the other.
const PART: usize = 16;

/// FXSAVE m512byte.
pub fn fxsave(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    save(exec, insn, layout(exec.cpu))
}

/// FXSAVE64 m512byte.
pub fn fxsave64(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    save(exec, insn, Layout::Promoted)
}

/// FXRSTOR m512byte. A reserved MXCSR bit raises #GP(0).
pub fn fxrstor(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    restore(exec, insn, layout(exec.cpu))
}

/// FXRSTOR64 m512byte. A reserved MXCSR bit raises #GP(0).
pub fn fxrstor64(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    restore(exec, insn, Layout::Promoted)
}

/// The layout without REX.W.
fn layout(cpu: &Cpu) -> Layout {
    match cpu.is_code64() {
        true => Layout::Extended,
        false => Layout::Legacy,
    }
}

fn save(exec: &mut Exec<'_>, insn: &Insn, layout: Layout) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    check_operand(exec, insn, Access::Write)?;
    let used = layout.bytes();
    if extent::wraps(insn, offset, SIZE) {
        extent::probe_parts(exec, insn, &[PART; SIZE / PART])?;
        let image = exec.cpu.fpu.image(layout);
        return extent::store_parts(exec, insn, &vec![PART; used / PART], &image);
    }
    exec.probe_write(segment, offset, used as u32)?;
    let reserved = offset.wrapping_add(used as u64);
    exec.probe_write(segment, reserved, (SIZE - used) as u32)?;
    let image = exec.cpu.fpu.image(layout);
    exec.store_bytes(segment, offset, &image[..used])
}

fn restore(exec: &mut Exec<'_>, insn: &Insn, layout: Layout) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    check_operand(exec, insn, Access::Read)?;
    let used = layout.bytes();
    let mut image = [0; USED64];
    if extent::wraps(insn, offset, SIZE) {
        let mut all = [0; SIZE];
        extent::load_parts(exec, insn, &[PART; SIZE / PART], &mut all)?;
        image[..used].copy_from_slice(&all[..used]);
    } else {
        exec.load_bytes(segment, offset, &mut image[..used])?;
        let reserved = offset.wrapping_add(used as u64);
        exec.load_bytes(segment, reserved, &mut [0; SIZE][used..])?;
    }
    if exec.cpu.fpu.restore(&image, layout) {
        Ok(())
    } else {
        Err(Fault::gp(0))
    }
}

/// Checks limit and alignment of the operand, then its last byte, then, where it leaves the segment, the parts before that: with
/// 16-bit addresses the last byte may lie inside again.
fn check_operand(exec: &mut Exec<'_>, insn: &Insn, access: Access) -> Result<(), Fault> {
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    exec.within_limit(segment, offset, FIRST)?;
    check_paragraph(exec.cpu, segment, offset)?;
    extent::touch_last(exec, insn, SIZE, access)?;
    let bounds = exec.cpu.seg(segment).within();
    if exec.cpu.is_code64() || bounds.allow(offset as u32, SIZE as u32) {
        return Ok(());
    }
    (0..SIZE as u64).step_by(PART).try_for_each(|at| {
        let part = offset.wrapping_add(at);
        extent::touch(exec, segment, part, PART as u32, access)
    })
}

/// LDMXCSR m32. A reserved bit raises #GP(0). Flags loaded with unmasked exceptions raise nothing by themselves.
pub fn ldmxcsr(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::sse(exec.cpu)?;
    let value: u32 = exec.read_operand(insn, 0)?;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::gp(0));
    }
    exec.cpu.fpu.set_mxcsr(value);
    Ok(())
}

/// STMXCSR m32.
pub fn stmxcsr(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::sse(exec.cpu)?;
    exec.write_operand(insn, 0, exec.cpu.fpu.mxcsr())
}
