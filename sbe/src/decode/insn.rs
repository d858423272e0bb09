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
    /// Displacement, which is sign-extended; from the next instruction if [`Flags::RIP`] is set.
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
    /// The instruction was decoded in 64-bit mode: its address size is 64 bits, or 32 with [`Self::ADDR32`].
    pub const LONG: u8 = 1 << 4;
    /// 32-bit address size in 64-bit mode.
    pub const ADDR32: u8 = 1 << 5;
    /// The memory operand is relative to RIP.
    pub const RIP: u8 = 1 << 6;
    /// Other processors and devices see what comes before it in memory before what comes after it: LOCK, XCHG of memory, and fences
    /// (SDM Vol. 3A, 8.2.2 "Memory Ordering in P6 and More Recent Processor Families").
    pub const BARRIER: u8 = 1 << 3;

    /// Whether all given flags are set.
    #[inline(always)]
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// Whether the address size is 32 bits outside of 64-bit mode, which is so common that it has a way of its own.
    #[inline(always)]
    fn is_plain32(self) -> bool {
        self.0 & (Self::ADDR16 | Self::LONG) == 0
    }
}

/// The operands, prefixes and length of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// The memory operand.
    pub mem: MemRef,
    /// The immediate, which is sign-extended; the displacement of a relative branch, the offset of a far pointer, the lower half of
    /// a 64-bit immediate or absolute address.
    pub imm: u32,
    /// The upper half of a 64-bit immediate or absolute address; the second immediate; the selector of a far pointer; the template
    /// number of an x87 or SIMD instruction.
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
    pub fn effective_address(&self, cpu: &Cpu) -> u64 {
        let mem = &self.mem;
        let address = cpu
            .regs
            .get64(mem.base)
            .wrapping_add(cpu.regs.get64(mem.index) << mem.scale)
            .wrapping_add(sign_extend(mem.displacement));
        if self.flags.is_plain32() {
            return u64::from(address as u32);
        }
        let next = match self.flags.has(Flags::RIP) {
            true => cpu.eip,
            false => 0,
        };
        self.wrap_address(address.wrapping_add(next))
    }

    /// Cuts `address` to the instruction's address size.
    #[inline(always)]
    pub fn wrap_address(&self, address: u64) -> u64 {
        if self.flags.is_plain32() {
            u64::from(address as u32)
        } else if self.flags.has(Flags::ADDR16) {
            u64::from(address as u16)
        } else if self.flags.has(Flags::ADDR32) {
            u64::from(address as u32)
        } else {
            address
        }
    }

    /// The immediate, sign-extended.
    #[inline(always)]
    pub fn immediate(&self) -> u64 {
        sign_extend(self.imm)
    }

    /// The 64-bit immediate of MOV.
    pub fn immediate64(&self) -> u64 {
        u64::from(self.aux) << 32 | u64::from(self.imm)
    }

    /// The index or count register `register`, cut to the address size.
    #[inline(always)]
    pub fn address_register(&self, cpu: &Cpu, register: u8) -> u64 {
        self.wrap_address(cpu.regs.get64(register))
    }

    /// Sets the index or count register `register`, as wide as the address size.
    #[inline(always)]
    pub fn set_address_register(&self, cpu: &mut Cpu, register: u8, value: u64) {
        if self.flags.is_plain32() {
            cpu.regs.set(register, value as u32);
        } else if self.flags.has(Flags::ADDR16) {
            cpu.regs.set16(register, value as u16);
        } else {
            cpu.regs.set64(register, self.wrap_address(value));
        }
    }
}

#[inline(always)]
fn sign_extend(value: u32) -> u64 {
    i64::from(value.cast_signed()).cast_unsigned()
}
