//! replex as an engine: a machine of RAM and one processor, whose ring-0 program (`native/kernel.S`, or `native/kernel64.S` for
//! long mode) runs the cases.
//!
//! ```text
//!   linear                 physical
//!   0900_0000 exit         EXIT_FRAME     user, execute
//!   0900_1000 entry        ENTRY_FRAME    user, no execute
//!   1000_0000 code         CODE_FRAME     user, execute
//!   2000_0000 sandbox      SANDBOX_FRAME  user, no execute, as the native program maps it
//!   C000_0000 all RAM      0              supervisor; ffff_ffff_8000_0000 in long mode
//! ```
//! The first four are at every place of the mode, with frames of their own. Paging is PAE or 4-level with NX, as the host has it:
//! so error codes of fetches carry the I/D bit on both sides. Nothing of the processor is set from outside but where it starts: a
//! case enters by IRET and, if it is 32-bit code, a far JMP in ring 3, and leaves by an exception.

use super::case::{Case, Change, Outcome, SANDBOX_BYTES, Template};
use super::layout::{
    CODE, CODE_BYTES, CODE_FRAME, ENTER_OFFSET, ENTRY, ENTRY_FRAME, EXIT, EXIT_FAR,
    EXIT_FAR_OFFSET, EXIT_FRAME, FILLER, KERNEL, LDT_FRAME, MAILBOX, MAILBOX_OUT, OUT_CS, OUT_RIP,
    OUT_SIGNAL, OUT_SIZE, OUT_TRAP, PAGE, PAGE_TABLES, PLACE_FRAMES, SANDBOX, SANDBOX_FRAME,
    SANDBOX_PAGES, SANDBOX_READ_ONLY, SANDBOX_WRITABLE, STOP_PORT, kernel_base, paging_levels,
};
use super::mode::Mode;
use super::toolchain::{self, BuildError};
use super::wire::{self, quad, word};
use mmu::{GuestPhys, Memory, Mmu};
use sbe::{Bus, CpuModel, Engine, Exit, Vcpu, VcpuConfig, VcpuError, Width, Windows};
use std::sync::Arc;
use thiserror::Error;

/// Bytes of RAM for one place; each further one adds its frames.
const RAM: u32 = 0x20_0000;
/// HLT: raises #GP in ring 3.
const HLT: u8 = 0xf4;
/// Vector of #GP.
const GENERAL_PROTECTION: u32 = 13;
/// The most instructions that the boot program, or a case with its way in and out, may execute: more is a runaway.
const BUDGET: u64 = 1_000_000;

/// Page-table entry bits (SDM Vol. 3A, 4.4 "PAE Paging").
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;

/// A reason why the machine could not run a case to its end.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The ring-0 program could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file operation failed.
    #[error("differential machine: {0}")]
    Io(std::io::Error),
    /// No memory for the machine.
    #[error("differential machine: {0}")]
    Memory(mmu::MemoryError),
    /// The processor could not be made.
    #[error("differential machine: {0}")]
    Processor(VcpuError),
    /// The processor left the run loop for another reason than the stop port.
    #[error("the engine stopped with {exit:?} at {ip:08x}")]
    Stopped {
        /// The reason of the exit.
        exit: Exit,
        /// Instruction pointer at that moment.
        ip: u64,
    },
    /// The ring-0 program itself took an exception.
    #[error("the ring-0 program took vector {vector} at {ip:08x}")]
    Kernel {
        /// Vector number.
        vector: u32,
        /// Instruction pointer at that moment.
        ip: u64,
    },
}

impl From<std::io::Error> for MachineError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<mmu::MemoryError> for MachineError {
    fn from(error: mmu::MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<VcpuError> for MachineError {
    fn from(error: VcpuError) -> Self {
        Self::Processor(error)
    }
}

/// The chipset: one port that stops the machine.
#[derive(Default)]
struct StopPort {
    written: bool,
}

impl Bus for StopPort {
    fn port_read(&mut self, _port: u16, _width: Width) -> u32 {
        u32::MAX
    }

    fn port_write(&mut self, port: u16, _width: Width, _value: u32) {
        self.written |= port == STOP_PORT;
    }

    fn mmio_read(&mut self, _addr: GuestPhys, _bytes: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _addr: GuestPhys, _bytes: u8, _value: u64) {}

    fn intr(&self) -> bool {
        false
    }

    fn acknowledge(&mut self) -> u8 {
        0
    }

    fn stop_requested(&self) -> bool {
        self.written
    }
}

/// The ring-0 program for a mode, built.
pub struct Kernel {
    mode: Mode,
    image: Vec<u8>,
}

impl Kernel {
    /// Assembles the ring-0 program for `mode`.
    pub fn build(mode: Mode) -> Result<Self, MachineError> {
        let (bits, source) = match mode {
            Mode::Protected => (32, include_str!("../../native/kernel.S")),
            Mode::Compatibility | Mode::Bits64 => (64, include_str!("../../native/kernel64.S")),
        };
        let text = format!("-Wl,-Ttext={:#x}", kernel_base(mode) + u64::from(KERNEL));
        let arguments = ["-o", "kernel", "kernel.S", &text, "-Wl,--oformat=binary"];
        let directory = toolchain::build(mode, bits, &[("kernel.S", source)], &arguments)?;
        let image = std::fs::read(directory.path().join("kernel"))?;
        Ok(Self { mode, image })
    }
}

/// An engine that executes cases, with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The emulator.
    Emulator,
    /// The translator with memory by way of the tables.
    Tables,
    /// The translator with memory through windows.
    Windows,
}

impl Side {
    fn processor(self, model: CpuModel, mmu: Mmu) -> Result<Vcpu, VcpuError> {
        let (engine, windows) = match self {
            Self::Emulator => (Engine::Emulator, Windows::Never),
            Self::Tables => (Engine::Translator, Windows::Never),
            Self::Windows => (Engine::Translator, Windows::Always),
        };
        let config = VcpuConfig {
            model,
            engine,
            windows,
            ..VcpuConfig::default()
        };
        Vcpu::new(&config, mmu)
    }
}

/// The result of a case on a machine.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The outcome to compare.
    pub outcome: Outcome,
    /// Instructions of the case that the emulator executed, the one that raised the exception at the end included.
    pub emulated: u64,
}

/// The number of instructions between the stops around a case that are not the case's: IRET, LSS and JMP into it, and OUT behind
/// it; IRET alone enters 64-bit code.
fn frame_instructions(mode: Mode) -> u64 {
    if mode.is_64() { 2 } else { 4 }
}

/// The way into a case of 32-bit code: `lss esp, cs:[ENTRY]`, `jmp far cs:[ENTRY + 8]`.
fn enter() -> Vec<u8> {
    let lss = [0x2e, 0x0f, 0xb2, 0x25];
    let jmp = [0x2e, 0xff, 0x2d];
    [
        &lss[..],
        &ENTRY.to_le_bytes(),
        &jmp,
        &(ENTRY + 8).to_le_bytes(),
    ]
    .concat()
}

/// A machine, ready for cases.
pub struct Machine {
    mode: Mode,
    vcpu: Vcpu,
    bus: StopPort,
    loaded: Option<Arc<Template>>,
}

impl Machine {
    /// Boots a machine up to the point where it takes cases.
    pub fn boot(kernel: &Kernel, side: Side) -> Result<Self, MachineError> {
        let mode = kernel.mode;
        let model = model(mode);
        let width = model.paging_model().linear_width;
        let memory = Memory::for_width(ram(mode).into(), width)?;
        write(&memory, KERNEL, &kernel.image);
        for (address, entry) in page_tables(mode) {
            write(&memory, address, &entry.to_le_bytes());
        }
        for place in 0..mode.places().len() {
            let exit = frame(EXIT_FRAME, place);
            write(&memory, exit, &[HLT]);
            write(&memory, exit + EXIT_FAR_OFFSET, &[HLT]);
            write(&memory, exit + ENTER_OFFSET, &enter());
            let code = frame(CODE_FRAME, place);
            write(&memory, code, &[FILLER; CODE_BYTES as usize]);
        }
        let mmu = Mmu::with_model(memory, model.paging_model())?;
        let mut vcpu = side.processor(model, mmu)?;
        vcpu.set_linux_entry(KERNEL, 0);
        let mut machine = Self {
            mode,
            vcpu,
            bus: StopPort::default(),
            loaded: None,
        };
        machine.resume()?;
        Ok(machine)
    }

    /// Runs one case.
    ///
    /// # Errors
    /// When the case does not come to an end, or breaks the ring-0 program; the machine is not usable afterwards.
    pub fn run(&mut self, case: &Case) -> Result<Ran, MachineError> {
        self.load(&case.template);
        let code = frame(CODE_FRAME, case.place()) + wire::offset_in_place(case);
        self.write(code, &case.code);
        self.write(MAILBOX, &wire::case_record(case));
        self.write(ENTRY_FRAME, &wire::entry_pointers(case));
        self.resume()?;
        let entered = self.vcpu.cpu.retired;
        self.resume()?;
        let between = self.vcpu.cpu.retired - entered;
        self.resume()?;
        self.write(code, &vec![FILLER; case.code.len()]);
        let mut record = vec![0; OUT_SIZE as usize];
        self.read(MAILBOX_OUT, &mut record);
        let (vector, ip) = (word(&record, OUT_TRAP), quad(&record, OUT_RIP));
        if word(&record, OUT_SIGNAL) & 3 == 0 {
            return Err(MachineError::Kernel { vector, ip });
        }
        let in_flat_code = word(&record, OUT_CS) as u16 == self.mode.flat_code();
        let base = self.mode.places()[case.place()];
        let is_exit = [EXIT, EXIT_FAR]
            .map(|exit| base + u64::from(exit))
            .contains(&ip);
        if vector == GENERAL_PROTECTION && in_flat_code && is_exit {
            record[OUT_SIGNAL as usize..][..4].fill(0);
        }
        let changes = self.collect(&case.template);
        Ok(Ran {
            outcome: wire::outcome(&record, changes),
            emulated: between - frame_instructions(self.mode),
        })
    }

    /// Runs the ring-0 program until it stops at its port.
    fn resume(&mut self) -> Result<(), MachineError> {
        self.bus.written = false;
        match self.vcpu.run(&mut self.bus, BUDGET) {
            Exit::Stop => Ok(()),
            exit => Err(MachineError::Stopped {
                exit,
                ip: self.vcpu.cpu.eip,
            }),
        }
    }

    fn load(&mut self, template: &Arc<Template>) {
        if !self
            .loaded
            .as_ref()
            .is_some_and(|loaded| Arc::ptr_eq(loaded, template))
        {
            for place in 0..self.mode.places().len() {
                self.write(frame(SANDBOX_FRAME, place), template.sandbox(place));
            }
            self.write(LDT_FRAME, &wire::descriptors(template));
            self.loaded = Some(Arc::clone(template));
        }
    }

    /// The doublewords of the sandboxes that differ from the template, which is put back.
    fn collect(&mut self, template: &Template) -> Vec<Change> {
        let mut list = Vec::new();
        for place in 0..self.mode.places().len() {
            self.collect_place(template, place, &mut list);
        }
        wire::changes(self.mode, &list)
    }

    /// Appends the changes of a place, as the native program lists them.
    fn collect_place(&mut self, template: &Template, place: usize, list: &mut Vec<u8>) {
        let mut sandbox = [0; SANDBOX_BYTES];
        self.read(frame(SANDBOX_FRAME, place), &mut sandbox);
        for index in (0..SANDBOX_PAGES).filter(|index| SANDBOX_WRITABLE >> index & 1 == 1) {
            let page = (index * PAGE) as usize..((index + 1) * PAGE) as usize;
            let (live, original) = (
                &sandbox[page.clone()],
                &template.sandbox(place)[page.clone()],
            );
            if live == original {
                continue;
            }
            let dwords = live.chunks_exact(4).zip(original.chunks_exact(4));
            for (at, (live, _)) in (page.start..)
                .step_by(4)
                .zip(dwords)
                .filter(|(_, (live, original))| live != original)
            {
                list.extend(((place * SANDBOX_BYTES + at) as u32).to_le_bytes());
                list.extend(live);
            }
            self.write(frame(SANDBOX_FRAME, place) + index * PAGE, original);
        }
    }

    fn read(&self, address: u32, bytes: &mut [u8]) {
        self.vcpu
            .mmu
            .memory()
            .read(GuestPhys::new(address.into()), bytes)
            .expect("the layout lies in RAM");
    }

    fn write(&mut self, address: u32, bytes: &[u8]) {
        self.vcpu
            .mmu
            .memory()
            .write(GuestPhys::new(address.into()), bytes)
            .expect("the layout lies in RAM");
    }
}

fn write(memory: &Memory, address: u32, bytes: &[u8]) {
    memory
        .write(GuestPhys::new(address.into()), bytes)
        .expect("the layout lies in RAM");
}

/// The processor model of a machine.
fn model(mode: Mode) -> CpuModel {
    match mode {
        Mode::Protected => CpuModel::default(),
        Mode::Compatibility | Mode::Bits64 => CpuModel::X86_64V2,
    }
}

/// Bytes of RAM of a machine.
fn ram(mode: Mode) -> u32 {
    RAM + (mode.places().len() as u32 - 1) * PLACE_FRAMES
}

/// The physical address of something of a place, `first` being that of the first place.
fn frame(first: u32, place: usize) -> u32 {
    first + place as u32 * PLACE_FRAMES
}

/// A page: linear and physical address, and rights.
type MappedPage = (u64, u32, u64);

/// All pages that are mapped. The first is the ring-0 program at its physical address.
fn pages(mode: Mode) -> Vec<MappedPage> {
    let supervisor = PRESENT | WRITABLE;
    let mut pages = vec![(KERNEL.into(), KERNEL, supervisor)];
    let base = kernel_base(mode);
    pages.extend(
        (0..ram(mode))
            .step_by(PAGE as usize)
            .map(|at| (base + u64::from(at), at, supervisor)),
    );
    for (place, base) in mode.places().iter().enumerate() {
        let mut map = |linear: u32, physical: u32, rights| {
            pages.push((base + u64::from(linear), frame(physical, place), rights));
        };
        map(EXIT, EXIT_FRAME, PRESENT | USER);
        map(ENTRY, ENTRY_FRAME, PRESENT | USER | NO_EXECUTE);
        for at in (0..CODE_BYTES).step_by(PAGE as usize) {
            map(CODE + at, CODE_FRAME + at, PRESENT | USER);
        }
        for index in 0..SANDBOX_PAGES {
            let data = PRESENT | USER | NO_EXECUTE;
            let rights = match (
                SANDBOX_WRITABLE >> index & 1,
                SANDBOX_READ_ONLY >> index & 1,
            ) {
                (1, _) => data | WRITABLE,
                (_, 1) => data,
                _ => continue,
            };
            map(SANDBOX + index * PAGE, SANDBOX_FRAME + index * PAGE, rights);
        }
    }
    pages
}

/// Physical addresses and values of all page-table entries. Tables follow each other in the order in which the pages need them.
fn page_tables(mode: Mode) -> Vec<(u32, u64)> {
    let levels = paging_levels(mode);
    // A table is known by its level, the root having the highest, and the linear addresses that it maps.
    let mut tables = vec![(levels, 0)];
    let mut entries = Vec::new();
    for (linear, physical, rights) in pages(mode) {
        let mut table = 0;
        for level in (1..=levels).rev() {
            let at = PAGE_TABLES + table as u32 * PAGE + (linear >> shift(level)) as u32 % 512 * 8;
            if level == 1 {
                entries.push((at, u64::from(physical) | rights));
                break;
            }
            let wanted = (level - 1, linear >> shift(level));
            table = tables
                .iter()
                .position(|&known| known == wanted)
                .unwrap_or_else(|| {
                    tables.push(wanted);
                    tables.len() - 1
                });
            // Entries of the page-directory-pointer table of PAE paging have no rights.
            let rights = if levels == 3 && level == 3 {
                PRESENT
            } else {
                PRESENT | WRITABLE | USER
            };
            let next = u64::from(PAGE_TABLES) + table as u64 * u64::from(PAGE);
            entries.push((at, next | rights));
        }
    }
    entries
}

/// The lowest bit of a linear address that selects an entry in a table of this level, counted from 1.
fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}
