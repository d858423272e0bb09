//! What is different in 32-bit and in 64-bit programs: the machine, the size of an address, and the registers that hold one.

use std::fmt;

use iced_x86::code_asm::registers::gpr64::get_gpr64;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister32, AsmRegister64, AsmRegisterCr, CodeAssembler, CodeLabel, cr4,
    dword_ptr, eax, qword_ptr,
};
use iced_x86::{IcedError, Register};
use sbe::CpuModel;

/// The width of a program's code, and of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32-bit protected mode, 2-level paging.
    Narrow,
    /// 64-bit mode, 4-level paging.
    Wide,
}

impl fmt::Display for Width {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bits", self.bits())
    }
}

impl Width {
    /// Bits of code, and of an address.
    pub fn bits(self) -> u32 {
        match self {
            Self::Narrow => 32,
            Self::Wide => 64,
        }
    }

    /// Bytes of an address, of a paging entry, and of what PUSH pushes.
    pub fn bytes(self) -> u32 {
        self.bits() / 8
    }

    /// The processor that executes such code.
    pub fn model(self) -> CpuModel {
        match self {
            Self::Narrow => CpuModel::default(),
            Self::Wide => CpuModel::X86_64,
        }
    }

    /// Addresses as they lie in memory.
    pub fn addresses(self, values: &[u64]) -> Vec<u8> {
        let bytes = self.bytes() as usize;
        let address = |value: &u64| value.to_le_bytes().into_iter().take(bytes);
        values.iter().flat_map(address).collect()
    }
}

/// An operand of an instruction as it is in 64-bit code.
pub trait Whole {
    /// The operand in 64-bit code.
    type Wide;
    /// Returns the 64-bit register of which this is the low half, and other operands as they are.
    fn whole(self) -> Self::Wide;
}

impl Whole for AsmRegister32 {
    type Wide = AsmRegister64;

    fn whole(self) -> AsmRegister64 {
        get_gpr64(Register::from(self).full_register()).expect("a general register")
    }
}

/// Operands that are the same in code of both widths.
macro_rules! same {
    ($($operand:ty),*) => {$(
        impl Whole for $operand {
            type Wide = Self;

            fn whole(self) -> Self {
                self
            }
        }
    )*};
}

same!(AsmMemoryOperand, AsmRegisterCr, CodeLabel, i32);

/// Emits an instruction whose 32-bit registers are whole 64-bit ones in 64-bit code.
macro_rules! whole {
    ($code:ident.$instruction:ident($($operand:expr),+)) => {
        match $code.width() {
            $crate::width::Width::Narrow => $code.$instruction($($operand),+),
            $crate::width::Width::Wide => {
                $code.$instruction($($crate::width::Whole::whole($operand)),+)
            }
        }
    };
}
pub(crate) use whole;

/// Makes two tests, `narrow` and `wide`, of each function of a width.
macro_rules! at_both_widths {
    ($($test:ident),+ $(,)?) => {
        $crate::width::at_both_widths!(narrow, Narrow: $($test),+);
        $crate::width::at_both_widths!(wide, Wide: $($test),+);
    };
    ($name:ident, $width:ident: $($test:ident),+) => {
        mod $name {$(
            #[test]
            fn $test() {
                super::$test($crate::width::Width::$width);
            }
        )+}
    };
}
pub(crate) use at_both_widths;

/// What code of either width is made of.
pub trait ByWidth {
    /// The width of the code.
    fn width(&self) -> Width;

    /// The memory at the address in a register, which is a whole 64-bit one in 64-bit code.
    fn at(&self, base: AsmRegister32) -> AsmMemoryOperand;

    /// As [`Self::at`], for an index.
    fn scaled(&self, index: AsmRegister32, scale: u32) -> AsmMemoryOperand;

    /// The operand with the size of a whole register.
    fn sized(&self, operand: AsmMemoryOperand) -> AsmMemoryOperand;

    /// Loads a whole register.
    fn set(&mut self, register: AsmRegister32, value: u64) -> Result<(), IcedError>;

    /// Sets bits of CR4; EAX is lost.
    fn set_cr4(&mut self, bits: i32) -> Result<(), IcedError>;

    /// Returns from an interrupt.
    fn interrupt_return(&mut self) -> Result<(), IcedError>;
}

impl ByWidth for CodeAssembler {
    fn width(&self) -> Width {
        match self.bitness() {
            64 => Width::Wide,
            _ => Width::Narrow,
        }
    }

    fn at(&self, base: AsmRegister32) -> AsmMemoryOperand {
        match self.width() {
            Width::Narrow => base.into(),
            Width::Wide => base.whole().into(),
        }
    }

    fn scaled(&self, index: AsmRegister32, scale: u32) -> AsmMemoryOperand {
        match self.width() {
            Width::Narrow => index * scale,
            Width::Wide => index.whole() * scale,
        }
    }

    fn sized(&self, operand: AsmMemoryOperand) -> AsmMemoryOperand {
        match self.width() {
            Width::Narrow => dword_ptr(operand),
            Width::Wide => qword_ptr(operand),
        }
    }

    fn set(&mut self, register: AsmRegister32, value: u64) -> Result<(), IcedError> {
        match (self.width(), u32::try_from(value)) {
            (_, Ok(value)) => self.mov(register, value),
            (Width::Wide, Err(_)) => self.mov(register.whole(), value),
            (Width::Narrow, Err(error)) => panic!("{value:x}: {error}"),
        }
    }

    fn set_cr4(&mut self, bits: i32) -> Result<(), IcedError> {
        let code = self;
        whole!(code.mov(eax, cr4))?;
        code.or(eax, bits)?;
        whole!(code.mov(cr4, eax))
    }

    fn interrupt_return(&mut self) -> Result<(), IcedError> {
        match self.width() {
            Width::Narrow => self.iretd(),
            Width::Wide => self.iretq(),
        }
    }
}
