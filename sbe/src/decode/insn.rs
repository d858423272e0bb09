//! [`Insn`]: the operands, prefixes and length of an instruction. With its handler and its key in the decode cache it fits a
//! 64-byte cache line.

use crate::cpu::Cpu;
use crate::cpu::regs::ZERO;
use crate::cpu::segment::SegReg;

/// The place of an operand. Its width is part of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// No such operand.
    None,
    /// The register of this number, of the kind the handler expects.
    Reg(u8),
    /// Memory at [`Insn::mem`].
    Mem,
    /// The immediate [`Insn::imm`].
    Imm,
}

/// A memory operand: `segment:[base + (index << scale) + displacement]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRef {
    /// Displacement, sign-extended.
    pub displacement: u32,
    /// Base register, or [`ZERO`].
    pub base: u8,
    /// Index register, or [`ZERO`].
    pub index: u8,
    /// Shift of the index, 0..=3.
    pub scale: u8,
    /// Segment after overrides.
    pub segment: SegReg,
}

impl MemRef {
    /// The memory operand of instructions that have none.
    pub const NONE: Self = Self {
        displacement: 0,
        base: ZERO,
        index: ZERO,
        scale: 0,
        segment: SegReg::Ds,
    };
}

/// The prefixes and sizes that a handler may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// REP or REPE.
    pub const REP: u8 = 1 << 0;
    /// REPNE.
    pub const REPNE: u8 = 1 << 1;
    /// 16-bit address size.
    pub const ADDR16: u8 = 1 << 2;
    /// Other processors and devices see what comes before it in memory before what comes after it: LOCK, XCHG of memory, and fences
    /// (SDM Vol. 3A, 8.2.2 "Memory Ordering in P6 and More Recent Processor Families").
    pub const BARRIER: u8 = 1 << 3;

    /// Whether all given flags are set.
    #[inline(always)]
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

/// The operands, prefixes and length of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// The memory operand.
    pub mem: MemRef,
    /// The immediate, sign-extended; the displacement of a relative branch, the offset of a far pointer.
    pub imm: u32,
    /// The second immediate; the selector of a far pointer; the template number of an x87 or SIMD instruction.
    pub aux: u32,
    /// The operands, destination first.
    pub ops: [Operand; 3],
    /// Length in bytes, 1..=15.
    pub len: u8,
    /// Prefixes and sizes.
    pub flags: Flags,
}

impl Insn {
    /// An instruction of one byte without operands.
    pub const NONE: Self = Self {
        mem: MemRef::NONE,
        imm: 0,
        aux: 0,
        ops: [Operand::None; 3],
        len: 1,
        flags: Flags(0),
    };

    /// Effective address of the memory operand within its segment.
    #[inline(always)]
    pub fn effective_address(&self, cpu: &Cpu) -> u32 {
        let mem = &self.mem;
        let address = cpu
            .regs
            .get(mem.base)
            .wrapping_add(cpu.regs.get(mem.index) << mem.scale)
            .wrapping_add(mem.displacement);
        self.wrap_address(address)
    }

    /// Cuts `address` to the instruction's address size.
    #[inline(always)]
    pub fn wrap_address(&self, address: u32) -> u32 {
        if self.flags.has(Flags::ADDR16) {
            address & 0xffff
        } else {
            address
        }
    }
}
