//! [`Reg`] and [`Mem`]: registers and memory operands of host instructions.

/// A 64-bit general-purpose register of the host, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub(super) u8);

pub const RAX: Reg = Reg(0);
pub const RCX: Reg = Reg(1);
pub const RDX: Reg = Reg(2);
pub const RBX: Reg = Reg(3);
pub const RSP: Reg = Reg(4);
pub const RBP: Reg = Reg(5);
pub const RSI: Reg = Reg(6);
pub const RDI: Reg = Reg(7);
pub const R8: Reg = Reg(8);
pub const R9: Reg = Reg(9);
pub const R10: Reg = Reg(10);
pub const R11: Reg = Reg(11);
pub const R12: Reg = Reg(12);
pub const R13: Reg = Reg(13);
pub const R14: Reg = Reg(14);
pub const R15: Reg = Reg(15);

impl Reg {
    /// The register's number, 0..16.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The part of the number that ModRM, SIB and opcodes hold.
    pub(super) const fn low(self) -> u8 {
        self.0 & 7
    }

    /// The part of the number that a prefix holds.
    pub(super) const fn high(self) -> u8 {
        self.0 >> 3
    }
}

/// A memory operand: base + index * 2^scale + displacement, at a 64-bit address or in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Base register.
    pub base: Option<Reg>,
    /// Index register, not RSP, and log2 of its scale.
    pub index: Option<(Reg, u8)>,
    /// Displacement.
    pub disp: i32,
    /// Whether the address has 32 bits and counts from GS's base.
    pub window: bool,
}

impl Mem {
    /// Places the operand in the window.
    pub fn in_window(self) -> Self {
        Self {
            window: true,
            ..self
        }
    }
}

/// The memory operand [`base` + `disp`].
pub fn at(base: Reg, disp: i32) -> Mem {
    Mem {
        base: Some(base),
        index: None,
        disp,
        window: false,
    }
}

/// The memory operand [`base` + `index` * 2^`scale` + `disp`].
pub fn indexed(base: Reg, index: Reg, scale: u8, disp: i32) -> Mem {
    Mem {
        base: Some(base),
        index: Some((index, scale)),
        disp,
        window: false,
    }
}
