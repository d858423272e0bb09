//! [`Rounding`]: whether a SIMD instruction would round if the exponent were unbounded, as PE says beside an unmasked overflow or
//! underflow
//! (SDM Vol. 1, 4.9.1.4 "Numeric Overflow Exception (#O)", 4.9.1.5 "Numeric Underflow Exception (#U)").
//!
//! The host's masked response cannot tell: a masked overflow always sets PE, and a denormal result loses bits of its own. So
//! this computes with integers. Every finite operand but zero is an odd significand times a power of two; a result is exact
//! if its own odd significand fits into the format.

use super::frame::StubFrame;
use iced_x86::{Instruction, Mnemonic, OpKind};

/// A computation that rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Conversion to single precision.
    Narrow,
}

/// Format of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Single,
    Double,
}

/// The place of the source operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Register(u8),
    Memory,
}

/// The operands of each element of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairing {
    /// The elements of the same number in both operands.
    Vertical,
    /// The same, with the sign of the second changed where the number is even: ADDSUBPS subtracts and adds by turns.
    Alternating,
    /// Adjacent elements, those of the first operand before those of the second.
    Horizontal,
}

/// The reading of denormal operands (MXCSR.DAZ).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denormals {
    /// Denormals keep their values.
    Kept,
    /// Denormals are read as zeros.
    Zeros,
}

/// A rounding of results that can overflow or underflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding {
    operation: Operation,
    format: Format,
    pairing: Pairing,
    /// Number of elements that are computed, from the lowest on.
    elements: usize,
    /// XMM register of the first operand.
    destination: u8,
    source: Operand,
}

impl Rounding {
    /// The rounding that `instruction` does, if it can overflow or underflow.
    pub fn of(instruction: &Instruction) -> Option<Self> {
        use Format::{Double, Single};
        use Operation::{Add, Divide, Multiply, Narrow, Subtract};
        let (operation, format, elements) = match instruction.mnemonic() {
            Mnemonic::Addss => (Add, Single, 1),
            Mnemonic::Addps => (Add, Single, 4),
            Mnemonic::Addsd => (Add, Double, 1),
            Mnemonic::Addpd => (Add, Double, 2),
            Mnemonic::Haddps => (Add, Single, 4),
            Mnemonic::Haddpd => (Add, Double, 2),
            Mnemonic::Subss => (Subtract, Single, 1),
            Mnemonic::Subps => (Subtract, Single, 4),
            Mnemonic::Subsd => (Subtract, Double, 1),
            Mnemonic::Subpd => (Subtract, Double, 2),
            Mnemonic::Hsubps => (Subtract, Single, 4),
            Mnemonic::Hsubpd => (Subtract, Double, 2),
            Mnemonic::Addsubps => (Add, Single, 4),
            Mnemonic::Addsubpd => (Add, Double, 2),
            Mnemonic::Mulss => (Multiply, Single, 1),
            Mnemonic::Mulps => (Multiply, Single, 4),
            Mnemonic::Mulsd => (Multiply, Double, 1),
            Mnemonic::Mulpd => (Multiply, Double, 2),
            Mnemonic::Divss => (Divide, Single, 1),
            Mnemonic::Divps => (Divide, Single, 4),
            Mnemonic::Divsd => (Divide, Double, 1),
            Mnemonic::Divpd => (Divide, Double, 2),
            Mnemonic::Cvtsd2ss => (Narrow, Double, 1),
            Mnemonic::Cvtpd2ps => (Narrow, Double, 2),
            _ => return None,
        };
        Some(Self {
            operation,
            format,
            pairing: match instruction.mnemonic() {
                Mnemonic::Haddps | Mnemonic::Haddpd | Mnemonic::Hsubps | Mnemonic::Hsubpd => {
                    Pairing::Horizontal
                }
                Mnemonic::Addsubps | Mnemonic::Addsubpd => Pairing::Alternating,
                _ => Pairing::Vertical,
            },
            elements,
            destination: instruction.op0_register().number() as u8,
            source: if instruction.op1_kind() == OpKind::Memory {
                Operand::Memory
            } else {
                Operand::Register(instruction.op1_register().number() as u8)
            },
        })
    }

    /// Whether any element rounds, given the operands in `frame`.
    pub fn is_inexact(self, frame: &StubFrame, denormals: Denormals) -> bool {
        let right = match self.source {
            Operand::Register(number) => frame.image.xmm(number),
            Operand::Memory => u128::from_le_bytes(frame.operand),
        };
        let left = match self.operation {
            Operation::Narrow => right,
            _ => frame.image.xmm(self.destination),
        };
        (0..self.elements).any(|index| match self.operands(left, right, index, denormals) {
            (Some(first), Some(second)) => rounds(self.operation, first, second, self.digits()),
            _ => false,
        })
    }

    /// The operands of element `index` of the result.
    fn operands(
        self,
        left: u128,
        right: u128,
        index: usize,
        denormals: Denormals,
    ) -> (Option<Number>, Option<Number>) {
        let number = |operand, index| Number::of(self.format.element(operand, index, denormals));
        let (first, second) = (number(left, index), number(right, index));
        match self.pairing {
            Pairing::Alternating if index.is_multiple_of(2) => (first, second.map(Number::negated)),
            Pairing::Vertical | Pairing::Alternating => (first, second),
            Pairing::Horizontal => {
                let half = self.elements / 2;
                let operand = if index < half { left } else { right };
                let at = index % half * 2;
                (number(operand, at), number(operand, at + 1))
            }
        }
    }

    /// Bits of a result's significand.
    fn digits(self) -> u32 {
        match (self.operation, self.format) {
            (Operation::Narrow, _) | (_, Format::Single) => f32::MANTISSA_DIGITS,
            (_, Format::Double) => f64::MANTISSA_DIGITS,
        }
    }
}

impl Format {
    /// Element `index` of an operand.
    fn element(self, operand: u128, index: usize, denormals: Denormals) -> f64 {
        let (value, subnormal) = match self {
            Self::Single => {
                let value = f32::from_bits((operand >> (32 * index)) as u32);
                (f64::from(value), value.is_subnormal())
            }
            Self::Double => {
                let value = f64::from_bits((operand >> (64 * index)) as u64);
                (value, value.is_subnormal())
            }
        };
        if subnormal && denormals == Denormals::Zeros {
            0.0
        } else {
            value
        }
    }
}

/// A finite number other than zero: an odd significand, with its sign, times two to the exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    significand: i128,
    exponent: u32,
}

impl Number {
    /// The parts of `value`; `None` for zeros, infinities and NaNs, whose results are never inexact. Exponents count
    /// from that of the least denormal of double precision.
    fn of(value: f64) -> Option<Self> {
        const FRACTION_BITS: u32 = f64::MANTISSA_DIGITS - 1;
        if value == 0.0 || !value.is_finite() {
            return None;
        }
        let magnitude = value.abs().to_bits();
        let fraction = magnitude & ((1 << FRACTION_BITS) - 1);
        let (significand, exponent) = match (magnitude >> FRACTION_BITS) as u32 {
            0 => (fraction, 0),
            biased => (fraction | 1 << FRACTION_BITS, biased - 1),
        };
        let zeros = significand.trailing_zeros();
        let odd = i128::from(significand >> zeros);
        Some(Self {
            significand: if value < 0.0 { -odd } else { odd },
            exponent: exponent + zeros,
        })
    }

    fn negated(self) -> Self {
        Self {
            significand: -self.significand,
            ..self
        }
    }
}

/// The number of bits that a result needs: from its highest to its lowest one.
fn bits(value: i128) -> u32 {
    let magnitude = value.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    u128::BITS - magnitude.leading_zeros() - magnitude.trailing_zeros()
}

/// Whether the result needs more than `digits` bits.
fn rounds(operation: Operation, left: Number, right: Number, digits: u32) -> bool {
    match operation {
        Operation::Add => sum_rounds(left, right.significand, right.exponent, digits),
        Operation::Subtract => sum_rounds(left, -right.significand, right.exponent, digits),
        Operation::Multiply => bits(left.significand * right.significand) > digits,
        // A quotient of odd numbers ends if the divisor divides, and is then no longer than the dividend.
        Operation::Divide => left.significand % right.significand != 0,
        Operation::Narrow => bits(right.significand) > digits,
    }
}

/// Whether a sum needs more than `digits` bits. The second summand is given in parts.
fn sum_rounds(left: Number, right: i128, exponent: u32, digits: u32) -> bool {
    let lowest = left.exponent.min(exponent);
    let (up_left, up_right) = (left.exponent - lowest, exponent - lowest);
    // The one bit at the bottom of the lower summand stays in the sum, far from the top.
    let apart = up_left.max(up_right) > digits + 1;
    apart || bits((left.significand << up_left) + (right << up_right)) > digits
}
