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
