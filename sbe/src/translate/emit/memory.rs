//! Memory accesses: effective addresses, table probes and windows. Addresses of groups (`group`), of string instructions
//! (`string`) and of bit strings (`arithmetic`) are formed where those are emitted, and probed here or as here.

use super::misses::Cause;
use super::{Emitter, Home, home, in_page};
use crate::host_fpu::allows_misalignment;
use crate::translate::asm::*;
use crate::translate::bounds::Bounds;
use crate::translate::context::{AccessKind, PAGE_BIAS, WRITE_TABLE, field};
use crate::translate::operands::HostOperand;
use crate::translate::sequences::context;
use iced_x86::{Instruction, Register};
use mmu::{REACH, SLOT_PRESENT};

/// The displacement that, added to linear address and slot, gives the host address.
const SLOT_BIAS: i32 = -(SLOT_PRESENT as i32);

/// Guest memory that may be accessed: found by a probe, RCX being the slot, or through the pointer of a group; or in the window.
#[derive(Clone, Copy)]
pub(super) struct Probed {
    mem: Mem,
}

impl Probed {
    /// The memory found by a probe for `address`. RBP is never the base: addresses that are not canonical would raise #SS on the
    /// host.
    fn by_slot(address: Reg) -> Self {
        let (base, index) = match address {
            RBP => (RCX, RBP),
            address => (address, RCX),
        };
        Self {
            mem: indexed(base, index, 0, SLOT_BIAS),
        }
    }

    /// The memory `offset` bytes from the linear address in `base`, from which host addresses have the distance in `distance`. RBP is
    /// never the base of the operand, as in [`Self::by_slot`].
    pub(super) fn by_distance(distance: Reg, base: Reg, offset: i32) -> Self {
        Self {
            mem: indexed(distance, base, 0, offset),
        }
    }

    /// The memory at a host address.
    pub(super) fn at(pointer: Reg, offset: i32) -> Self {
        Self {
            mem: at(pointer, offset),
        }
    }

    /// The memory of a field of the context.
    pub(super) fn in_context(place: Mem) -> Self {
        Self { mem: place }
    }

    /// The operand.
    pub(super) fn mem(self) -> Mem {
        self.mem
    }

    /// The operand in the form for an instruction that iced encodes.
    pub(super) fn operand(self) -> HostOperand {
        let Mem {
            base,
            index,
            disp,
            window,
        } = self.mem;
        let first = if window { Register::EAX } else { Register::RAX };
        let named = |register: Option<Reg>| {
            register.map_or(Register::None, |register| {
                first + u32::from(register.number())
            })
        };
        HostOperand {
            base: named(base),
            index: named(index.map(|(register, _)| register)),
            scale: 1 << index.map_or(0, |(_, scale)| scale),
            displacement: disp,
            segment: if window { Register::GS } else { Register::None },
        }
    }
}

/// Whether the memory operand of 32-bit code has a 32-bit address in a segment that is flat or checked at run time.
fn is_addressable_32(raw: &Instruction, writes: bool) -> bool {
    let wide = |register: Register| register == Register::None || register.is_gpr32();
    let registers = (raw.memory_base(), raw.memory_index());
    let absolute = registers == (Register::None, Register::None);
    wide(registers.0)
        && wide(registers.1)
        && (!absolute || raw.memory_displ_size() == 4)
        && !(writes && raw.memory_segment() == Register::CS)
}

/// Whether the memory operand of 64-bit code has a 64-bit address that the emitter can form.
fn is_addressable_64(raw: &Instruction) -> bool {
    let wide = |register: Register| register == Register::None || register.is_gpr64();
    let is_near = i32::try_from(displacement_64(raw)).is_ok();
    is_near
        && (raw.memory_base() == Register::RIP || wide(raw.memory_base()))
        && wide(raw.memory_index())
}

/// The displacement of 64-bit code's memory operand; with RIP as base the offset in the page.
fn displacement_64(raw: &Instruction) -> i64 {
    raw.memory_displacement64().cast_signed()
}

/// Whether the memory operand is in FS or GS, which have bases.
pub(super) fn is_in_thread_segment(raw: &Instruction) -> bool {
    matches!(raw.memory_segment(), Register::FS | Register::GS)
}

impl Emitter {
    /// Whether the emitter can form the address of the memory operand.
    pub(super) fn is_addressable(&self, raw: &Instruction, writes: bool) -> bool {
        match self.mode.is_64() {
            true => is_addressable_64(raw),
            false => is_addressable_32(raw, writes),
        }
    }

    /// The effective address of the memory operand, without its segment's base. Registers that have their places in the context
    /// are loaded into R8 and R9.
    pub(super) fn effective(&mut self, raw: &Instruction) -> Mem {
        let scale = raw.memory_index_scale().trailing_zeros() as u8;
        if raw.memory_base() == Register::RIP {
            return at(self.page(R8), in_page(displacement_64(raw) as u32));
        }
        let index_is_copied = self.copied() == Some(raw.memory_index().full_register());
        let base = self.held(raw.memory_base(), R8);
        let index = match base {
            _ if index_is_copied => Some(R9),
            Some(R9) => self.held(raw.memory_index(), R8),
            _ => self.held(raw.memory_index(), R9),
        };
        Mem {
            base,
            index: index.map(|index| (index, scale)),
            disp: match self.mode.is_64() {
                true => displacement_64(raw) as i32,
                false => raw.memory_displacement32() as i32,
            },
            window: false,
        }
    }

    /// Finds the memory operand, by a probe where one is needed; `None` when the instruction has to be emulated.
    pub(super) fn probe_operand(&mut self, raw: &Instruction, writes: bool) -> Option<Probed> {
        let size = raw.memory_size().size() as u32;
        if !matches!(size, 1 | 2 | 4 | 8 | 16) || !self.is_addressable(raw, writes) {
            return None;
        }
        if let Some(grouped) = self.grouped_operand(raw, writes) {
            return Some(grouped);
        }
        if self.windowed && !is_in_thread_segment(raw) {
            return Some(self.windowed_operand(raw));
        }
        let address = self.address(raw);
        Some(self.probe(raw, address, size, writes))
    }

    /// Emits an access to the host address in R8, with R9 as scratch, if slots may be those of other pages: then it faults here,
    /// before anything of the guest's changes.
    pub(super) fn touch_r8(&mut self) {
        if self.is_wide() {
            self.asm.load8(R9, at(R8, 0));
        }
    }

    /// Calls `emit` with all memory reached by way of the tables, so that operands have 64-bit addresses.
    pub(super) fn by_tables<T>(&mut self, emit: impl FnOnce(&mut Self) -> T) -> T {
        let windowed = std::mem::take(&mut self.windowed);
        let group = self.group.take_if(|_| windowed);
        let emitted = emit(self);
        self.windowed = windowed;
        self.group = self.group.or(group);
        emitted
    }

    /// The memory `offset` bytes from the address in `base`, if accesses go through the window.
    pub(super) fn in_window(&mut self, base: Reg, offset: i32) -> Option<Probed> {
        self.windowed.then(|| self.reached(at(base, offset)))
    }

    /// Finds the memory operand by the window.
    fn windowed_operand(&mut self, raw: &Instruction) -> Probed {
        let is_near = self.is_near_base(raw);
        let effective = self.effective(raw);
        let Some(base) = effective.base.filter(|_| is_near) else {
            return self.reached(effective);
        };
        let distance = self.distance_by(raw.memory_base()).unwrap_or_else(|| {
            self.load_distance(RCX, base);
            RCX
        });
        self.asm.lea64(R8, effective);
        Probed::by_distance(distance, R8, 0)
    }

    /// Whether an operand by two registers lies in the reach of its base, for what is known of the index.
    fn is_near_base(&self, raw: &Instruction) -> bool {
        let (base, index) = (raw.memory_base(), raw.memory_index());
        if !self.is_wide() || !base.is_gpr64() || !index.is_gpr64() {
            return false;
        }
        let is_held =
            matches!(home(index), Some(Home::Register(_))) || self.copied() == Some(index);
        let bounds = self.bounds[index.number()].filter(|_| is_held);
        bounds.is_some_and(|Bounds { low, high }| {
            let distance = |part: i64| {
                let scaled = part.checked_mul(raw.memory_index_scale().into());
                scaled.and_then(|scaled| scaled.checked_add(displacement_64(raw)))
            };
            [low, high]
                .map(distance)
                .iter()
                .all(|end| end.is_some_and(|end| REACH.contains(&end)))
        })
    }

    /// Finds the memory at an address of the guest's by the window.
    fn reached(&mut self, address: Mem) -> Probed {
        if !self.is_wide() {
            return Probed {
                mem: address.in_window(),
            };
        }
        // R9 may be overwritten before the access.
        let (base, offset) = match address {
            Mem {
                base: Some(base),
                index: None,
                disp,
                ..
            } if base != R9 => (base, disp),
            _ => (self.flat_address(address), 0),
        };
        self.load_distance(RCX, base);
        Probed::by_distance(RCX, base, offset)
    }

    /// Emits `to` = the distance of host addresses from linear addresses in the unit of the window in which that in `base` lies.
    pub(super) fn load_distance(&mut self, to: Reg, base: Reg) {
        self.asm.rorx64(to, base, u32::BITS as u8);
        self.asm.mov32(to, to);
        self.asm.load64_gs(to, to);
    }

    /// Calls `probe` and keeps `register`: a probe overwrites R8 and R9.
    pub(super) fn keeping<T>(&mut self, register: Reg, probe: impl FnOnce(&mut Self) -> T) -> T {
        if self.windowed && !self.is_wide() {
            return probe(self);
        }
        self.asm.store64(context(field::SCRATCH), register);
        let found = probe(self);
        self.asm.load64(register, context(field::SCRATCH));
        found
    }

    /// Moves the address of `probed` into `register`, and returns the memory there.
    pub(super) fn point(&mut self, register: Reg, probed: Probed) -> Probed {
        let Mem { window, .. } = probed.mem;
        let address = Mem {
            window: false,
            ..probed.mem
        };
        if window {
            self.asm.lea32(register, address);
        } else {
            self.asm.lea64(register, address);
        }
        let mem = Mem {
            window,
            ..at(register, 0)
        };
        Probed { mem }
    }

    /// Computes the linear address of the memory operand. Returns its register: R8, or the guest's own where the operand is just
    /// that.
    pub(super) fn address(&mut self, raw: &Instruction) -> Reg {
        let (usable, base) = match raw.memory_segment() {
            Register::FS => (field::FS_USABLE, field::FS_BASE),
            Register::GS => (field::GS_USABLE, field::GS_BASE),
            _ => {
                let effective = self.effective(raw);
                return self.flat_address(effective);
            }
        };
        if self.mode.is_64() {
            return self.based_address(raw, base);
        }
        let effective = self.effective(raw);
        let miss = self.miss(raw.ip32(), Cause::Refused);
        self.asm.load64(RCX, context(usable));
        self.asm.jrcxz(miss);
        self.asm.load32(R8, context(base));
        match effective {
            Mem {
                base: Some(register),
                index: None,
                disp,
                ..
            } => {
                self.asm.lea32(R8, indexed(R8, register, 0, disp));
            }
            Mem {
                base: None,
                index: Some((index, scale)),
                disp,
                ..
            } => {
                self.asm.lea32(R8, indexed(R8, index, scale, disp));
            }
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } => self.asm.lea32(R8, at(R8, disp)),
            Mem {
                base: Some(register),
                index: Some((index, scale)),
                disp,
                ..
            } => {
                self.asm.lea32(R8, indexed(R8, register, 0, disp));
                self.asm.lea32(R8, indexed(R8, index, scale, 0));
            }
        }
        R8
    }

    /// Computes the linear address of the memory operand of 64-bit code in R8, `base` being the place of the segment's base.
    fn based_address(&mut self, raw: &Instruction, base: i32) -> Reg {
        match self.effective(raw) {
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } => {
                self.asm.load64(R8, context(base));
                self.asm.lea64(R8, at(R8, disp));
            }
            effective => {
                self.asm.lea64(R8, effective);
                self.asm.load64(RCX, context(base));
                self.asm.lea64(R8, indexed(R8, RCX, 0, 0));
            }
        }
        R8
    }

    fn flat_address(&mut self, effective: Mem) -> Reg {
        match effective {
            Mem {
                base: Some(register),
                index: None,
                disp: 0,
                ..
            }
            | Mem {
                base: None,
                index: Some((register, 0)),
                disp: 0,
                ..
            // A probe overwrites R9.
            } if register != R9 => return register,
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } => self.mov_address(R8, disp),
            _ => self.lea(R8, effective),
        }
        R8
    }

    /// Moves the address `address` into a register.
    pub(super) fn mov_address(&mut self, to: Reg, address: i32) {
        match self.mode.is_64() {
            true => self.asm.mov_imm_signed(to, address),
            false => self.asm.mov_imm32(to, address as u32),
        }
    }

    /// Computes the effective address of the memory operand in `target`, whatever the segment; of 64-bit code, its lower half if
    /// `half`.
    pub(super) fn effective_address(&mut self, target: Reg, raw: &Instruction, half: bool) {
        match self.effective(raw) {
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } if half => self.asm.mov_imm32(target, disp as u32),
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } => self.mov_address(target, disp),
            effective if half => self.asm.lea32(target, effective),
            effective => self.lea(target, effective),
        }
    }

    /// Probes the table for `size` bytes (a power of two up to 16) at `address` and leaves the slot in RCX. R9 is overwritten. In
    /// the window there is nothing to probe.
    pub(super) fn probe(
        &mut self,
        raw: &Instruction,
        address: Reg,
        size: u32,
        writes: bool,
    ) -> Probed {
        if let Some(there) = self.in_window(address, 0) {
            return there;
        }
        let found = self.asm.label();
        let kind = if size == 16 && allows_misalignment(raw) {
            AccessKind::unaligned(writes)
        } else {
            AccessKind::new(size, writes)
        };
        let cause = Cause::Slot(kind, address, found);
        let log = size.trailing_zeros();
        if self.is_wide() {
            self.load_slot(address, log, writes);
            let miss = self.miss(raw.ip32(), cause);
            self.asm.jrcxz(miss);
            self.asm.bind(found);
            return Probed::by_slot(address);
        }
        let miss = self.miss(raw.ip32(), cause);
        let table = if writes { WRITE_TABLE } else { 0 };
        match log {
            0 => self.asm.shrx32(RCX, address, R13),
            2 => {
                self.asm.rorx32(RCX, address, 2);
                self.asm.shrx32(RCX, RCX, R15);
            }
            _ => {
                self.asm.mov_imm32(R9, PAGE_BIAS as u32 - log);
                self.asm.rorx32(RCX, address, log as u8);
                self.asm.shrx32(RCX, RCX, R9);
            }
        }
        self.asm.load64(RCX, indexed(R14, RCX, 3, table));
        self.asm.jrcxz(miss);
        self.asm.bind(found);
        Probed::by_slot(address)
    }

    /// Emits RCX = the slot for 2^`log` bytes at `address` in the table for 48-bit linear addresses. R9 is overwritten.
    pub(super) fn load_slot(&mut self, address: Reg, log: u32, writes: bool) {
        let mut bits = address;
        if log != 0 {
            self.asm.rorx64(RCX, address, log as u8);
            bits = RCX;
        }
        let mask = context(field::MASKS + 8 * log as i32);
        self.asm.pext64(RCX, bits, mask);
        let table = match writes {
            true => field::WRITE_TABLE,
            false => field::TABLE,
        };
        self.asm.load64(R9, context(table));
        self.asm.load64(RCX, indexed(R9, RCX, 3, 0));
    }
}
