//! [`Trampolines`]: the fixed code at the start of the arena: the way in, the ways out, the dispatcher, and code too long to be
//! repeated in every fragment.
//!
//! Fragments name a trampoline by [`Trampoline`]; a new one is a line of the table below, an emitter in `emit`, and, if fragments may
//! enter it, a contract in `check::contract`.

mod emit;

use super::arena::Arena;
use super::asm::Asm;
use super::context::AccessKind;
use crate::cpu::segment::SegReg;
use mmu::LinearWidth;
use std::fmt;
use std::io;

/// Defines [`Trampoline`] by a table with a line for each that has no variants: its name in the code and in dumps. The order is that
/// of their code; the others lie behind them.
macro_rules! trampolines {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// The name of a trampoline.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Trampoline {
            $($(#[doc = $doc])* $name,)*
            /// Called with a selector in R8D and the instruction's offset in R9D: loads the segment register, or exits.
            LoadSegment(SegReg),
            /// Called with an address in R8D and the instruction's offset in R9D: returns with a slot in RCX, or exits.
            Miss(AccessKind),
        }

        /// The trampolines of the table.
        const FIRST: &[Trampoline] = &[$(Trampoline::$name),*];

        /// The numbers of the trampolines of the table.
        enum Number {
            $($name),*
        }

        impl Trampoline {
            /// The trampoline's position in [`Self::all`].
            fn number(self) -> usize {
                match self {
                    $(Self::$name => Number::$name as usize,)*
                    Self::LoadSegment(register) => SEGMENTS + register as usize,
                    Self::Miss(kind) => MISSES + kind.number() as usize,
                }
            }
        }

        impl fmt::Display for Trampoline {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::LoadSegment(register) => {
                        write!(f, "load_{}", format!("{register:?}").to_lowercase())
                    }
                    Self::Miss(kind) => {
                        let verb = if kind.writes() { "write" } else { "read" };
                        write!(f, "miss_{verb}_{}", kind.size())
                    }
                }
            }
        }
    };
}

trampolines! {
    /// Exits to look up the EIP in R8D. It lies at arena offset 0, which is what entry tables hold for unknown entries.
    Lookup = "lookup",
    /// Saves the guest's state and returns to the caller of `Enter`; EIP and reason are already in the context.
    Exit = "exit",
    /// `extern "C" fn(*mut Context, target)`: loads the guest's state and jumps to `target`.
    Enter = "enter",
    /// Takes the outermost host return: keeps the stack and dispatches.
    ReturnUnderflow = "return_underflow",
    /// Takes guest returns whose address is not the expected one: as `PolledDispatch`, with EIP inverted in R8.
    ReturnMismatch = "return_mismatch",
    /// Counts a poll and jumps to the code of the EIP in R8D, if that is known; else exits.
    PolledDispatch = "polled_dispatch",
    /// Jumps as `Dispatch` does, to an EIP to which no indirect branch has led.
    DirectDispatch = "direct_dispatch",
    /// Jumps to the code of the EIP in R8D, if that is known; else exits.
    Dispatch = "dispatch",
    /// Exits to have the instruction at R8D emulated: entry tables lead here for such instructions.
    Emulate = "emulate",
    /// Exits to have the instruction at offset R9D of the page emulated.
    EmulateAt = "emulate_at",
    /// Exits before the instruction at offset R9D of the page, because the polls are used up.
    BudgetAt = "budget_at",
    /// Exits to link the branch, to offset R9D of the page, whose site R8D names.
    Link = "link",
    /// Exits to link the branch, to the EIP in R8D in another page, whose site R9D names.
    LinkAcross = "link_across",
    /// Exits after a fault of the host.
    WindowFault = "window_fault",
    /// Called with the instruction's offset in R9D: loads the guest's FPU state, or exits.
    LoadFpu = "load_fpu",
    /// Executes SYSENTER at offset R9D of the page.
    Sysenter = "sysenter",
    /// Executes SYSEXIT at offset R9D of the page.
    Sysexit = "sysexit",
    /// Executes SYSCALL at offset R9D of the page; R8 is the address of the next instruction.
    Syscall = "syscall",
    /// Executes SYSRET to 64-bit code at offset R9D of the page.
    Sysret = "sysret",
    /// Executes WRMSR at offset R9D of the page; R8 is the address of the next instruction.
    WriteMsr = "write_msr",
}

// Numbers of the first trampolines behind those of the table.
const SEGMENTS: usize = FIRST.len();
const MISSES: usize = SEGMENTS + SegReg::ALL.len();
/// The number of trampolines.
const COUNT: usize = MISSES + AccessKind::COUNT;

impl Trampoline {
    /// All trampolines, in the order of their code.
    pub fn all() -> impl Iterator<Item = Self> {
        let first = FIRST.iter().copied();
        first
            .chain(SegReg::ALL.map(Self::LoadSegment))
            .chain(AccessKind::all().map(Self::Miss))
    }
}

/// The arena offsets of all trampolines.
#[derive(Clone, Copy, Debug)]
pub struct Trampolines {
    /// Arena offsets by number.
    offsets: [u32; COUNT],
    end: [u32; 2],
    width: LinearWidth,
}

impl Trampolines {
    /// Emits all trampolines, for linear addresses of this width, into an empty arena.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn emit(arena: &mut Arena, width: LinearWidth) -> io::Result<Self> {
        let mut asm = Asm::new();
        asm.restart(arena.next());
        let labels = std::array::from_fn(|_| asm.label());
        let setting = emit::Setting { labels, width };
        let mut offsets = [0; COUNT];
        for trampoline in Trampoline::all() {
            let number = trampoline.number();
            asm.bind(labels[number]);
            offsets[number] = asm.here();
            emit::emit(&mut asm, trampoline, &setting);
        }
        let code = asm.finish().map_err(io::Error::other)?;
        if !arena.append(code) {
            return Err(io::Error::other("the trampolines do not fit"));
        }
        let end = arena.next();
        Ok(Self {
            offsets,
            end,
            width,
        })
    }

    /// Arena offset of a trampoline.
    pub fn at(&self, trampoline: Trampoline) -> u32 {
        self.offsets[trampoline.number()]
    }

    /// The width of linear addresses that they are for.
    pub fn width(&self) -> LinearWidth {
        self.width
    }

    /// The arena offsets at which the trampolines end and fragments begin, in both halves.
    pub fn end(&self) -> [u32; 2] {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_positions_and_offsets_grow() {
        let mut arena = Arena::new(1 << 20).expect("memory for code");
        let trampolines = Trampolines::emit(&mut arena, LinearWidth::Bits32).expect("they fit");
        assert_eq!(Trampoline::all().count(), COUNT);
        let mut offsets = Vec::new();
        for (position, trampoline) in Trampoline::all().enumerate() {
            assert_eq!(trampoline.number(), position, "{trampoline}");
            offsets.push(trampolines.at(trampoline));
        }
        assert_eq!(offsets[0], 0);
        let distinct: BTreeSet<u32> = offsets.iter().copied().collect();
        assert_eq!(distinct.len(), COUNT);
        assert!(offsets.is_sorted());
    }
}
