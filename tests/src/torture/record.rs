//! [`Record`]: an operation of the script, as `guest-kernels/kernels/torture.S` reads it.

use std::fmt;

/// Bytes of a record.
pub const RECORD: usize = 16;
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
    /// A push.
    Push32,
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
    pub address: u32,
    /// The second operand.
    pub operand: u32,
    /// The expected value; CR2, if the access must fault.
    pub expected: u32,
}

impl Record {
    /// Creates a record of an operation that has no expectation.
    pub fn new(operation: Operation, address: u32, operand: u32) -> Self {
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
        let first =
            self.operation as u32 | u32::from(self.count) << 8 | u32::from(self.error) << 16;
        words([first, self.address, self.operand, self.expected])
    }
}

/// Returns the bytes of the script's header.
pub fn header(pool: u32, tables: u32) -> [u8; RECORD] {
    words([MAGIC, pool, tables, 0])
}

fn words(words: [u32; 4]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
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
            (..=6 | 8..=12, _) => write!(f, " count {error:x}/{count} step {expected:x}"),
            (_, NO_FAULT) => write!(f, " count {count}: {expected:08x}"),
            _ => write!(f, " count {count}: fault {error:x} at {expected:08x}"),
        }
    }
}
