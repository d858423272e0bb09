//! Memory as an instruction sees it: segment checks, then paging, then RAM or a device.
//!
//! `load`, `store` and `modify` take a segment and an offset and act with the program's privilege. The `_at` forms take a
//! linear address: for the processor's own accesses to descriptor tables, task segments and inner stacks.
//!
//! In 64-bit mode an address must be canonical instead of inside its segment, and only FS and GS have a base.

use super::exec::Exec;
use super::word::Word;
use crate::cpu::Pending;
use crate::cpu::canonical::is_canonical_span;
use crate::cpu::control::DR6_FIXED;
use crate::cpu::segment::{Bounds, SegReg};
use crate::fault::{Exception, Fault, Vector};
use mmu::{Access, GuestPhys, LinearAddr, MemFault, Privilege, Scalar, Span};

/// Passes on a page fault; accesses to devices cannot fault.
#[inline(always)]
fn or_device(prepared: Result<(), MemFault>) -> Result<(), Fault> {
    match prepared {
        Ok(()) | Err(MemFault::Device) => Ok(()),
        Err(MemFault::Page(fault)) => Err(fault.into()),
        Err(MemFault::NonCanonical) => Err(Fault::gp(0)),
    }
}

/// The fault of an access outside a segment, or to an address that is not canonical.
fn limit_fault(segment: SegReg) -> Fault {
    if segment == SegReg::Ss {
        Fault::ss(0)
    } else {
        Fault::gp(0)
    }
}

impl Exec<'_> {
    /// The linear address of `size` bytes at `offset` of `segment`, checked for reading.
    #[inline(always)]
    pub fn readable(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: u32,
    ) -> Result<LinearAddr, Fault> {
        self.accessible(segment, offset, size, Access::Read)
    }

    /// The linear address of `size` bytes at `offset` of `segment`, checked for writing.
    #[inline(always)]
    pub fn writable(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: u32,
    ) -> Result<LinearAddr, Fault> {
        self.accessible(segment, offset, size, Access::Write)
    }

    /// The linear address of `size` bytes at `offset` of `segment`, checked for reading by the segment's limit alone, not its type.
    pub fn within_limit(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: u32,
    ) -> Result<LinearAddr, Fault> {
        let bounds = self.cpu.seg(segment).within();
        self.checked(segment, bounds, offset, size, Access::Read)
    }

    #[inline(always)]
    fn accessible(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: u32,
        access: Access,
    ) -> Result<LinearAddr, Fault> {
        let seg = self.cpu.seg(segment);
        let bounds = match access {
            Access::Write => seg.write,
            Access::Read | Access::Fetch => seg.read,
        };
        self.checked(segment, bounds, offset, size, access)
    }

    #[inline(always)]
    fn checked(
        &mut self,
        segment: SegReg,
        bounds: Bounds,
        offset: u64,
        size: u32,
        access: Access,
    ) -> Result<LinearAddr, Fault> {
        if self.cpu.is_code64() {
            return self.canonical(segment, offset, size, access);
        }
        if !bounds.allow(offset as u32, size) {
            return Err(limit_fault(segment));
        }
        let linear = self.cpu.seg(segment).linear32(offset as u32);
        self.check_access(linear, size, access)?;
        Ok(linear)
    }

    /// The linear address of `size` bytes at `offset` of `segment` in 64-bit mode.
    fn canonical(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: u32,
        access: Access,
    ) -> Result<LinearAddr, Fault> {
        let linear = self.cpu.linear64(segment, offset);
        if !is_canonical_span(linear, size) {
            return Err(limit_fault(segment));
        }
        let linear = LinearAddr::new(linear);
        self.check_access(linear, size, access)?;
        Ok(linear)
    }

    /// Reads `segment:[offset]`.
    #[inline(always)]
    pub fn load<W: Word>(&mut self, segment: SegReg, offset: u64) -> Result<W, Fault> {
        let linear = self.readable(segment, offset, W::BYTES)?;
        self.load_at(linear, self.cpu.privilege())
    }

    /// Writes `segment:[offset]`.
    #[inline(always)]
    pub fn store<W: Word>(&mut self, segment: SegReg, offset: u64, value: W) -> Result<(), Fault> {
        let linear = self.writable(segment, offset, W::BYTES)?;
        self.store_at(linear, self.cpu.privilege(), value)
    }

    /// Reads `segment:[offset]` and writes back the value that `change` makes of it. Any fault is a
    /// write's.
    #[inline(always)]
    pub fn modify<W: Word>(
        &mut self,
        segment: SegReg,
        offset: u64,
        change: impl FnOnce(&mut Self, W) -> W,
    ) -> Result<(), Fault> {
        let linear = self.writable(segment, offset, W::BYTES)?;
        let privilege = self.cpu.privilege();
        self.prepare_write(linear, W::BYTES, privilege)?;
        let old = self.load_at(linear, privilege)?;
        let new = change(self, old);
        self.store_at(linear, privilege, new)
    }

    /// Makes sure that writing `size` bytes at `linear` cannot fault.
    #[inline(always)]
    pub fn prepare_write(
        &mut self,
        linear: LinearAddr,
        size: u32,
        privilege: Privilege,
    ) -> Result<(), Fault> {
        or_device(self.mmu.prepare(linear, size, Access::Write, privilege))
    }

    /// Makes sure that reading `size` bytes at `linear` cannot fault.
    pub fn prepare_read(
        &mut self,
        linear: LinearAddr,
        size: u32,
        privilege: Privilege,
    ) -> Result<(), Fault> {
        or_device(self.mmu.prepare(linear, size, Access::Read, privilege))
    }

    /// Reads at a linear address.
    #[inline(always)]
    pub fn load_at<T: Scalar>(
        &mut self,
        linear: LinearAddr,
        privilege: Privilege,
    ) -> Result<T, Fault> {
        match self.mmu.read(linear, privilege) {
            Ok(value) => Ok(value),
            Err(MemFault::Page(fault)) => Err(fault.into()),
            Err(MemFault::NonCanonical) => Err(Fault::gp(0)),
            Err(MemFault::Device) => self.load_device(linear, privilege),
        }
    }

    /// Writes at a linear address.
    #[inline(always)]
    pub fn store_at<T: Scalar>(
        &mut self,
        linear: LinearAddr,
        privilege: Privilege,
        value: T,
    ) -> Result<(), Fault> {
        match self.mmu.write(linear, privilege, value) {
            Ok(()) => Ok(()),
            Err(MemFault::Page(fault)) => Err(fault.into()),
            Err(MemFault::NonCanonical) => Err(Fault::gp(0)),
            Err(MemFault::Device) => self.store_device(linear, privilege, value),
        }
    }

    /// Reads `bytes.len()` bytes (at most a page) of `segment:[offset]`.
    pub fn load_bytes(
        &mut self,
        segment: SegReg,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), Fault> {
        let linear = self.readable(segment, offset, bytes.len() as u32)?;
        let privilege = self.cpu.privilege();
        if !self.mmu.tlb().load_bytes(linear, privilege, bytes) {
            let len = bytes.len() as u32;
            let span = self.mmu.translate(linear, len, Access::Read, privilege)?;
            self.read_span(&span, bytes);
        }
        Ok(())
    }

    /// Writes `bytes` (at most a page) to `segment:[offset]`: all of them or, on a fault, none.
    pub fn store_bytes(&mut self, segment: SegReg, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let linear = self.writable(segment, offset, bytes.len() as u32)?;
        let privilege = self.cpu.privilege();
        if !self.mmu.tlb_mut().store_bytes(linear, privilege, bytes) {
            let len = bytes.len() as u32;
            let span = self.mmu.translate(linear, len, Access::Write, privilege)?;
            self.write_span(&span, bytes);
        }
        Ok(())
    }

    /// Makes sure that `size` bytes of `segment:[offset]` can be written.
    pub fn probe_write(&mut self, segment: SegReg, offset: u64, size: u32) -> Result<(), Fault> {
        let linear = self.writable(segment, offset, size)?;
        self.prepare_write(linear, size, self.cpu.privilege())
    }

    #[cold]
    fn load_device<T: Scalar>(
        &mut self,
        linear: LinearAddr,
        privilege: Privilege,
    ) -> Result<T, Fault> {
        let span = self
            .mmu
            .translate(linear, size_of::<T>() as u32, Access::Read, privilege)?;
        let mut value = T::zeroed();
        self.read_span(&span, value.as_mut_slice());
        Ok(value)
    }

    #[cold]
    fn store_device<T: Scalar>(
        &mut self,
        linear: LinearAddr,
        privilege: Privilege,
        value: T,
    ) -> Result<(), Fault> {
        let span = self
            .mmu
            .translate(linear, size_of::<T>() as u32, Access::Write, privilege)?;
        self.write_span(&span, value.as_slice());
        Ok(())
    }

    fn read_span(&mut self, span: &Span, bytes: &mut [u8]) {
        let mut rest = bytes;
        for piece in span.pieces() {
            let (part, tail) = rest.split_at_mut(piece.len as usize);
            // A piece lies in one page, so that only a device can refuse.
            if self.mmu.memory().read(piece.addr, part).is_err() {
                self.read_device(piece.addr, part);
            }
            rest = tail;
        }
    }

    fn write_span(&mut self, span: &Span, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in span.pieces() {
            let (part, tail) = rest.split_at(piece.len as usize);
            if self.mmu.store_phys(piece.addr, part).is_err() {
                self.write_device(piece.addr, part);
            }
            rest = tail;
        }
    }

    fn read_device(&mut self, start: GuestPhys, bytes: &mut [u8]) {
        for (address, range) in bus_cycles(start, bytes.len()) {
            let part = &mut bytes[range];
            let value = self.bus.mmio_read(address, part.len() as u8);
            part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
        }
        self.sample_bus();
    }

    fn write_device(&mut self, start: GuestPhys, bytes: &[u8]) {
        for (address, range) in bus_cycles(start, bytes.len()) {
            let part = &bytes[range];
            let mut value = [0; 8];
            value[..part.len()].copy_from_slice(part);
            self.bus
                .mmio_write(address, part.len() as u8, u64::from_le_bytes(value));
        }
        self.sample_bus();
    }

    /// Checks for alignment, data breakpoints and watchpoints, when any is armed.
    #[inline(always)]
    fn check_access(&mut self, linear: LinearAddr, size: u32, access: Access) -> Result<(), Fault> {
        if self
            .cpu
            .pending
            .has(Pending::ALIGN | Pending::DEBUG | Pending::WATCH)
        {
            self.check_armed_access(linear, size, access)
        } else {
            Ok(())
        }
    }

    #[cold]
    fn check_armed_access(
        &mut self,
        linear: LinearAddr,
        size: u32,
        access: Access,
    ) -> Result<(), Fault> {
        self.match_data_breakpoints(linear, size, access);
        self.debugger.accessed(linear, size, access);
        let misaligned = linear.get() as u32 & (checked_alignment(size) - 1) != 0;
        if misaligned && self.cpu.pending.has(Pending::ALIGN) {
            // Before any page fault, as AMD's processors do; SDM Vol. 3A, Table 6-2 leaves the order open.
            return Err(Fault::Exception(Exception::with_code(
                Vector::AlignmentCheck,
                0,
            )));
        }
        Ok(())
    }

    /// Collects the DR6 bits of breakpoints that this access meets (SDM Vol. 3B, 17.2.4 "Debug Control Register").
    fn match_data_breakpoints(&mut self, linear: LinearAddr, size: u32, access: Access) {
        const WRITES: u64 = 0b01;
        const READS_AND_WRITES: u64 = 0b11;
        let (first, size) = (linear.get(), u64::from(size));
        let is_long = self.cpu.is_long();
        let distance = |from: u64, to: u64| match (to.wrapping_sub(from), is_long) {
            (distance, true) => distance,
            (distance, false) => u64::from(distance as u32),
        };
        for index in 0..4 {
            let control = self.cpu.dr[7] >> (16 + 4 * index) & 0xf;
            let enabled = self.cpu.dr[7] >> (2 * index) & 3 != 0;
            let watches = match control & 3 {
                WRITES => access == Access::Write,
                READS_AND_WRITES => true,
                _ => false,
            };
            // LEN: 1, 2, 8 (reserved without 64-bit mode: treated as 4) or 4 bytes, aligned.
            let eight = if self.cpu.model.has_long_mode() { 8 } else { 4 };
            let length = [1, 2, eight, 4][(control >> 2) as usize];
            let start = self.cpu.dr[index as usize] & !(length - 1);
            let overlaps = distance(first, start) < size || distance(start, first) < length;
            if enabled && watches && overlaps {
                self.cpu.debug_hits |= 1 << index & !DR6_FIXED;
                self.cpu.pending.set(Pending::DEBUG_TRAP);
            }
        }
    }
}

/// The alignment in bytes that the alignment check demands of an access of `size` bytes (SDM Vol. 3A, Table 6-7 "Alignment
/// Requirements by Data Type"): 8 for 80-bit values, else the largest power of two in the size, at most 16.
fn checked_alignment(size: u32) -> u32 {
    const EXTENDED: u32 = 10;
    const PARAGRAPH: u32 = 16;
    if size == EXTENDED {
        8
    } else {
        PARAGRAPH.min(1 << size.trailing_zeros())
    }
}

/// Splits an access to a device into naturally aligned cycles of at most 8 bytes.
fn bus_cycles(
    start: GuestPhys,
    len: usize,
) -> impl Iterator<Item = (GuestPhys, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let address = start.get() + done as u64;
        let aligned = 1 << address.trailing_zeros().min(3);
        let size = prev_power_of_two(len - done).min(aligned);
        let range = done..done + size;
        done += size;
        Some((GuestPhys::new(address), range))
    })
}

fn prev_power_of_two(value: usize) -> usize {
    1 << value.ilog2()
}
