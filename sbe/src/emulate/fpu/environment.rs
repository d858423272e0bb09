//! FNSTENV, FLDENV, FNSAVE and FRSTOR: the x87 environment in memory
//! (SDM Vol. 1, 8.1.10 "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE", Figures 8-9 to 8-12).
//!
//! ```text
//!   32-bit protected mode                          16-bit protected mode
//!   0   0xffff           FCW                       0   FCW
//!   4   0xffff           FSW                       2   FSW
//!   8   0xffff           FTW                       4   FTW
//!   12  FIP                                        6   FIP 15:0
//!   16  00000b FOP       FCS                       8   FCS
//!   20  FDP                                        10  FDP 15:0
//!   24  0xffff           FDS                       12  FDS
//!
//!   32-bit real and virtual-8086 mode              16-bit real and virtual-8086 mode
//!   12  0xffff           FIP 15:0                  6   FIP 15:0
//!   16  0000b FIP 31:16  0b FOP                    8   FIP 19:16 0b FOP
//!   20  0xffff           FDP 15:0                  10  FDP 15:0
//!   24  0000b FDP 31:16  000000000000b             12  FDP 19:16 000000000000b
//! ```
//!
//! In real and virtual-8086 mode the pointers are linear addresses.

use super::{available, extent};
use crate::cpu::Cpu;
use crate::cpu::fpu::{FOP_MASK, FxState, Pointers, X87_EXCEPTIONS};
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::fault::Fault;
use mmu::Access;

/// Bytes of an x87 register in memory.
const REGISTER_BYTES: usize = 10;
/// The parts in which a register is accessed.
const REGISTER_PARTS: [usize; 2] = [8, 2];
/// Bytes of the eight registers.
const STACK_BYTES: usize = 8 * REGISTER_BYTES;
/// The upper half of a doubleword whose lower half is a 16-bit register.
const RESERVED: u32 = 0xffff_0000;

/// Operand size of an environment instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Bits16,
    Bits32,
}

impl Size {
    /// Bytes of the environment.
    fn bytes(self) -> usize {
        match self {
            Self::Bits16 => 14,
            Self::Bits32 => 28,
        }
    }

    /// Bytes of one field.
    fn field_bytes(self) -> u32 {
        match self {
            Self::Bits16 => 2,
            Self::Bits32 => 4,
        }
    }
}

/// The layout of the pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressing {
    /// Selector and offset.
    Protected,
    /// Linear address, with FOP in its upper part.
    Linear,
}

impl Addressing {
    fn of(cpu: &Cpu) -> Self {
        if cpu.has_paragraph_segments() {
            Self::Linear
        } else {
            Self::Protected
        }
    }
}

/// FNSTENV m14byte.
pub fn fnstenv16(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    store_environment(exec, insn, Size::Bits16)
}

/// FNSTENV m28byte.
pub fn fnstenv32(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    store_environment(exec, insn, Size::Bits32)
}

/// FLDENV m14byte.
pub fn fldenv16(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_environment(exec, insn, Size::Bits16)
}

/// FLDENV m28byte.
pub fn fldenv32(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_environment(exec, insn, Size::Bits32)
}

/// FNSAVE m94byte.
pub fn fnsave16(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    save(exec, insn, Size::Bits16)
}

/// FNSAVE m108byte.
pub fn fnsave32(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    save(exec, insn, Size::Bits32)
}

/// FRSTOR m94byte.
pub fn frstor16(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    restore(exec, insn, Size::Bits16)
}

/// FRSTOR m108byte.
pub fn frstor32(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    restore(exec, insn, Size::Bits32)
}

/// Stores the environment, then masks all exceptions.
fn store_environment(exec: &mut Exec<'_>, insn: &Insn, size: Size) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    let bytes = Environment::of(&exec.cpu.fpu).encode(size, Addressing::of(exec.cpu));
    store_operand(exec, insn, size, &bytes)?;
    let fpu = &mut exec.cpu.fpu;
    fpu.set_fcw(fpu.fcw() | X87_EXCEPTIONS);
    Ok(())
}

fn load_environment(exec: &mut Exec<'_>, insn: &Insn, size: Size) -> Result<(), Fault> {
    available::x87(exec.cpu)?;
    let bytes = load_operand(exec, insn, size, size.bytes())?;
    Environment::decode(&bytes, size, Addressing::of(exec.cpu)).apply(&mut exec.cpu.fpu);
    Ok(())
}

/// Stores environment and registers, then initializes as FNINIT does.
fn save(exec: &mut Exec<'_>, insn: &Insn, size: Size) -> Result<(), Fault> {
    available::x87_no_wait(exec.cpu)?;
    let fpu = &exec.cpu.fpu;
    let mut bytes = Environment::of(fpu).encode(size, Addressing::of(exec.cpu));
    bytes.extend((0..8).flat_map(|index| fpu.st(index)));
    store_operand(exec, insn, size, &bytes)?;
    exec.cpu.fpu.init_x87();
    Ok(())
}

fn restore(exec: &mut Exec<'_>, insn: &Insn, size: Size) -> Result<(), Fault> {
    available::x87(exec.cpu)?;
    let bytes = load_operand(exec, insn, size, size.bytes() + STACK_BYTES)?;
    let (environment, registers) = bytes.split_at(size.bytes());
    let addressing = Addressing::of(exec.cpu);
    let fpu = &mut exec.cpu.fpu;
    Environment::decode(environment, size, addressing).apply(fpu);
    for (index, register) in (0..).zip(registers.as_chunks::<REGISTER_BYTES>().0) {
        fpu.set_st(index, *register);
    }
    Ok(())
}

/// Writes the memory operand: all of it or, on a fault, nothing.
fn store_operand(exec: &mut Exec<'_>, insn: &Insn, size: Size, bytes: &[u8]) -> Result<(), Fault> {
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    extent::touch(exec, segment, offset, size.field_bytes(), Access::Write)?;
    extent::touch_last(exec, insn, bytes.len(), Access::Write)?;
    if extent::wraps(insn, offset, bytes.len()) {
        let parts = parts(size, bytes.len());
        extent::probe_parts(exec, insn, &parts)?;
        return extent::store_parts(exec, insn, &parts, bytes);
    }
    exec.store_bytes(segment, offset, bytes)
}

/// The lengths of the parts in which a memory operand of `count` bytes is accessed if its offsets wrap.
fn parts(size: Size, count: usize) -> Vec<usize> {
    let fields = size.bytes() / size.field_bytes() as usize;
    let registers = (count - size.bytes()) / REGISTER_BYTES;
    let mut parts = vec![size.field_bytes() as usize; fields];
    parts.extend(REGISTER_PARTS.repeat(registers));
    parts
}

/// Reads the memory operand, `count` bytes long.
fn load_operand(
    exec: &mut Exec<'_>,
    insn: &Insn,
    size: Size,
    count: usize,
) -> Result<Vec<u8>, Fault> {
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    extent::touch(exec, segment, offset, size.field_bytes(), Access::Read)?;
    extent::touch_last(exec, insn, count, Access::Read)?;
    let mut bytes = vec![0; count];
    if extent::wraps(insn, offset, count) {
        extent::load_parts(exec, insn, &parts(size, count), &mut bytes)?;
        return Ok(bytes);
    }
    exec.load_bytes(segment, offset, &mut bytes)?;
    Ok(bytes)
}

/// The x87 state without the data registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Environment {
    fcw: u16,
    fsw: u16,
    /// The full tag word.
    ftw: u16,
    pointers: Pointers,
}

impl Environment {
    fn of(fpu: &FxState) -> Self {
        Self {
            fcw: fpu.fcw(),
            fsw: fpu.fsw(),
            ftw: fpu.full_tags(),
            pointers: fpu.pointers(),
        }
    }

    /// Makes this the environment of `fpu`; physical registers keep their contents.
    fn apply(&self, fpu: &mut FxState) {
        fpu.move_top((self.fsw >> 11 & 7) as u8);
        fpu.set_fsw(self.fsw);
        fpu.set_fcw(self.fcw);
        fpu.set_full_tags(self.ftw);
        fpu.set_pointers(self.pointers);
    }

    fn encode(&self, size: Size, addressing: Addressing) -> Vec<u8> {
        let Pointers {
            fop,
            fip,
            fcs,
            fdp,
            fds,
        } = self.pointers;
        let (fop, fip, fdp) = (u32::from(fop), fip as u32, fdp as u32);
        let linear_fip = (u32::from(fcs) << 4).wrapping_add(fip);
        let linear_fdp = (u32::from(fds) << 4).wrapping_add(fdp);
        let pointers = match (size, addressing) {
            (_, Addressing::Protected) => [
                fip,
                u32::from(fcs) | fop << 16,
                fdp,
                RESERVED | u32::from(fds),
            ],
            (Size::Bits32, Addressing::Linear) => [
                RESERVED | linear_fip,
                linear_fip >> 16 << 12 | fop,
                RESERVED | linear_fdp,
                linear_fdp >> 16 << 12,
            ],
            (Size::Bits16, Addressing::Linear) => [
                linear_fip,
                linear_fip >> 16 << 12 | fop,
                linear_fdp,
                linear_fdp >> 16 << 12,
            ],
        };
        let words = [self.fcw, self.fsw, self.ftw].map(|word| RESERVED | u32::from(word));
        let fields = words.into_iter().chain(pointers);
        match size {
            Size::Bits16 => fields
                .flat_map(|field| (field as u16).to_le_bytes())
                .collect(),
            Size::Bits32 => fields.flat_map(u32::to_le_bytes).collect(),
        }
    }

    fn decode(bytes: &[u8], size: Size, addressing: Addressing) -> Self {
        let field = |index: usize| match size {
            Size::Bits16 => u32::from(u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])),
            Size::Bits32 => {
                let at = 4 * index;
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
        };
        let word = |index: usize| field(index) as u16;
        let linear = |low: usize| u32::from(word(low)) | field(low + 1) >> 12 << 16;
        let pointers = match (addressing, size) {
            (Addressing::Protected, Size::Bits32) => Pointers {
                fop: (field(4) >> 16) as u16 & FOP_MASK,
                fip: field(3).into(),
                fcs: word(4),
                fdp: field(5).into(),
                fds: word(6),
            },
            (Addressing::Protected, Size::Bits16) => Pointers {
                fop: 0,
                fip: field(3).into(),
                fcs: word(4),
                fdp: field(5).into(),
                fds: word(6),
            },
            (Addressing::Linear, _) => Pointers {
                fop: word(4) & FOP_MASK,
                fip: linear(3).into(),
                fcs: 0,
                fdp: linear(5).into(),
                fds: 0,
            },
        };
        Self {
            fcw: word(0),
            fsw: word(1),
            ftw: word(2),
            pointers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Environment = Environment {
        fcw: 0x027f,
        fsw: 0x3800,
        ftw: 0x3fff,
        pointers: Pointers {
            fop: 0x5c1,
            fip: 0x1234,
            fcs: 0xf000,
            fdp: 0x5678,
            fds: 0x2000,
        },
    };

    #[test]
    fn protected_mode_formats_round_trip() {
        let bytes = SAMPLE.encode(Size::Bits32, Addressing::Protected);
        assert_eq!(bytes[..4], [0x7f, 0x02, 0xff, 0xff]);
        assert_eq!(bytes[16..20], [0x00, 0xf0, 0xc1, 0x05]);
        assert_eq!(
            Environment::decode(&bytes, Size::Bits32, Addressing::Protected),
            SAMPLE
        );
        let bytes = SAMPLE.encode(Size::Bits16, Addressing::Protected);
        assert_eq!(bytes.len(), 14);
        let without_opcode = Environment {
            pointers: Pointers {
                fop: 0,
                ..SAMPLE.pointers
            },
            ..SAMPLE
        };
        assert_eq!(
            Environment::decode(&bytes, Size::Bits16, Addressing::Protected),
            without_opcode
        );
    }

    #[test]
    fn real_mode_formats_hold_linear_addresses() {
        let linear = Pointers {
            fop: 0x5c1,
            fip: 0xf1234,
            fcs: 0,
            fdp: 0x25678,
            fds: 0,
        };
        for size in [Size::Bits16, Size::Bits32] {
            let bytes = SAMPLE.encode(size, Addressing::Linear);
            assert_eq!(bytes.len(), size.bytes());
            assert_eq!(
                Environment::decode(&bytes, size, Addressing::Linear).pointers,
                linear
            );
        }
        let bytes = SAMPLE.encode(Size::Bits16, Addressing::Linear);
        assert_eq!(bytes[6..10], [0x34, 0x12, 0xc1, 0xf5]);
    }
}
