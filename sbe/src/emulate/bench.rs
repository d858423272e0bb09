//! Test bench: a processor with flat segments, tables and memory, running single instructions given as bytes.
//!
//! ```text
//!   0x1000 GDT   0x2000 IDT   0x3000 TSS   0x4000 second TSS   0x5000 code   0x8000 stack top   0x9000 ring 0 stack top (TSS)
//!   0x20000 page directory   0x21000 page table
//! ```

use super::decoded::decode;
use super::exec::Exec;
use super::interceptor::Interceptor;
use crate::bus::EmptyBus;
use crate::cpu::control::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_SCE};
use crate::cpu::model::CpuModel;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Attributes, Descriptor, SegReg, Segment, Selector};
use crate::cpu::{Cpu, DescriptorTable};
use crate::debugger::Debugger;
use crate::decode::decoder::{CodeSize, DecodeError};
use crate::fault::{Exception, Fault, Vector};
use crate::guest_event::GuestEvent;
use crate::host_fpu::HostFpu;
use crate::policy::{Action, Policy};
use mmu::{GuestPhys, Memory, Mmu, Scalar};

/// Bytes of guest memory.
const RAM: usize = 1 << 20;
/// Bytes at its start in which tables, code and stacks lie.
const TABLES: usize = 0x8_0000;

pub const GDT: u32 = 0x1000;
pub const IDT: u32 = 0x2000;
pub const TSS: u32 = 0x3000;
pub const TSS2: u32 = 0x4000;
pub const CODE: u32 = 0x5000;
pub const STACK: u32 = 0x8000;
pub const STACK0: u32 = 0x9000;

pub const KCODE: u16 = 0x08;
pub const KDATA: u16 = 0x10;
pub const UCODE: u16 = 0x1b;
pub const UDATA: u16 = 0x23;
pub const TASK: u16 = 0x28;
/// First of the selectors that a test may define.
pub const FREE: u16 = 0x30;
/// Code of 64-bit mode at rings 0 and 3.
pub const KCODE64: u16 = 0x40;
pub const UCODE64: u16 = 0x4b;
/// First of the selectors that a test of IA-32e mode may define.
pub const FREE64: u16 = 0x50;

/// Ring 0 code and data, read-only data, execute-only and conforming code; add [`dpl`].
pub const CODE32: u16 = 0xc09b;
pub const CODE64: u16 = 0xa09b;
pub const CONFORMING32: u16 = 0xc09f;
pub const EXECUTE_ONLY32: u16 = 0xc099;
pub const DATA32: u16 = 0xc093;
pub const READ_ONLY: u16 = 0xc091;
/// System descriptors.
pub const TSS16: u16 = 0x81;
pub const LDT: u16 = 0x82;
pub const TSS32: u16 = 0x89;
pub const BUSY_TSS32: u16 = 0x8b;
pub const PRESENT: u16 = 0x80;

/// DPL bits of attributes.
pub const fn dpl(level: u16) -> u16 {
    level << 5
}

/// A segment descriptor; the limit counts pages if G is set.
pub fn segment(base: u32, limit: u32, attributes: u16) -> Descriptor {
    let (base, limit) = (u64::from(base), u64::from(limit));
    let low = limit & 0xffff | (base & 0xff_ffff) << 16;
    Descriptor(low | u64::from(attributes) << 40 | (limit >> 16 & 0xf) << 48 | base >> 24 << 56)
}

pub fn flat(attributes: u16) -> Descriptor {
    segment(0, 0xf_ffff, attributes)
}

/// A gate; `access` holds type, DPL and P.
pub fn gate(selector: u16, offset: u32, access: u16, parameters: u8) -> Descriptor {
    let (selector, offset) = (u64::from(selector), u64::from(offset));
    let low = offset & 0xffff | selector << 16;
    Descriptor(low | u64::from(parameters) << 32 | u64::from(access) << 40 | offset >> 16 << 48)
}

pub struct Bench {
    pub cpu: Cpu,
    pub mmu: Mmu,
    host: HostFpu,
    bus: EmptyBus,
    interceptor: Interceptor,
    undelivered: Vec<GuestEvent>,
    debugger: Debugger,
}

impl Bench {
    /// Creates a bench in real-address mode with all segments at 0, vector table at 0.
    pub fn real() -> Self {
        let mut cpu = Cpu::new(CpuModel::default());
        cpu.segs = [Segment::real(Selector(0)); 6];
        cpu.eip = CODE.into();
        cpu.regs.set(ESP, STACK);
        let phys = Memory::new(RAM as u64).expect("1 MiB of guest memory");
        let mmu = Mmu::new(phys).expect("TLB tables");
        Self {
            cpu,
            mmu,
            host: HostFpu::new().expect("host FPU"),
            bus: EmptyBus,
            interceptor: Interceptor::default(),
            undelivered: Vec::new(),
            debugger: Debugger::default(),
        }
    }

    /// Creates a bench in protected mode at ring 0.
    pub fn protected() -> Self {
        let mut bench = Self::real();
        bench.cpu.cr0 = CR0_PE | CR0_ET;
        bench.cpu.gdtr = DescriptorTable {
            base: GDT.into(),
            limit: 0xff,
        };
        bench.cpu.idtr = DescriptorTable {
            base: IDT.into(),
            limit: 0x7ff,
        };
        bench.define(KCODE, flat(CODE32));
        bench.define(KDATA, flat(DATA32));
        bench.define(UCODE, flat(CODE32 | dpl(3)));
        bench.define(UDATA, flat(DATA32 | dpl(3)));
        bench.define(TASK, segment(TSS, 0x67, BUSY_TSS32));
        bench.cpu.tr = Segment::new(Selector(TASK), TSS.into(), 0x67, Attributes(BUSY_TSS32));
        bench.poke(TSS + 4, STACK0);
        bench.poke(TSS + 8, KDATA);
        bench.set_ring(0, KCODE, KDATA);
        bench
    }

    /// Creates a bench in 64-bit mode at ring 0, whose MMU translates as if paging were off.
    pub fn long() -> Self {
        let mut bench = Self::protected();
        let model = CpuModel::X86_64;
        let width = model.paging_model().linear_width;
        let memory = Memory::for_width(RAM as u64, width).expect("guest memory");
        let mut bytes = vec![0; TABLES];
        let start = GuestPhys::new(0);
        bench.mmu.memory().read(start, &mut bytes).expect("RAM");
        memory.write(start, &bytes).expect("RAM");
        bench.mmu = Mmu::with_model(memory, model.paging_model()).expect("TLB tables");
        let cpu = &mut bench.cpu;
        cpu.model = model;
        cpu.cr0 |= CR0_PG;
        cpu.cr4 |= CR4_PAE;
        cpu.efer = EFER_LME | EFER_LMA | EFER_SCE;
        cpu.idtr.limit = 0xfff;
        bench.define(KCODE64, flat(CODE64));
        bench.define(UCODE64, flat(CODE64 | dpl(3)));
        bench.define(TASK + 8, Descriptor(0));
        bench.poke(TSS + 4, u64::from(STACK0));
        bench.set_ring64(0);
        bench
    }

    /// Creates a bench in 64-bit mode at ring 3.
    pub fn long_user() -> Self {
        let mut bench = Self::long();
        bench.set_ring64(3);
        bench
    }

    /// Creates a bench in compatibility mode at ring 3.
    pub fn compatibility() -> Self {
        let mut bench = Self::long();
        bench.set_ring(3, UCODE, UDATA);
        bench
    }

    fn set_ring64(&mut self, level: u8) {
        let (code, data) = match level {
            0 => (KCODE64, KDATA),
            _ => (UCODE64, UDATA),
        };
        self.set_ring(level, code, data);
        self.cpu.segs[SegReg::Cs as usize] =
            Segment::from_descriptor(Selector(code), flat(CODE64 | dpl(level.into())));
    }

    /// Puts a 64-bit gate into the IDT; `access` holds type, DPL and P, `stack` is the number of its interrupt stack.
    pub fn vector64(&mut self, vector: u8, offset: u64, access: u16, stack: u8) {
        let lower = gate(KCODE64, offset as u32, access, stack);
        let at = IDT + u32::from(vector) * 16;
        self.poke(at, lower.0);
        self.poke(at + 8, offset >> 32);
    }

    /// The `N` quadwords on top of the stack.
    pub fn top64<const N: usize>(&self) -> [u64; N] {
        let top = self.cpu.regs.get(ESP);
        std::array::from_fn(|index| self.peek(top + 8 * index as u32))
    }

    /// Puts quadwords on top of the stack, the last one deepest.
    pub fn place64(&mut self, items: &[u64]) {
        let top = self.cpu.regs.get(ESP) - 8 * items.len() as u32;
        for (&item, index) in items.iter().zip(0..) {
            self.poke(top + 8 * index, item);
        }
        self.cpu.regs.set64(ESP, top.into());
    }

    /// Creates a bench in protected mode at ring 3.
    pub fn user() -> Self {
        let mut bench = Self::protected();
        bench.set_ring(3, UCODE, UDATA);
        bench
    }

    fn set_ring(&mut self, level: u8, code: u16, data: u16) {
        let descriptor = |attributes: u16| flat(attributes | dpl(level.into()));
        self.cpu.cpl = level;
        self.cpu.segs = [Segment::from_descriptor(Selector(data), descriptor(DATA32)); 6];
        self.cpu.segs[SegReg::Cs as usize] =
            Segment::from_descriptor(Selector(code), descriptor(CODE32));
    }

    /// Puts a descriptor into the GDT.
    pub fn define(&mut self, selector: u16, descriptor: Descriptor) {
        self.poke(GDT + Selector(selector).offset(), descriptor.0);
    }

    /// Puts a gate into the IDT.
    pub fn vector(&mut self, vector: u8, gate: Descriptor) {
        self.poke(IDT + u32::from(vector) * 8, gate.0);
    }

    pub fn poke<T: Scalar>(&mut self, address: u32, value: T) {
        self.mmu
            .memory()
            .store(GuestPhys::new(address.into()), value)
            .expect("RAM");
    }

    pub fn peek<T: Scalar>(&self, address: u32) -> T {
        self.mmu
            .memory()
            .load(GuestPhys::new(address.into()))
            .expect("RAM")
    }

    /// The `N` doublewords on top of a flat stack.
    pub fn top<const N: usize>(&self) -> [u32; N] {
        let top = self.cpu.regs.get(ESP);
        std::array::from_fn(|index| self.peek(top + 4 * index as u32))
    }

    /// Turns paging on, every page of memory mapped to itself and writable, but for `absent`.
    pub fn page_without(&mut self, absent: u32) {
        const DIRECTORY: u32 = 0x2_0000;
        const TABLE: u32 = 0x2_1000;
        const PRESENT_WRITABLE_USER: u32 = 7;
        self.poke(DIRECTORY, TABLE | PRESENT_WRITABLE_USER);
        for page in 0..0x100 {
            let bits = if page == absent >> 12 {
                0
            } else {
                PRESENT_WRITABLE_USER
            };
            self.poke(TABLE + 4 * page, page << 12 | bits);
        }
        self.cpu.cr3 = DIRECTORY.into();
        self.cpu.cr0 |= CR0_PG;
        self.exec().update_paging();
    }

    /// Puts doublewords on top of a flat stack, the last one deepest.
    pub fn place(&mut self, items: &[u32]) {
        let top = self.cpu.regs.get(ESP) - 4 * items.len() as u32;
        for (&item, index) in items.iter().zip(0..) {
            self.poke(top + 4 * index, item);
        }
        self.cpu.regs.set(ESP, top);
    }

    pub fn exec(&mut self) -> Exec<'_> {
        Exec {
            cpu: &mut self.cpu,
            mmu: &mut self.mmu,
            bus: &mut self.bus,
            host: &mut self.host,
            interceptor: &mut self.interceptor,
            undelivered: &mut self.undelivered,
            debugger: &mut self.debugger,
        }
    }

    /// Sets the policy that stops every event before its delivery.
    pub fn intercept_all(&mut self) {
        let mut policy = Policy::new();
        for vector in 0..=u8::MAX {
            policy.set_vector(vector, Action::Intercept);
        }
        self.interceptor.set_policy(policy);
    }

    /// Executes one instruction, without delivering its fault.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let decoded = match decode(
            bytes,
            CodeSize::of(&self.cpu),
            self.cpu.model.level(),
            &mut self.host,
        ) {
            Ok(decoded) => decoded,
            Err(DecodeError::Invalid) => return Err(Fault::ud()),
            Err(error) => panic!("{bytes:x?}: {error:?}"),
        };
        self.cpu.eip += u64::from(decoded.insn.len);
        (decoded.exec)(&mut self.exec(), &decoded.insn)
    }

    /// Raises #UD at the current EIP.
    pub fn raise_ud(&mut self) -> Result<(), Fault> {
        self.exec().raise(Exception::plain(Vector::InvalidOpcode))
    }

    pub fn selector(&self, register: SegReg) -> u16 {
        self.cpu.seg(register).selector.0
    }

    /// CS and EIP.
    pub fn place_of_execution(&self) -> (u16, u32) {
        let (selector, eip) = self.place_of_execution64();
        (selector, eip.try_into().expect("32 bits"))
    }

    /// CS and RIP.
    pub fn place_of_execution64(&self) -> (u16, u64) {
        (self.selector(SegReg::Cs), self.cpu.eip)
    }
}
