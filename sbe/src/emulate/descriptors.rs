//! Descriptors in the GDT and the LDT (SDM Vol. 3A, 3.4.5 "Segment Descriptors", 3.5 "System Descriptor Types").
//!
//! The processor reads and writes its tables with supervisor privilege, whatever the program's. An [`Entry`] is a
//! descriptor with the place it came from, so that its accessed or busy bit can be set there later: checks come first,
//! marks last.

use super::exec::Exec;
use crate::cpu::canonical::is_canonical;
use crate::cpu::segment::{Attributes, Descriptor, Segment, Selector};
use crate::fault::Fault;
use mmu::{LinearAddr, Privilege};

/// Bytes of a descriptor, or of the lower half of a system descriptor of IA-32e mode.
pub const DESCRIPTOR_BYTES: u32 = 8;
/// Bytes of a system descriptor of IA-32e mode.
pub const LONG_DESCRIPTOR_BYTES: u32 = 16;
/// The bits of the upper half of a system descriptor that must be zero: those in the place of its type.
const UPPER_TYPE: u64 = 0x1f << 40;
/// Byte of a descriptor that holds type, S, DPL and P.
const ACCESS_BYTE: u32 = 5;

/// The size of a gate or a task-state segment: the 80286's, the 80386's, or that of IA-32e mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// The kind of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data or stack segment.
    Data,
    /// Code segment.
    Code,
    /// Task-state segment that no task uses.
    AvailableTss(Size),
    /// Task-state segment of a running or suspended task.
    BusyTss(Size),
    /// Local descriptor table.
    Ldt,
    /// Call gate.
    CallGate(Size),
    /// Task gate.
    TaskGate,
    /// Interrupt gate.
    InterruptGate(Size),
    /// Trap gate.
    TrapGate(Size),
    /// A type that the manual reserves.
    Reserved,
}

impl Kind {
    /// The bit of a TSS descriptor's access byte that tells busy from available.
    pub const BUSY: u16 = 1 << 1;

    /// The kind that `attributes` say, in IA-32e mode if `is_long` (SDM Vol. 3A, Table 3-2 "System-Segment and Gate-Descriptor
    /// Types").
    pub fn of(attributes: Attributes, is_long: bool) -> Self {
        if attributes.is_code() {
            return Self::Code;
        }
        if attributes.is_data() {
            return Self::Data;
        }
        let size = if is_long { Size::Bits64 } else { Size::Bits32 };
        match attributes.kind() {
            0x1 | 0x3..=0x7 if is_long => Self::Reserved,
            0x1 => Self::AvailableTss(Size::Bits16),
            0x2 => Self::Ldt,
            0x3 => Self::BusyTss(Size::Bits16),
            0x4 => Self::CallGate(Size::Bits16),
            0x5 => Self::TaskGate,
            0x6 => Self::InterruptGate(Size::Bits16),
            0x7 => Self::TrapGate(Size::Bits16),
            0x9 => Self::AvailableTss(size),
            0xb => Self::BusyTss(size),
            0xc => Self::CallGate(size),
            0xe => Self::InterruptGate(size),
            0xf => Self::TrapGate(size),
            _ => Self::Reserved,
        }
    }
}

/// A descriptor and its place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The selector that names it.
    pub selector: Selector,
    /// The descriptor as it was read.
    pub descriptor: Descriptor,
    address: LinearAddr,
    is_long: bool,
}

impl Entry {
    /// Attribute bits.
    pub fn attributes(&self) -> Attributes {
        self.descriptor.attributes()
    }

    /// The kind of the descriptor.
    pub fn kind(&self) -> Kind {
        Kind::of(self.attributes(), self.is_long)
    }

    /// Whether this is a 64-bit code segment.
    pub fn is_code64(&self) -> bool {
        self.is_long && self.attributes().is_code() && self.attributes().is_long()
    }

    /// Whether this may be a code segment by its L and D bits, of which IA-32e mode does not allow both.
    pub fn has_valid_code_size(&self) -> bool {
        !self.is_code64() || !self.attributes().is_big()
    }

    /// Descriptor privilege level.
    pub fn dpl(&self) -> u8 {
        self.attributes().dpl()
    }

    /// The selector as an error code.
    pub fn error_code(&self) -> u32 {
        self.selector.error_code()
    }

    /// The segment register that the descriptor makes: a code or data segment counts as accessed once it is loaded.
    pub fn segment(&self) -> Segment {
        let attributes = self.attributes();
        let attributes = if attributes.is_code_or_data() {
            attributes.accessed()
        } else {
            attributes
        };
        Segment::new(
            self.selector,
            self.descriptor.base(),
            self.descriptor.limit(),
            attributes,
        )
    }

    /// Whether `level` or the selector's RPL is numerically greater (less privileged) than the DPL.
    pub fn is_above(&self, level: u8) -> bool {
        level.max(self.selector.rpl()) > self.dpl()
    }

    /// Raises `fault(selector)` unless the present bit is set.
    pub fn require_present(&self, fault: fn(u32) -> Fault) -> Result<(), Fault> {
        if self.attributes().is_present() {
            Ok(())
        } else {
            Err(fault(self.error_code()))
        }
    }

    fn access_byte(&self) -> LinearAddr {
        self.byte(ACCESS_BYTE)
    }

    /// The address of byte `offset` of the descriptor.
    fn byte(&self, offset: u32) -> LinearAddr {
        match self.is_long {
            true => LinearAddr::new(self.address.get().wrapping_add(offset.into())),
            false => self.address.wrapping_add32(offset),
        }
    }
}

impl Exec<'_> {
    /// The descriptor that `selector` names; `None` beyond the limit of its table. The null selector names entry 0.
    pub fn find_descriptor(&mut self, selector: Selector) -> Result<Option<Entry>, Fault> {
        let (base, limit) = self.table_of(selector);
        let last = selector.offset() + DESCRIPTOR_BYTES - 1;
        if limit.is_none_or(|limit| last > limit) {
            return Ok(None);
        }
        let address = self.cpu.system_address(base, selector.offset());
        let descriptor = Descriptor(self.load_at(address, Privilege::Supervisor)?);
        Ok(Some(Entry {
            selector,
            descriptor,
            address,
            is_long: self.cpu.is_long(),
        }))
    }

    /// The base of the table that `selector` names, and its limit if there is a table.
    fn table_of(&self, selector: Selector) -> (u64, Option<u32>) {
        let cpu = &*self.cpu;
        match selector.is_local() {
            false => (cpu.gdtr.base, Some(u32::from(cpu.gdtr.limit))),
            true => (
                cpu.ldtr.base,
                cpu.ldtr.attributes.is_present().then_some(cpu.ldtr.limit),
            ),
        }
    }

    /// The upper 32 bits of the base of a system segment, or of the offset of a call gate: zero outside of IA-32e mode.
    ///
    /// # Errors
    /// `fault(selector)` if the upper half of the descriptor is beyond the limit of its table or has a type.
    pub fn read_upper(&mut self, entry: &Entry, fault: fn(u32) -> Fault) -> Result<u64, Fault> {
        if !entry.is_long {
            return Ok(0);
        }
        let (_, limit) = self.table_of(entry.selector);
        let last = entry.selector.offset() + LONG_DESCRIPTOR_BYTES - 1;
        if limit.is_none_or(|limit| last > limit) {
            return Err(fault(entry.error_code()));
        }
        let upper: u64 = self.load_at(entry.byte(DESCRIPTOR_BYTES), Privilege::Supervisor)?;
        match upper & UPPER_TYPE {
            0 => Ok(upper << 32),
            _ => Err(fault(entry.error_code())),
        }
    }

    /// The register that a system segment, a TSS or LDT, makes.
    ///
    /// # Errors
    /// As [`Self::read_upper`]; `fault(selector)` if the base is not canonical.
    pub fn system_segment(
        &mut self,
        entry: &Entry,
        fault: fn(u32) -> Fault,
    ) -> Result<Segment, Fault> {
        let upper = self.read_upper(entry, fault)?;
        let mut segment = entry.segment();
        segment.base |= upper;
        match is_canonical(segment.base) {
            true => Ok(segment),
            false => Err(fault(entry.error_code())),
        }
    }

    /// The descriptor that `selector` names; `beyond(selector)` outside its table.
    pub fn read_descriptor(
        &mut self,
        selector: Selector,
        beyond: fn(u32) -> Fault,
    ) -> Result<Entry, Fault> {
        self.find_descriptor(selector)?
            .ok_or_else(|| beyond(selector.error_code()))
    }

    /// The descriptor that `selector` names, which only the GDT may hold: a task-state segment or an LDT. `fault(selector)` if it
    /// is elsewhere.
    pub fn read_global_descriptor(
        &mut self,
        selector: Selector,
        fault: fn(u32) -> Fault,
    ) -> Result<Entry, Fault> {
        if selector.is_local() {
            Err(fault(selector.error_code()))
        } else {
            self.read_descriptor(selector, fault)
        }
    }

    /// Sets the accessed bit in the table unless it is set, and makes the segment register.
    pub fn accept_segment(&mut self, entry: &Entry) -> Result<Segment, Fault> {
        let attributes = entry.attributes();
        if !attributes.is_accessed() {
            self.store_at(
                entry.access_byte(),
                Privilege::Supervisor,
                attributes.accessed().0 as u8,
            )?;
        }
        Ok(entry.segment())
    }

    /// Makes sure that the access byte of `entry` can be written.
    pub fn prepare_mark(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.prepare_write(entry.access_byte(), 1, Privilege::Supervisor)
    }

    /// Sets the busy bit of the task-state segment `entry` in the GDT and makes the task register of its `segment`.
    pub fn mark_busy(&mut self, entry: &Entry, segment: Segment) -> Result<Segment, Fault> {
        let attributes = Attributes(entry.attributes().0 | Kind::BUSY);
        self.store_at(
            entry.access_byte(),
            Privilege::Supervisor,
            attributes.0 as u8,
        )?;
        let Segment {
            selector,
            base,
            limit,
            ..
        } = segment;
        Ok(Segment::new(selector, base, limit, attributes))
    }

    /// Clears the busy bit of a task-state segment in the GDT.
    pub fn mark_available(&mut self, entry: &Entry) -> Result<(), Fault> {
        let attributes = entry.attributes().0 & !Kind::BUSY;
        self.store_at(entry.access_byte(), Privilege::Supervisor, attributes as u8)
    }
}
