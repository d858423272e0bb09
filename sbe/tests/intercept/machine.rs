//! A machine with paging, an interrupt table whose handlers count, and one page that is absent.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, Memory, Mmu};
use sbe::cpu::DescriptorTable;
use sbe::{
    Action, Bus, Decision, EmptyBus, Engine, EventSource, Exit, GuestEvent, Observation, Policy,
    Vcpu, VcpuConfig, Width,
};

/// The address at which the program starts, behind the instructions that turn paging on.
pub const ORIGIN: u32 = 0x0010_0000;
/// The page that is absent.
pub const ABSENT: u32 = 0x0018_0000;
/// CS of the program.
pub const CS: u16 = 0x10;
/// Vectors that have handlers, and whether these take an error code off the stack.
const HANDLED: [(u8, bool); 9] = [
    (1, false),
    (2, false),
    (8, true),
    (13, true),
    (14, true),
    (0x30, false),
    (0x31, false),
    (0x80, false),
    (0x81, false),
];

/// The descriptor table, which ends behind the program's segments.
pub const GDT: u32 = 0x0011_0000;
const IDT: u32 = 0x0012_0000;
/// The page directory.
pub const DIRECTORY: u32 = 0x0013_0000;
const TABLE: u32 = 0x0013_1000;
/// The records, one for each vector: how often its handler ran, and the error code it got last.
const RECORDS: u32 = 0x0014_0000;
/// The handlers, in the order of [`HANDLED`], 64 bytes apart.
pub const HANDLERS: u32 = 0x0015_0000;
const HANDLER_BYTES: u32 = 64;
/// The address at which the stack begins.
pub const STACK: u32 = 0x0020_0000;
const MEMORY: u64 = 4 << 20;
/// Numbers of registers.
const EDX: u8 = 2;
const ESP: u8 = 4;
/// Present, writable.
const MAPPED: u32 = 3;

/// Asks for one interrupt at a time, and remembers what it is told.
#[derive(Default)]
struct Line {
    vector: Option<u8>,
    observed: Vec<Observation>,
}

impl Bus for Line {
    fn port_read(&mut self, port: u16, width: Width) -> u32 {
        EmptyBus.port_read(port, width)
    }

    fn port_write(&mut self, _: u16, _: Width, _: u32) {}

    fn mmio_read(&mut self, addr: GuestPhys, bytes: u8) -> u64 {
        EmptyBus.mmio_read(addr, bytes)
    }

    fn mmio_write(&mut self, _: GuestPhys, _: u8, _: u64) {}

    fn intr(&self) -> bool {
        self.vector.is_some()
    }

    fn acknowledge(&mut self) -> u8 {
        self.vector.take().expect("the line is high")
    }

    fn stop_requested(&self) -> bool {
        false
    }

    fn observe(&mut self, observation: &Observation) {
        self.observed.push(*observation);
    }
}

pub struct Machine {
    pub vcpu: Vcpu,
    line: Line,
    /// Linear address of the first instruction of the program.
    pub start: u32,
}

impl Machine {
    /// A machine on `engine` about to execute `program`, which intercepts `vectors`.
    pub fn new(engine: Engine, vectors: &[u8], program: Program) -> Self {
        let phys = Memory::new(MEMORY).expect("memory");
        let place = |address: u32, bytes: &[u8]| {
            phys.write(GuestPhys::new(address.into()), bytes)
                .expect("RAM");
        };
        let prologue = assemble(ORIGIN, turn_paging_on);
        let start = ORIGIN + prologue.len() as u32;
        place(ORIGIN, &prologue);
        place(start, &assemble(start, program));
        place(
            GDT + u32::from(CS),
            &0x00CF_9B00_0000_FFFF_u64.to_le_bytes(),
        );
        place(GDT + 0x18, &0x00CF_9300_0000_FFFF_u64.to_le_bytes());
        for ((vector, has_code), index) in HANDLED.into_iter().zip(0..) {
            let at = HANDLERS + HANDLER_BYTES * index;
            place(at, &assemble(at, |a| handler(a, vector, has_code)));
            let gate = u64::from(at & 0xffff)
                | u64::from(CS) << 16
                | 0x8e00 << 32
                | u64::from(at >> 16) << 48;
            place(IDT + 8 * u32::from(vector), &gate.to_le_bytes());
        }
        place(DIRECTORY, &(TABLE | MAPPED).to_le_bytes());
        for page in (0..MEMORY as u32).step_by(0x1000) {
            let bits = if page == ABSENT { 0 } else { MAPPED };
            place(TABLE + (page >> 10), &(page | bits).to_le_bytes());
        }
        let mmu = Mmu::new(phys).expect("tables");
        let config = VcpuConfig {
            engine,
            ..VcpuConfig::default()
        };
        let mut vcpu = Vcpu::new(&config, mmu).expect("a processor");
        vcpu.set_linux_entry(ORIGIN, 0);
        vcpu.cpu.regs.set(EDX, 0);
        vcpu.cpu.regs.set(ESP, STACK);
        vcpu.cpu.gdtr = DescriptorTable {
            base: GDT.into(),
            limit: 0x1f,
        };
        vcpu.cpu.idtr = DescriptorTable {
            base: IDT.into(),
            limit: 0x81 * 8 + 7,
        };
        let mut policy = Policy::new();
        for &vector in vectors {
            policy.set_vector(vector, Action::Intercept);
        }
        vcpu.set_policy(policy);
        Self {
            vcpu,
            line: Line::default(),
            start,
        }
    }

    /// Runs until something ends the run that is not its budget.
    pub fn run(&mut self) -> Exit {
        for _ in 0..100 {
            match self.vcpu.run(&mut self.line, 1000) {
                Exit::Budget => {}
                exit => return exit,
            }
        }
        panic!("runs away at {:08x}", self.vcpu.cpu.eip);
    }

    /// Runs for a while; nothing must end it.
    pub fn run_for_a_while(&mut self) {
        self.run_for(1000);
    }

    /// Runs for `budget` instructions or loops; nothing must end it.
    pub fn run_for(&mut self, budget: u64) {
        assert_eq!(self.vcpu.run(&mut self.line, budget), Exit::Budget);
    }

    /// Executes one instruction.
    pub fn step(&mut self) -> Exit {
        self.vcpu.step(&mut self.line)
    }

    /// Runs until an event is intercepted.
    #[track_caller]
    pub fn event(&mut self) -> GuestEvent {
        match self.run() {
            Exit::Intercept(event) => {
                assert_eq!(self.vcpu.intercepted(), Some(event));
                assert_eq!(self.vcpu.cpu.eip, event.eip);
                event
            }
            other => panic!("{other:?} at {:08x}", self.vcpu.cpu.eip),
        }
    }

    /// Decides and runs to HLT.
    #[track_caller]
    pub fn finish(&mut self, decision: Decision) {
        self.vcpu.decide(decision);
        assert_eq!(self.run(), Exit::Halt);
        assert_eq!(self.vcpu.intercepted(), None);
    }

    /// Raises the INTR pin until it is acknowledged.
    pub fn interrupt(&mut self, vector: u8) {
        self.line.vector = Some(vector);
    }

    /// The observations that the bus was told since the last call.
    pub fn observed(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.line.observed)
    }

    /// Makes the absent page present.
    pub fn map(&mut self) {
        self.store(TABLE + (ABSENT >> 10), ABSENT | MAPPED);
    }

    /// Takes the handler of `vector` away.
    pub fn forget(&mut self, vector: u8) {
        self.store(IDT + 8 * u32::from(vector) + 4, 0);
    }

    /// The number of times that the handler of `vector` ran.
    pub fn handled(&self, vector: u8) -> u32 {
        self.load(RECORDS + 8 * u32::from(vector))
    }

    /// The error code that the handler of `vector` got last.
    pub fn code(&self, vector: u8) -> u32 {
        self.load(RECORDS + 8 * u32::from(vector) + 4)
    }

    pub fn store(&mut self, address: u32, value: u32) {
        let address = GuestPhys::new(address.into());
        self.vcpu.mmu.memory().store(address, value).expect("RAM");
    }

    /// A byte of memory.
    pub fn byte(&self, address: u32) -> u8 {
        let address = GuestPhys::new(address.into());
        self.vcpu.mmu.memory().load(address).expect("RAM")
    }

    /// A doubleword of memory.
    pub fn load(&self, address: u32) -> u32 {
        let address = GuestPhys::new(address.into());
        self.vcpu.mmu.memory().load(address).expect("RAM")
    }
}

pub type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// An event at `eip` without error code and address.
pub fn plain(vector: u8, source: EventSource, eip: impl Into<u64>) -> GuestEvent {
    GuestEvent {
        vector,
        source,
        error_code: None,
        cr2: None,
        cs: CS,
        eip: eip.into(),
    }
}

fn assemble(
    address: u32,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    program(&mut assembler).expect("a program");
    assembler.assemble(address.into()).expect("assembles")
}

fn turn_paging_on(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, DIRECTORY)?;
    a.mov(cr3, eax)?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0000_u32 as i32)?;
    a.mov(cr0, eax)
}

/// Counts, and maps the absent page if it is the page fault's.
fn handler(a: &mut CodeAssembler, vector: u8, has_code: bool) -> Result<(), IcedError> {
    let record = RECORDS + 8 * u32::from(vector);
    a.inc(dword_ptr(record))?;
    if has_code {
        a.pop(dword_ptr(record + 4))?;
    }
    if vector == 14 {
        a.mov(dword_ptr(TABLE + (ABSENT >> 10)), (ABSENT | MAPPED) as i32)?;
    }
    a.iretd()
}
