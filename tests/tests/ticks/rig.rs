//! A processor of either width on a board, whose time passes as the test says, with a program and handlers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use iced_x86::{IcedError, code_asm::*};
use mmu::{GuestPhys, Memory, Mmu};
use sbe::{Bus, CpuModel, Engine, Exit, Vcpu, VcpuConfig, Width, cpu::DescriptorTable};
use vmm::{
    Board,
    clock::Clock,
    devices::{self, Backends},
};

const MEMORY: u64 = 16 << 20;
const PROGRAM: u32 = 0x10_0000;
const HANDLERS: u32 = 0x10_1000;
const GDT: u32 = 0x10_2000;
const IDT: u32 = 0x10_3000;
/// Address of the counters of the program and the handlers.
const COUNTERS: u32 = 0x10_4000;
/// The page tables of 64-bit machines: page map, pointer table and directory, which maps all of memory to itself.
const TABLES: u32 = 0x10_8000;
/// The stack begins at the end of memory: handlers that never return use it up.
const STACK: u32 = MEMORY as u32;
/// Selector of the flat code segment.
const CODE: u32 = 0x10;
const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
const FLAT_CODE64: u64 = 0x00af_9b00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
/// Entries of page tables: present and writable, and a page of 2 MiB.
const TABLE: u64 = 3;
const LARGE_PAGE: u64 = 0x83;
/// Number of ESP.
const ESP: u8 = 4;

/// Instructions, or jumps of translated code, of a slice.
pub const SLICE: u64 = 20_000;
/// Duration of a slice in nanoseconds.
pub const SLICE_TIME: u64 = 250_000;
/// Duration of a look at the clock in nanoseconds.
const LOOK: u64 = 200;
/// Vectors of IRQ 0 and 4.
pub const TIMER: u8 = 0x20;
pub const COM1: u8 = 0x24;

/// The processor of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Processor {
    pub engine: Engine,
    /// Bits of its code: 32, or 64 in IA-32e mode.
    pub bits: u32,
}

/// The model of a processor that executes code of so many bits.
pub fn model(bits: u32) -> CpuModel {
    match bits {
        64 => CpuModel::X86_64,
        _ => CpuModel::default(),
    }
}

/// Whether a handler is entered with IF clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// An interrupt gate clears IF.
    Interrupt = 0x8e,
    /// A trap gate leaves IF.
    Trap = 0x8f,
}

/// A counter in memory, as an operand.
pub const fn counter(number: u32) -> u32 {
    COUNTERS + 4 * number
}

type Code<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A handler that counts, and tells the end of the interrupt to the controller.
pub fn count_tick(a: &mut CodeAssembler) -> Result<(), IcedError> {
    keeping_registers(a, &|a| {
        a.inc(dword_ptr(counter(1)))?;
        a.mov(al, 0x20)?;
        a.out(0x20, al)
    })
}

/// A handler that does `work` and leaves EAX and EDX as they are.
pub fn keeping_registers(a: &mut CodeAssembler, work: Code) -> Result<(), IcedError> {
    if a.bitness() == 64 {
        a.push(rax)?;
        a.push(rdx)?;
        work(a)?;
        a.pop(rdx)?;
        a.pop(rax)?;
        return a.iretq();
    }
    a.push(eax)?;
    a.push(edx)?;
    work(a)?;
    a.pop(edx)?;
    a.pop(eax)?;
    a.iretd()
}

/// The machine.
pub struct Rig {
    pub vcpu: Vcpu,
    pub board: Board,
    backends: Backends,
    time: Arc<AtomicU64>,
}

impl Rig {
    /// A machine that executes `program`, and at `vector` through `gate` `handler`. The controllers are initialized with
    /// vectors 0x20 and 0x28, `icw4` of the master, and all lines but `irq` of the master masked.
    pub fn new(
        processor: Processor,
        program: Code,
        (vector, gate, handler): (u8, Gate, Code),
    ) -> Self {
        let Processor { engine, bits } = processor;
        let model = model(bits);
        let config = VcpuConfig {
            engine,
            model,
            ..VcpuConfig::default()
        };
        let paging = model.paging_model();
        let phys = Memory::for_width(MEMORY, paging.linear_width).unwrap();
        for (address, bytes) in [
            (PROGRAM, assemble(bits, PROGRAM, program)),
            (HANDLERS, assemble(bits, HANDLERS, handler)),
            (GDT, quadwords(&[0, 0, flat_code(bits), FLAT_DATA])),
            (
                IDT + bits / 4 * u32::from(vector),
                quadwords(&descriptor(bits, gate)),
            ),
            (TABLES, quadwords(&[(u64::from(TABLES) + 0x1000) | TABLE])),
            (
                TABLES + 0x1000,
                quadwords(&[(u64::from(TABLES) + 0x2000) | TABLE]),
            ),
            (
                TABLES + 0x2000,
                quadwords(&[0, 1, 2, 3, 4, 5, 6, 7].map(|page| page << 21 | LARGE_PAGE)),
            ),
        ] {
            phys.write(GuestPhys::new(address.into()), &bytes).unwrap();
        }
        let mut vcpu = Vcpu::new(&config, Mmu::with_model(phys, paging).unwrap()).unwrap();
        match bits {
            64 => vcpu.set_linux_entry64(PROGRAM.into(), 0, TABLES.into()),
            _ => vcpu.set_linux_entry(PROGRAM, 0),
        }
        vcpu.cpu.regs.set(ESP, STACK);
        vcpu.cpu.gdtr = DescriptorTable {
            base: GDT.into(),
            limit: 31,
        };
        vcpu.cpu.idtr = DescriptorTable {
            base: IDT.into(),
            limit: 0xfff,
        };
        let time = Arc::new(AtomicU64::new(0));
        let source = Arc::clone(&time);
        let clock = Clock::from_fn(move || source.fetch_add(LOOK, Ordering::Relaxed));
        let (board, backends) = devices::pc(clock, 0, Arc::clone(vcpu.mmu.memory()));
        let mut rig = Self {
            vcpu,
            board,
            backends,
            time,
        };
        rig.initialize(0x01);
        rig
    }

    /// Initializes the controllers: vectors 0x20 and 0x28, ICW4 of the master as given, IRQ 0 and 4 not masked.
    pub fn initialize(&mut self, icw4: u32) {
        self.write(&[(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, icw4)]);
        self.write(&[(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01)]);
        self.write(&[(0x21, 0xee), (0xa1, 0xff)]);
    }

    pub fn write(&mut self, writes: &[(u16, u32)]) {
        for &(port, value) in writes {
            self.board.port_write(port, Width::Byte, value);
        }
    }

    /// Programs counter 0 in mode 2 with `count`.
    pub fn start_timer(&mut self, count: u16) {
        let [low, high] = count.to_le_bytes();
        self.write(&[(0x43, 0x34), (0x40, low.into()), (0x40, high.into())]);
    }

    /// Enables COM1's interrupt for received data.
    pub fn enable_com1(&mut self) {
        self.write(&[(0x3fc, 0x0b), (0x3f9, 0x01)]);
    }

    /// Sends COM1 as much as it takes; returns the number of bytes.
    pub fn flood(&mut self) -> usize {
        let bytes = vec![b'x'; self.backends.com1.room()];
        self.backends.com1.send(&bytes);
        self.board.advance_devices();
        bytes.len()
    }

    pub fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    /// Advances the clock.
    pub fn pass(&self, time: u64) {
        self.time.fetch_add(time, Ordering::Relaxed);
    }

    /// Runs the processor for a slice.
    pub fn slice(&mut self) -> Exit {
        self.board.advance();
        let exit = self.vcpu.run(&mut self.board, SLICE);
        self.pass(SLICE_TIME);
        exit
    }

    /// Runs the processor until it waits in HLT with nothing requested; returns how often HLT was left at once.
    pub fn run_to_halt(&mut self) -> u32 {
        for left in 0..10_000 {
            self.board.advance();
            assert_eq!(self.vcpu.run(&mut self.board, SLICE), Exit::Halt);
            self.board.advance();
            if !self.board.intr() {
                return left;
            }
        }
        panic!("never waits")
    }

    /// Returns counter `number`.
    pub fn count(&self, number: u32) -> u64 {
        let mut bytes = [0; 4];
        let address = GuestPhys::new(counter(number).into());
        self.vcpu.mmu.memory().read(address, &mut bytes).unwrap();
        u32::from_le_bytes(bytes).into()
    }
}

/// The descriptor of flat code of so many bits.
fn flat_code(bits: u32) -> u64 {
    match bits {
        64 => FLAT_CODE64,
        _ => FLAT_CODE,
    }
}

/// The gate to the handlers: of 8 bytes, or of 16 whose upper half, the address from bit 32 on, is zero.
fn descriptor(bits: u32, gate: Gate) -> Vec<u64> {
    let offset = HANDLERS;
    let entry = u64::from(CODE) << 16
        | u64::from(offset & 0xffff)
        | u64::from(offset >> 16) << 48
        | (gate as u64) << 40;
    match bits {
        64 => vec![entry, 0],
        _ => vec![entry],
    }
}

fn quadwords(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn assemble(bits: u32, address: u32, code: Code) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).unwrap();
    code(&mut assembler).unwrap();
    assembler.assemble(address.into()).unwrap()
}

/// Runs `test` with each engine, with processors of both widths.
pub fn on_all(test: impl Fn(Processor)) {
    for bits in [32, 64] {
        for engine in [Engine::Emulator, Engine::Translator] {
            test(Processor { engine, bits });
        }
    }
}
