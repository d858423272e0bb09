//! Instructions as a guest sees them: assembled, decoded and executed on a processor with 2 MiB of memory.

mod availability;
mod memory;
mod precision;
mod random;
mod simd;
mod state;
mod x87;

use crate::CpuModel;
use crate::bus::EmptyBus;
use crate::cpu::control::{CR0_NE, CR0_PE, CR0_PG, CR4_OSFXSR, CR4_OSXMMEXCPT};
use crate::cpu::model::Level;
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::cpu::{Cpu, eflags};
use crate::debugger::Debugger;
use crate::decode::decoder::CodeSize;
use crate::emulate::{Exec, Interceptor, decode};
use crate::fault::{Exception, Fault, Vector};
use crate::guest_event::GuestEvent;
use crate::host_fpu::HostFpu;
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use mmu::{GuestPhys, Memory, Mmu};

/// Guest RAM.
const RAM_BYTES: u64 = 2 << 20;
/// The address of the instructions.
const CODE: u32 = 0x0010_0000;
/// The address of the operands: a page boundary.
const DATA: u32 = 0x0000_8000;
/// The address of the page directory, once there is paging; the table of its first entry follows it.
const PAGE_DIRECTORY: u32 = 0x0002_0000;
const PAGE_TABLE: u32 = PAGE_DIRECTORY + 0x1000;
/// Page-table entry bits P and R/W.
const PRESENT_WRITABLE: u32 = 0b11;
/// Selector of CS.
const CODE_SELECTOR: u16 = 0x60;
/// Selector of the data segments.
const DATA_SELECTOR: u16 = 0x7b;
/// Attributes of a flat 32-bit code segment.
const CODE32: Attributes = Attributes(0xc09b);
/// Attributes of a flat 32-bit data segment.
const DATA32: Attributes = Attributes(0xc093);

/// A processor in flat 32-bit protected mode with everything enabled, and its memory.
struct Machine {
    cpu: Cpu,
    mmu: Mmu,
    host: HostFpu,
    bus: EmptyBus,
    interceptor: Interceptor,
    undelivered: Vec<GuestEvent>,
    debugger: Debugger,
}

impl Machine {
    fn new() -> Self {
        let mut cpu = Cpu::new(CpuModel::default());
        cpu.cr0 |= CR0_PE | CR0_NE;
        cpu.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
        cpu.segs = [Segment::new(Selector(DATA_SELECTOR), 0, u32::MAX, DATA32); 6];
        cpu.segs[SegReg::Cs as usize] = Segment::new(Selector(CODE_SELECTOR), 0, u32::MAX, CODE32);
        cpu.eip = u64::from(CODE);
        let memory = Memory::new(RAM_BYTES).expect("a valid size");
        Self {
            cpu,
            mmu: Mmu::new(memory).expect("address space"),
            host: HostFpu::new().expect("executable memory"),
            bus: EmptyBus,
            interceptor: Interceptor::default(),
            undelivered: Vec::new(),
            debugger: Debugger::default(),
        }
    }

    /// Executes one 32-bit instruction given by its bytes.
    fn execute(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.execute_sized(bytes, CodeSize::Bits32)
    }

    /// Executes one instruction given by its bytes. EIP moves only if it completes.
    fn execute_sized(&mut self, bytes: &[u8], size: CodeSize) -> Result<(), Fault> {
        let decoded = decode(bytes, size, Level::V2, &mut self.host)
            .expect("an instruction of this processor");
        let start = self.cpu.eip;
        self.cpu.eip = start.wrapping_add(u64::from(u32::from(decoded.insn.len)));
        let result = (decoded.exec)(&mut self.exec(), &decoded.insn);
        if result.is_err() {
            self.cpu.eip = start;
        }
        result
    }

    /// Assembles one instruction and executes it.
    fn run(
        &mut self,
        assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<(), Fault> {
        self.execute(&assembled(assemble))
    }

    /// Runs an instruction that must not fault.
    fn must(&mut self, assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        assert_eq!(self.run(assemble), Ok(()));
    }

    /// Runs an instruction that must fault and change nothing but the MXCSR flags; returns the fault.
    fn fault(
        &mut self,
        assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Fault {
        let before = self.cpu.clone();
        let fault = self.run(assemble).expect_err("a fault");
        let mut after = self.cpu.fpu.clone();
        after.set_mxcsr(before.fpu.mxcsr());
        assert_eq!(after, before.fpu);
        assert_eq!(self.cpu.regs, before.regs);
        assert_eq!((self.cpu.eip, self.cpu.eflags), (before.eip, before.eflags));
        fault
    }

    /// Makes one of the lowest 1024 pages not present; the others are mapped one to one.
    fn remove_page(&mut self, address: u32) {
        if self.cpu.cr0 & CR0_PG == 0 {
            let first = PAGE_TABLE | PRESENT_WRITABLE;
            self.poke(PAGE_DIRECTORY, &first.to_le_bytes());
            for page in 0..1024 {
                let entry = page << 12 | PRESENT_WRITABLE;
                self.poke(PAGE_TABLE + 4 * page, &entry.to_le_bytes());
            }
            self.cpu.cr3 = u64::from(PAGE_DIRECTORY);
            self.cpu.cr0 |= CR0_PG;
        }
        self.poke(PAGE_TABLE + 4 * (address >> 12), &[0; 4]);
        self.exec().update_paging();
        self.mmu.flush_all();
    }

    fn exec(&mut self) -> Exec<'_> {
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

    fn poke(&mut self, address: u32, bytes: &[u8]) {
        self.mmu
            .memory()
            .write(GuestPhys::new(u64::from(address)), bytes)
            .expect("RAM");
    }

    fn peek<const N: usize>(&self, address: u32) -> [u8; N] {
        let mut bytes = [0; N];
        self.mmu
            .memory()
            .read(GuestPhys::new(u64::from(address)), &mut bytes)
            .expect("RAM");
        bytes
    }

    fn poke_f64(&mut self, address: u32, value: f64) {
        self.poke(address, &value.to_le_bytes());
    }

    fn peek_f64(&self, address: u32) -> f64 {
        f64::from_le_bytes(self.peek(address))
    }

    fn peek_u32(&self, address: u32) -> u32 {
        u32::from_le_bytes(self.peek(address))
    }

    fn set_xmm_f64(&mut self, index: u8, low: f64, high: f64) {
        self.cpu.fpu.set_xmm(
            index,
            u128::from(high.to_bits()) << 64 | u128::from(low.to_bits()),
        );
    }

    fn xmm_f64(&self, index: u8) -> (f64, f64) {
        let value = self.cpu.fpu.xmm(index);
        (
            f64::from_bits(value as u64),
            f64::from_bits((value >> 64) as u64),
        )
    }

    /// Status flags.
    fn flags(&self) -> u32 {
        self.cpu.eflags & eflags::STATUS
    }
}

/// The bytes of one instruction at [`CODE`].
fn assembled(assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(32).expect("32-bit code");
    assemble(&mut assembler).expect("an encodable instruction");
    assembler
        .assemble(u64::from(CODE))
        .expect("an encodable instruction")
}

const MF: Fault = Fault::plain(Vector::X87Error);
const NM: Fault = Fault::plain(Vector::DeviceNotAvailable);
const XM: Fault = Fault::plain(Vector::SimdError);
const GP: Fault = Fault::Exception(Exception::with_code(Vector::GeneralProtection, 0));
