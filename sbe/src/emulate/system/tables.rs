//! GDTR and IDTR (SDM Vol. 3A, 2.4 "Memory-Management Registers").

use crate::cpu::DescriptorTable;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::emulate::word::Word;
use crate::fault::Fault;

/// Mask of the base that is loaded with a 16-bit operand size: 24 bits.
const BASE24: u32 = 0x00ff_ffff;

fn load<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<DescriptorTable, Fault> {
    cx.require_cpl0()?;
    let address = insn.effective_address(cx.cpu);
    let limit = cx.load::<u16>(insn.mem.segment, address)?;
    let base = cx.load::<u32>(insn.mem.segment, insn.wrap_address(address.wrapping_add(2)))?;
    Ok(DescriptorTable {
        base: if W::BITS == 16 { base & BASE24 } else { base },
        limit,
    })
}

/// Stores limit and 32-bit base, whatever the operand size, as processors since the 386 do.
fn store(cx: &mut Exec<'_>, insn: &Insn, table: DescriptorTable) -> Result<(), Fault> {
    let mut image = [0; 6];
    image[..2].copy_from_slice(&table.limit.to_le_bytes());
    image[2..].copy_from_slice(&table.base.to_le_bytes());
    let address = insn.effective_address(cx.cpu);
    cx.store_bytes(insn.mem.segment, address, &image)
}

/// LGDT.
pub fn lgdt<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.cpu.gdtr = load::<W>(cx, insn)?;
    Ok(())
}

/// LIDT.
pub fn lidt<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.cpu.idtr = load::<W>(cx, insn)?;
    Ok(())
}

/// SGDT.
pub fn sgdt(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    store(cx, insn, cx.cpu.gdtr)
}

/// SIDT.
pub fn sidt(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    store(cx, insn, cx.cpu.idtr)
}
