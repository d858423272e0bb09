//! Operands longer than one access: environments, x87 states and FXSAVE images.
//!
//! Each processor checks the parts of such an operand in an order of its own, which decides which fault is reported and which
//! address a page fault has. The order here and in the callers is that of AMD's processors: the first bytes, then the last
//! byte, then the bytes between them.

use crate::cpu::segment::SegReg;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::fault::Fault;
use mmu::Access;
use std::ops::Range;

/// Makes all checks of an access to `size` bytes at `segment:[offset]`, paging included.
pub fn touch(
    exec: &mut Exec<'_>,
    segment: SegReg,
    offset: u64,
    size: u32,
    access: Access,
) -> Result<(), Fault> {
    let privilege = exec.cpu.privilege();
    match access {
        Access::Write => {
            let linear = exec.writable(segment, offset, size)?;
            exec.prepare_write(linear, size, privilege)
        }
        Access::Read | Access::Fetch => {
            let linear = exec.readable(segment, offset, size)?;
            exec.prepare_read(linear, size, privilege)
        }
    }
}

/// Makes all checks of an access to the last byte of the memory operand of `insn`, `bytes` long. With 16-bit addresses its
/// offset wraps.
pub fn touch_last(
    exec: &mut Exec<'_>,
    insn: &Insn,
    bytes: usize,
    access: Access,
) -> Result<(), Fault> {
    let start = insn.effective_address(exec.cpu);
    let last = insn.wrap_address(start.wrapping_add(bytes as u64 - 1));
    touch(exec, insn.mem.segment, last, 1, access)
}

/// Whether offsets of `bytes` bytes at the offset `start`, which `insn` accesses, exceed its address size, so that they wrap.
pub fn wraps(insn: &Insn, start: u64, bytes: usize) -> bool {
    let last = start.wrapping_add(bytes as u64 - 1);
    insn.wrap_address(last) != last
}

/// Calls `visit` with the offset in the segment, and the range in the memory operand of `insn`, of each of its parts, of the lengths
/// `parts`, one after the other. Each part's offset is cut to the address size.
fn visit_parts(
    exec: &mut Exec<'_>,
    insn: &Insn,
    parts: &[usize],
    mut visit: impl FnMut(&mut Exec<'_>, u64, Range<usize>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let start = insn.effective_address(exec.cpu);
    let mut at = 0;
    for part in parts {
        let offset = insn.wrap_address(start.wrapping_add(at as u64));
        visit(exec, offset, at..at + part)?;
        at += part;
    }
    Ok(())
}

/// Makes sure that the memory operand of `insn`, which is accessed in parts of the lengths `parts`, can be written.
pub fn probe_parts(exec: &mut Exec<'_>, insn: &Insn, parts: &[usize]) -> Result<(), Fault> {
    visit_parts(exec, insn, parts, |exec, offset, range| {
        exec.probe_write(insn.mem.segment, offset, range.len() as u32)
    })
}

/// Reads the memory operand of `insn`, which is accessed in parts of the lengths `parts`, into the start of `bytes`.
pub fn load_parts(
    exec: &mut Exec<'_>,
    insn: &Insn,
    parts: &[usize],
    bytes: &mut [u8],
) -> Result<(), Fault> {
    visit_parts(exec, insn, parts, |exec, offset, range| {
        exec.load_bytes(insn.mem.segment, offset, &mut bytes[range])
    })
}

/// Writes the start of `bytes` to the memory operand of `insn`, which is accessed in parts of the lengths `parts`. To write all or
/// nothing the caller makes sure that they can be written.
pub fn store_parts(
    exec: &mut Exec<'_>,
    insn: &Insn,
    parts: &[usize],
    bytes: &[u8],
) -> Result<(), Fault> {
    visit_parts(exec, insn, parts, |exec, offset, range| {
        exec.store_bytes(insn.mem.segment, offset, &bytes[range])
    })
}
