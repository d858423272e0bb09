//! [`Paging`]: the bits of control registers on which translation depends.

use crate::addr::PAGE_SIZE;

/// The translation of linear addresses (SDM Vol. 3A, 4.1.1 Four Paging Modes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PagingMode {
    /// CR0.PG = 0: linear addresses are physical addresses.
    #[default]
    Off,
    /// CR0.PG = 1, CR4.PAE = 0: 32-bit paging, two levels, 4 KiB and (with PSE) 4 MiB pages.
    TwoLevel,
    /// CR0.PG = 1, CR4.PAE = 1: PAE paging, four pointers in registers and two levels, 4 KiB and 2 MiB pages.
    Pae,
}

/// The paging registers of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Paging {
    /// The paging mode that CR0.PG and CR4.PAE select.
    pub mode: PagingMode,
    /// CR4.PSE: 4 MiB pages in 32-bit paging. PAE paging has large pages with or without.
    pub pse: bool,
    /// CR0.WP: read-only pages bind the supervisor too.
    pub wp: bool,
    /// CR4.PGE: the G bit of entries counts.
    pub pge: bool,
    /// EFER.NXE: bit 63 of PAE entries forbids instruction fetches; if clear, it is reserved.
    pub nxe: bool,
    /// CR3: address of the page directory, or of the pointer table that [`Mmu::load_pdptes`](crate::Mmu::load_pdptes)
    /// loads in PAE paging.
    pub cr3: u32,
}

impl Paging {
    /// Address of the page directory of 32-bit paging: CR3 bits 31:12.
    pub(crate) fn directory(&self) -> u32 {
        self.cr3 & !(PAGE_SIZE as u32 - 1)
    }

    /// Whether execute-disable is in force: PAE paging with EFER.NXE.
    pub(crate) fn execute_disable(&self) -> bool {
        self.mode == PagingMode::Pae && self.nxe
    }
}

/// The privilege of an access (SDM Vol. 3A, 4.6.1 Determination of Access Rights). Accesses that the processor makes implicitly
/// to descriptor tables and the TSS are `Supervisor` at any CPL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Privilege {
    /// CPL below 3, or an implicit access.
    Supervisor,
    /// CPL 3.
    User,
}

/// The kind of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write, the read half of a read-modify-write included.
    Write,
    /// Instruction fetch.
    Fetch,
}
