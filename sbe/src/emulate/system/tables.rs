//! GDTR and IDTR (SDM Vol. 3A, 2.4 "Memory-Management Registers").

use crate::cpu::DescriptorTable;
use crate::cpu::canonical::is_canonical;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::emulate::word::Word;
use crate::fault::Fault;

/// Mask of the base that is loaded with a 16-bit operand size: 24 bits.
const BASE24: u64 = 0x00ff_ffff;
/// Bytes of the limit in memory.
const LIMIT_BYTES: usize = 2;
/// Bytes of a 64-bit base in memory.
const BASE_BYTES: usize = 8;

fn load<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<DescriptorTable, Fault> {
    cx.require_cpl0()?;
    let address = insn.effective_address(cx.cpu);
    let limit = cx.load::<u16>(insn.mem.segment, address)?;
    let address = insn.wrap_address(address.wrapping_add(LIMIT_BYTES as u64));
    let base = match W::BITS {
        16 => u64::from(cx.load::<u32>(insn.mem.segment, address)?) & BASE24,
        32 => cx.load::<u32>(insn.mem.segment, address)?.into(),
        _ => cx.load::<u64>(insn.mem.segment, address)?,
    };
    match is_canonical(base) {
        true => Ok(DescriptorTable { base, limit }),
        false => Err(Fault::gp(0)),
    }
}

/// Stores the limit, and the base of 64 bits in 64-bit mode, else of 32 bits, whatever the operand size, as processors since the 386
/// do.
fn store(cx: &mut Exec<'_>, insn: &Insn, table: DescriptorTable) -> Result<(), Fault> {
    let mut image = [0; LIMIT_BYTES + BASE_BYTES];
    image[..LIMIT_BYTES].copy_from_slice(&table.limit.to_le_bytes());
    image[LIMIT_BYTES..].copy_from_slice(&table.base.to_le_bytes());
    let stored = match cx.cpu.is_code64() {
        true => image.len(),
        false => LIMIT_BYTES + BASE_BYTES / 2,
    };
    let address = insn.effective_address(cx.cpu);
    cx.store_bytes(insn.mem.segment, address, &image[..stored])
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
