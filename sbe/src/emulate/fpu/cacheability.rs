//! Cacheability hints and masked stores (SDM Vol. 1, 10.4.6 "Cacheability Control, Prefetch, and Memory Ordering
//! Instructions", 11.4.4 "Cacheability Control Instructions").
//!
//! The emulator has no cache and executes in order: prefetches do nothing, non-temporal stores are stores. Fences are for others who
//! look at memory, and the loop that executes them has them carried out (`Flags::BARRIER`).

use super::{available, extent};
use crate::cpu::regs::EDI;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::emulate::word::Word;
use crate::fault::Fault;
use mmu::Access;

/// PREFETCHh, LFENCE, MFENCE, SFENCE.
pub fn hint(_: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    Ok(())
}

/// MOVNTI m32, r32 and MOVNTI m64, r64. It belongs to SSE2 but uses neither its registers nor its enabling bits.
pub fn movnti<W: Word>(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value: W = exec.read_operand(insn, 1)?;
    exec.write_operand(insn, 0, value)
}

/// CLFLUSH m8: faults as a byte load does, but may name an execute-only segment.
pub fn clflush(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let offset = insn.effective_address(exec.cpu);
    let segment = *exec.cpu.seg(insn.mem.segment);
    let is_executable = segment.attributes.is_code() && offset <= segment.limit.into();
    let linear = if is_executable && !exec.cpu.is_code64() {
        segment.linear32(offset as u32)
    } else {
        exec.readable(insn.mem.segment, offset, 1)?
    };
    exec.mmu
        .translate(linear, 1, Access::Read, exec.cpu.privilege())?;
    Ok(())
}

/// MASKMOVQ mm, mm. The register file is switched before memory is looked at: also when that faults.
pub fn maskmovq(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::mmx(exec.cpu)?;
    let fpu = &exec.cpu.fpu;
    let source = fpu.mm(Exec::register_number(insn, 1)).to_le_bytes();
    let mask = fpu.mm(Exec::register_number(insn, 2)).to_le_bytes();
    exec.cpu.fpu.enter_mmx();
    store_masked(exec, insn, &source, &mask)
}

/// MASKMOVDQU xmm, xmm.
pub fn maskmovdqu(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    available::sse(exec.cpu)?;
    let fpu = &exec.cpu.fpu;
    let source = fpu.xmm(Exec::register_number(insn, 1)).to_le_bytes();
    let mask = fpu.xmm(Exec::register_number(insn, 2)).to_le_bytes();
    store_masked(exec, insn, &source, &mask)
}

/// Bytes that MASKMOVQ and MASKMOVDQU access at once. Limit and alignment are checked for as many.
const ACCESS: usize = 8;

/// Stores the bytes of `source` whose mask byte has its top bit set, at RDI, EDI or DI; all or, on a fault, none. The whole operand
/// must be writable, whatever the mask: the manual leaves faults of bytes not selected to the processor, and this is the
/// host's choice (SDM Vol. 2B, "MASKMOVQ"). So it is that of an access whose offsets wrap, only what lies before that must be
/// writable, and the bytes beyond are stored one by one, up to the fault.
fn store_masked(exec: &mut Exec<'_>, insn: &Insn, source: &[u8], mask: &[u8]) -> Result<(), Fault> {
    let segment = insn.mem.segment;
    let privilege = exec.cpu.privilege();
    let start = insn.address_register(exec.cpu, EDI);
    let offset = |index: usize| insn.wrap_address(start.wrapping_add(index as u64));
    for first in (0..source.len()).step_by(ACCESS) {
        let linear = exec.writable(segment, offset(first), ACCESS as u32)?;
        let fits = |size: &usize| !extent::wraps(insn, offset(first), *size);
        let size = (1..=ACCESS).rfind(fits).unwrap_or(1);
        exec.prepare_write(linear, size as u32, privilege)?;
    }
    for (index, (&byte, mask)) in source.iter().zip(mask).enumerate() {
        if mask & 0x80 != 0 {
            exec.store(segment, offset(index), byte)?;
        }
    }
    Ok(())
}
