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
    // Flags rather than a number: their unused values keep `Result<u64, MemFault>` at 16 bytes.
    present: bool,
    write: bool,
    user: bool,
    reserved: bool,
    fetch: bool,
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

    /// The error code as the processor pushes it.
    pub fn bits(self) -> u32 {
        self.flags()
            .map(|(set, bit, _)| u32::from(set) * bit)
            .into_iter()
            .sum()
    }

    fn flags(self) -> [(bool, u32, &'static str); 5] {
        [
            (self.present, Self::PRESENT, "P"),
            (self.write, Self::WRITE, "W"),
            (self.user, Self::USER, "U"),
            (self.reserved, Self::RESERVED, "RSVD"),
            (self.fetch, Self::FETCH, "I"),
        ]
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
        let code = PageFaultCode {
            present: cause != Cause::NoTranslation(NoTranslation::NotPresent),
            write: access == Access::Write,
            user: privilege == Privilege::User,
            reserved: cause == Cause::NoTranslation(NoTranslation::Reserved),
            fetch: access == Access::Fetch && paging.execute_disable(),
        };
        Self { addr, code }
    }
}

impl fmt::Debug for PageFaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self
            .flags()
            .into_iter()
            .filter(|flag| flag.0)
            .map(|flag| flag.2)
            .collect();
        write!(f, "PageFaultCode({})", set.join("|"))
    }
}
