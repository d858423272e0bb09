//! [`Rule`]: the rules that emitted code has to obey.

use std::fmt;

/// A violation of a rule by an instruction of emitted code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{offset:#x}: {instruction}: {rule}")]
pub struct Violation {
    /// Arena offset of the instruction.
    pub offset: u32,
    /// The instruction as text.
    pub instruction: String,
    /// The rule that it breaks.
    pub rule: Rule,
}

/// A rule that emitted code has to obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Every byte belongs to an instruction.
    #[error("bytes that are no instruction")]
    Undecodable,
    /// Every instruction can be reached from the entry.
    #[error("no way leads here")]
    Unreachable,
    /// Fragments have no loops but through links, so that each instruction is checked once.
    #[error("a loop within the fragment")]
    Loop,
    /// Code ends with a jump.
    #[error("continues behind the end of the code")]
    FallsOff,
    /// Branches lead to instructions of the fragment, trampolines and entries.
    #[error("leads to where nothing begins")]
    Target,
    /// Only operands of MOV r64, imm64 are replaced.
    #[error("replaces what is no number")]
    Number,
    /// Trampolines are entered with what they need.
    #[error("enters a trampoline without {0}")]
    Contract(Need),
    /// The guest's registers have 32 bits wherever control may leave 32-bit code.
    #[error("leaves with more than 32 bits in guest register {0}")]
    Wide(usize),
    /// The stack is at its level on entry wherever control leaves for good, with the caller's page on top in calls.
    #[error("unbalanced stack")]
    Stack,
    /// Every call counts a poll.
    #[error("call without a poll")]
    Poll,
    /// Indirect jumps go where the code table leads for the EIP in R8.
    #[error("jumps to an unproven address")]
    Indirect,
    /// Only allowed instructions occur.
    #[error("instruction not allowed")]
    Instruction,
    /// Only known segments and address sizes occur. The stack segment, by RSP or RBP as base, is not among those by which the
    /// guest's memory is reached where that may fault: it raises another signal.
    #[error("segment or address size not allowed")]
    Segment,
    /// R15 and RSP are left alone; so are R13 and R14 where they are not the guest's, but for a page's address in R13 with 32-bit linear
    /// addresses.
    #[error("writes register {0}")]
    Pinned(usize),
    /// Memory is reached by proven addresses only.
    #[error("unproven address")]
    Address,
    /// Accesses lie in the bytes that the slot was probed for.
    #[error("access beyond what was probed")]
    Size,
    /// Each access to a window may fault, and with 48-bit linear addresses each first access through a slot: the fault map knows its
    /// instruction, and nothing of the guest's has changed since that began.
    #[error("may fault where the instruction cannot begin anew")]
    Restart,
    /// Memory is written through slots for writing.
    #[error("write through a slot for reading")]
    ReadSlot,
    /// Operands of 16 bytes are aligned where that is needed.
    #[error("operand that may not be aligned")]
    Alignment,
    /// Only some fields of the context are written.
    #[error("access to a field of the context that is not allowed")]
    Field,
    /// All tables are those of one privilege level.
    #[error("tables of two privilege levels")]
    Tables,
    /// Tables are indexed by a linear address.
    #[error("unproven index of a table")]
    Index,
    /// Divisions raise no exception.
    #[error("division that may fault")]
    Division,
    /// x87, MMX and SSE instructions find the guest's state.
    #[error("the guest's FPU state may not be loaded")]
    Fpu,
    /// x87 exceptions stay masked.
    #[error("may unmask FPU exceptions")]
    ControlWord,
}

/// A need of a trampoline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A value in R8 of the code's width.
    Word8,
    /// The complement of a value in R8 of the code's width.
    Inverted8,
    /// A 32-bit value in R9.
    Word9,
    /// An offset in a page in R9.
    Offset9,
    /// 64-bit code.
    Long,
    /// The right kind of branch: a call, or a jump.
    Linkage,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word8 => "an address in R8",
            Self::Inverted8 => "the complement of an address in R8",
            Self::Word9 => "32 bits in R9",
            Self::Offset9 => "an offset in R9",
            Self::Long => "64-bit code",
            Self::Linkage => "the right kind of branch",
        })
    }
}
