//! [`Paging`]: the bits of control registers on which translation depends.

use crate::addr::{LinearAddr, LinearWidth, PAGE_SHIFT};

/// The translation of linear addresses (SDM Vol. 3A, 4.1.1 Four Paging Modes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PagingMode {
    /// CR0.PG = 0: linear addresses are physical addresses.
    #[default]
    Off,
    /// CR0.PG = 1, CR4.PAE = 0: 32-bit paging, two levels, 4 KiB and (with PSE) 4 MiB pages.
    TwoLevel,
    /// CR0.PG = 1, CR4.PAE = 1, EFER.LMA = 0: PAE paging, four pointers in registers and two levels, 4 KiB and 2 MiB pages.
    Pae,
    /// CR0.PG = 1, CR4.PAE = 1, EFER.LMA = 1: 4-level paging of 48-bit addresses, with 4 KiB, 2 MiB and, where the processor has
    /// them, 1 GiB pages.
    FourLevel,
}

impl PagingMode {
    /// The width of the addresses that are translated.
    pub(crate) const fn width(self) -> LinearWidth {
        match self {
            Self::Off | Self::TwoLevel | Self::Pae => LinearWidth::Bits32,
            Self::FourLevel => LinearWidth::Bits48,
        }
    }

    /// The bits of `addr` that are the linear address.
    pub(crate) const fn cut(self, addr: LinearAddr) -> LinearAddr {
        self.add(addr, 0)
    }

    /// The address `bytes` behind `addr`. It wraps at the end of the linear addresses.
    pub(crate) const fn add(self, addr: LinearAddr, bytes: u32) -> LinearAddr {
        match self.width() {
            LinearWidth::Bits32 => addr.wrapping_add32(bytes),
            LinearWidth::Bits48 => addr.wrapping_add(bytes as u64),
        }
    }

    /// Whether an address, cut, is one of the linear addresses.
    pub(crate) const fn is_canonical(self, addr: LinearAddr) -> bool {
        match self.width() {
            LinearWidth::Bits32 => true,
            LinearWidth::Bits48 => addr.is_canonical(),
        }
    }
}

/// The paging registers of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Paging {
    /// The paging mode that CR0.PG, CR4.PAE and EFER.LMA select.
    pub mode: PagingMode,
    /// CR4.PSE: 4 MiB pages in 32-bit paging. The other modes have large pages with or without.
    pub pse: bool,
    /// CR0.WP: read-only pages bind the supervisor too.
    pub wp: bool,
    /// CR4.PGE: the G bit of entries counts.
    pub pge: bool,
    /// EFER.NXE: bit 63 of entries of 8 bytes forbids instruction fetches; if clear, it is reserved.
    pub nxe: bool,
    /// CR3: address of the page directory, of the page map (PML4) in 4-level paging, or of the pointer table that
    /// [`Mmu::load_pdptes`](crate::Mmu::load_pdptes) loads in PAE paging.
    pub cr3: u64,
}

/// The properties of paging that differ among models of processors, as CPUID announces them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagingModel {
    /// Width of guest-physical addresses in bits (MAXPHYADDR; leaf 0x80000008, EAX bits 7:0): 36 to 52. Address bits from there up
    /// are reserved in paging structures.
    pub max_phys_addr: u32,
    /// Width of linear addresses (leaf 0x80000008, EAX bits 15:8). [`PagingMode::FourLevel`] needs 48 bits.
    pub linear_width: LinearWidth,
    /// 1 GiB pages in 4-level paging (leaf 0x80000001, EDX bit 26).
    pub gib_pages: bool,
}

impl PagingModel {
    /// A processor without IA-32e mode, with the 36 bits of physical addresses that PSE-36 and PAE reach.
    pub const IA32: Self = Self {
        max_phys_addr: 36,
        linear_width: LinearWidth::Bits32,
        gib_pages: false,
    };

    /// A processor with IA-32e mode, 40 bits of physical addresses and 1 GiB pages.
    pub const X86_64: Self = Self {
        max_phys_addr: 40,
        linear_width: LinearWidth::Bits48,
        gib_pages: true,
    };

    /// The bits of a guest-physical address that are the number of a frame: MAXPHYADDR-1:12.
    pub(super) const fn frame_bits(&self) -> u64 {
        (u64::MAX >> (u64::BITS - self.max_phys_addr)) & (u64::MAX << PAGE_SHIFT)
    }
}

impl Default for PagingModel {
    /// [`PagingModel::IA32`].
    fn default() -> Self {
        Self::IA32
    }
}

impl Paging {
    /// Whether execute-disable is in force: entries of 8 bytes, with EFER.NXE.
    pub(crate) fn execute_disable(&self) -> bool {
        self.nxe && matches!(self.mode, PagingMode::Pae | PagingMode::FourLevel)
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
