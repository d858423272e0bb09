//! [`Record`]: an operation of the script, as `guest-kernels/kernels/torture.inc` reads it.

use std::fmt;

use super::code::code;

/// Bytes of a record.
pub const RECORD: usize = 32;
/// The header's magic number.
const MAGIC: u32 = 0x5254_4e54;
/// The expected error of an access that does not fault.
pub const NO_FAULT: u16 = 0xffff;

/// An operation. The names of accesses end in the bits that they transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Ends the script.
    Finish,
    /// Goes to ring 3.
    ToUser,
    /// Goes to ring 0.
    ToKernel,
    /// Prints the hash.
    Checkpoint,
    /// Stores the operand.
    Store,
    /// Sets the bits of the operand.
    Set,
    /// Stores many words.
    Fill,
    /// Compares a word under a mask.
    Check,
    /// INVLPG.
    Invlpg,
    /// MOV to CR0.
    Cr0,
    /// MOV to CR3.
    Cr3,
    /// MOV to CR4.
    Cr4,
    /// Sets or clears EFER.NXE.
    Nxe,
    /// A read.
    Read8,
    /// A read.
    Read16,
    /// A read.
    Read32,
    /// A write.
    Write8,
    /// A write.
    Write16,
    /// A write.
    Write32,
    /// A read and a write: XADD.
    Modify32,
    /// A jump to code that loads EAX and jumps back.
    Fetch,
    /// REP MOVSD.
    Movs,
    /// A push of 32-bit code.
    Push32,
    /// A push of 64-bit code, as all operations from here on.
    Push64,
    /// A read.
    Read64,
    /// A write.
    Write64,
    /// A read and a write: XADD.
    Modify64,
    /// Stores the operand.
    Store64,
}

impl Operation {
    /// Bytes of an access.
    pub fn size(self) -> u64 {
        match self {
            Self::Read8 | Self::Write8 => 1,
            Self::Read16 | Self::Write16 => 2,
            Self::Push64 | Self::Read64 | Self::Write64 | Self::Modify64 => 8,
            Self::Fetch => code(0).len() as u64,
            _ => 4,
        }
    }

    /// Whether it is an access that reads data and nothing else.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::Read8 | Self::Read16 | Self::Read32 | Self::Read64
        )
    }

    /// Whether it is a push, which writes below its address, in ring 3.
    pub fn is_push(self) -> bool {
        matches!(self, Self::Push32 | Self::Push64)
    }
}

/// A record of the script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The operation.
    pub operation: Operation,
    /// Elements of MOVS; 0 if FILL stores quadwords; not 0 if the ring changes by SYSEXIT or SYSENTER.
    pub count: u8,
    /// The expected error code, or [`NO_FAULT`]; for FILL, the number of values.
    pub error: u16,
    /// The address, or the value of a control register.
    pub address: u64,
    /// The second operand.
    pub operand: u64,
    /// The expected value; CR2, if the access must fault.
    pub expected: u64,
}

impl Record {
    /// Creates a record of an operation that has no expectation.
    pub fn new(operation: Operation, address: u64, operand: u64) -> Self {
        Self {
            operation,
            count: 0,
            error: NO_FAULT,
            address,
            operand,
            expected: 0,
        }
    }

    /// Returns the bytes of the record.
    pub fn bytes(&self) -> [u8; RECORD] {
        let first = u64::from(self.operation as u8)
            | u64::from(self.count) << 8
            | u64::from(self.error) << 16;
        words([first, self.address, self.operand, self.expected])
    }
}

/// Returns the bytes of the script's header.
pub fn header(pool: u32, tables: u32, home: u32) -> [u8; RECORD] {
    words([MAGIC, pool, tables, home].map(u64::from))
}

fn words(words: [u64; 4]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            count,
            error,
            address,
            operand,
            expected,
        } = self;
        write!(f, "{operation:?} {address:08x} {operand:08x}")?;
        match (*operation as u8, *error) {
            (..=6 | 8..=12 | 27.., _) => write!(f, " count {error:x}/{count} step {expected:x}"),
            (_, NO_FAULT) => write!(f, " count {count}: {expected:08x}"),
            _ => write!(f, " count {count}: fault {error:x} at {expected:08x}"),
        }
    }
}
