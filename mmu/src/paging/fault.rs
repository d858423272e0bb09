//! The page-fault exception and its error code (SDM Vol. 3A, 4.7 Page-Fault Exceptions).

use std::fmt;

use super::control::{Access, Paging, Privilege};
use super::walk::NoTranslation;
use crate::addr::LinearAddr;

/// A page fault to deliver: vector 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The linear address for CR2: the first byte of the access that cannot be translated.
    pub addr: LinearAddr,
    /// The error code.
    pub code: PageFaultCode,
}

/// Error code of a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageFaultCode {
    bits: u8,
    tag: Tag,
}

/// A byte whose unused values keep `Result<u64, MemFault>` at 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Tag {
    PageFault,
}

impl PageFaultCode {
    /// P: there is a translation and it forbids the access (or reserved bits are set); clear = a page was not present.
    pub const PRESENT: u32 = 1 << 0;
    /// W/R: the access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// U/S: the access was a user-mode access.
    pub const USER: u32 = 1 << 2;
    /// RSVD: a present entry sets reserved bits.
    pub const RESERVED: u32 = 1 << 3;
    /// I/D: the access was an instruction fetch. Reported only while execute-disable is in force.
    pub const FETCH: u32 = 1 << 4;

    /// The flags with their names.
    const FLAGS: [(u32, &'static str); 5] = [
        (Self::PRESENT, "P"),
        (Self::WRITE, "W"),
        (Self::USER, "U"),
        (Self::RESERVED, "RSVD"),
        (Self::FETCH, "I"),
    ];

    /// The code with these flags.
    fn new(flags: [(u32, bool); 5]) -> Self {
        let bits = flags
            .into_iter()
            .fold(0, |bits, (flag, set)| bits | (u32::from(set) * flag));
        Self {
            bits: bits as u8,
            tag: Tag::PageFault,
        }
    }

    /// The error code as the processor pushes it.
    pub fn bits(self) -> u32 {
        self.bits.into()
    }
}

/// The reason why a walk does not serve an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// No translation exists.
    NoTranslation(NoTranslation),
    /// The translation forbids the access.
    Forbidden,
}

impl PageFault {
    pub(crate) fn new(
        addr: LinearAddr,
        cause: Cause,
        access: Access,
        privilege: Privilege,
        paging: &Paging,
    ) -> Self {
        let present = cause != Cause::NoTranslation(NoTranslation::NotPresent);
        let reserved = cause == Cause::NoTranslation(NoTranslation::Reserved);
        let code = PageFaultCode::new([
            (PageFaultCode::PRESENT, present),
            (PageFaultCode::WRITE, access == Access::Write),
            (PageFaultCode::USER, privilege == Privilege::User),
            (PageFaultCode::RESERVED, reserved),
            (
                PageFaultCode::FETCH,
                access == Access::Fetch && paging.execute_disable(),
            ),
        ]);
        Self { addr, code }
    }
}

impl fmt::Debug for PageFaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = |flag: &(u32, &str)| self.bits() & flag.0 != 0;
        let set: Vec<_> = Self::FLAGS
            .into_iter()
            .filter(is_set)
            .map(|flag| flag.1)
            .collect();
        write!(f, "PageFaultCode({})", set.join("|"))
    }
}
