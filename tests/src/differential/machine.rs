//! replex as an engine: a machine of RAM and one processor, whose ring-0 program (`native/kernel.S`) runs the cases.
//!
//! ```text
//!   linear                 physical
//!   0900_0000 exit         EXIT_FRAME     user, execute
//!   0900_1000 entry        ENTRY_FRAME    user, no execute
//!   1000_0000 code         CODE_FRAME     user, execute
//!   2000_0000 sandbox      SANDBOX_FRAME  user, no execute, as the native program maps it
//!   C000_0000 all RAM      0              supervisor
//! ```
//! PAE paging with NX, as the host has it: so error codes of fetches carry the I/D bit on both sides.
//! Nothing of the processor is set from outside but where it starts: a case enters by IRET and a far JMP in ring 3, and leaves by
//! an exception.

use super::case::{Case, Change, Outcome, SANDBOX_BYTES, Template};
use super::layout::{
    CODE, CODE_BYTES, CODE_FRAME, ENTER_OFFSET, ENTRY, ENTRY_FRAME, EXIT, EXIT_FAR,
    EXIT_FAR_OFFSET, EXIT_FRAME, FILLER, FLAT_CODE, KERNEL, KERNEL_BASE, LDT_FRAME, MAILBOX,
    MAILBOX_OUT, OUT_CS, OUT_EIP, OUT_SIGNAL, OUT_SIZE, OUT_TRAP, PAGE, PAGE_DIRECTORY_POINTERS,
    SANDBOX, SANDBOX_FRAME, SANDBOX_PAGES, SANDBOX_READ_ONLY, SANDBOX_WRITABLE, STOP_PORT,
};
use super::toolchain::{self, BuildError};
use super::wire::{self, word};
use mmu::{GuestPhys, Memory, Mmu};
use sbe::{Bus, Engine, Exit, Vcpu, VcpuConfig, VcpuError, Width, Windows};
use std::sync::Arc;
use thiserror::Error;

/// Bytes of RAM.
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
    #[error("the engine stopped with {exit:?} at {eip:08x}")]
    Stopped {
        /// The reason of the exit.
        exit: Exit,
        /// EIP at that moment.
        eip: u32,
    },
    /// The ring-0 program itself took an exception.
    #[error("the ring-0 program took vector {vector} at {eip:08x}")]
    Kernel {
        /// Vector number.
        vector: u32,
        /// EIP at that moment.
        eip: u32,
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

/// The ring-0 program, built.
pub struct Kernel(Vec<u8>);

impl Kernel {
    /// Assembles the ring-0 program.
    pub fn build() -> Result<Self, MachineError> {
        let text = format!("-Wl,-Ttext={:#x}", KERNEL_BASE + KERNEL);
        let sources = [("kernel.S", include_str!("../../native/kernel.S"))];
        let arguments = ["-o", "kernel", "kernel.S", &text, "-Wl,--oformat=binary"];
        let directory = toolchain::build(&sources, &arguments)?;
        Ok(Self(std::fs::read(directory.path().join("kernel"))?))
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
    fn processor(self, mmu: Mmu) -> Result<Vcpu, VcpuError> {
        let (engine, windows) = match self {
            Self::Emulator => (Engine::Emulator, Windows::Never),
            Self::Tables => (Engine::Translator, Windows::Never),
            Self::Windows => (Engine::Translator, Windows::Always),
        };
        let config = VcpuConfig {
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

/// Instructions between the stops around a case that are not the case's: IRET, LSS and JMP into it, and OUT behind it.
const FRAME_INSTRUCTIONS: u64 = 4;

/// The way into a case: `lss esp, cs:[ENTRY]`, `jmp far cs:[ENTRY + 8]`.
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
    vcpu: Vcpu,
    bus: StopPort,
    loaded: Option<Arc<Template>>,
}

impl Machine {
    /// Boots a machine up to the point where it takes cases.
    pub fn boot(kernel: &Kernel, side: Side) -> Result<Self, MachineError> {
        let memory = Memory::new(u64::from(RAM))?;
        write(&memory, KERNEL, &kernel.0);
        for (address, entry) in page_tables() {
            write(&memory, address, &entry.to_le_bytes());
        }
        write(&memory, EXIT_FRAME, &[HLT]);
        write(&memory, EXIT_FRAME + EXIT_FAR_OFFSET, &[HLT]);
        write(&memory, EXIT_FRAME + ENTER_OFFSET, &enter());
        write(&memory, CODE_FRAME, &[FILLER; CODE_BYTES as usize]);
        let mut vcpu = side.processor(Mmu::new(memory)?)?;
        vcpu.set_linux_entry(KERNEL, 0);
        let mut machine = Self {
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
        let code = CODE_FRAME + (case.at - CODE);
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
        let (vector, eip) = (word(&record, OUT_TRAP), word(&record, OUT_EIP));
        if word(&record, OUT_SIGNAL) & 3 == 0 {
            return Err(MachineError::Kernel { vector, eip });
        }
        let in_flat_code = word(&record, OUT_CS) as u16 == FLAT_CODE;
        if vector == GENERAL_PROTECTION && in_flat_code && matches!(eip, EXIT | EXIT_FAR) {
            record[OUT_SIGNAL as usize..][..4].fill(0);
        }
        let changes = self.collect(&case.template);
        Ok(Ran {
            outcome: wire::outcome(&record, changes),
            emulated: between - FRAME_INSTRUCTIONS,
        })
    }

    /// Runs the ring-0 program until it stops at its port.
    fn resume(&mut self) -> Result<(), MachineError> {
        self.bus.written = false;
        match self.vcpu.run(&mut self.bus, BUDGET) {
            Exit::Stop => Ok(()),
            exit => Err(MachineError::Stopped {
                exit,
                eip: self.vcpu.cpu.eip as u32,
            }),
        }
    }

    fn load(&mut self, template: &Arc<Template>) {
        if !self
            .loaded
            .as_ref()
            .is_some_and(|loaded| Arc::ptr_eq(loaded, template))
        {
            self.write(SANDBOX_FRAME, template.bytes());
            self.write(LDT_FRAME, &wire::descriptors(template));
            self.loaded = Some(Arc::clone(template));
        }
    }

    /// The doublewords of the sandbox that differ from the template, which is put back.
    fn collect(&mut self, template: &Template) -> Vec<Change> {
        let mut sandbox = [0; SANDBOX_BYTES];
        self.read(SANDBOX_FRAME, &mut sandbox);
        let mut changes = Vec::new();
        for index in (0..SANDBOX_PAGES).filter(|index| SANDBOX_WRITABLE >> index & 1 == 1) {
            let live = &sandbox[(index * PAGE) as usize..][..PAGE as usize];
            let original = template.page(index);
            if live == original {
                continue;
            }
            let dwords = live.chunks_exact(4).zip(original.chunks_exact(4));
            for (at, (live, _)) in (0u32..)
                .step_by(4)
                .zip(dwords)
                .filter(|(_, (live, original))| live != original)
            {
                changes.push(Change {
                    address: SANDBOX + index * PAGE + at,
                    value: word(live, 0),
                });
            }
            self.write(SANDBOX_FRAME + index * PAGE, original);
        }
        changes
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

/// Physical addresses and values of all page-table entries.
fn page_tables() -> Vec<(u32, u64)> {
    /// Linear bytes that one page table maps.
    const TABLE_REACH: u32 = 512 * PAGE;
    let supervisor = PRESENT | WRITABLE;
    let mut pages = vec![(KERNEL, KERNEL, supervisor)];
    pages.extend(
        (0..RAM)
            .step_by(PAGE as usize)
            .map(|at| (KERNEL_BASE + at, at, supervisor)),
    );
    pages.push((EXIT, EXIT_FRAME, PRESENT | USER));
    pages.push((ENTRY, ENTRY_FRAME, PRESENT | USER | NO_EXECUTE));
    pages.extend(
        (0..CODE_BYTES)
            .step_by(PAGE as usize)
            .map(|at| (CODE + at, CODE_FRAME + at, PRESENT | USER)),
    );
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
        pages.push((SANDBOX + index * PAGE, SANDBOX_FRAME + index * PAGE, rights));
    }

    let directory = |linear: u32| PAGE_DIRECTORY_POINTERS + PAGE + (linear >> 30) * PAGE;
    let mut entries: Vec<(u32, u64)> = (0u32..4)
        .map(|index| {
            (
                PAGE_DIRECTORY_POINTERS + 8 * index,
                u64::from(directory(index << 30)) | PRESENT,
            )
        })
        .collect();
    let mut tables: Vec<u32> = Vec::new();
    for (linear, physical, rights) in pages {
        let region = linear / TABLE_REACH;
        let table = tables
            .iter()
            .position(|&known| known == region)
            .unwrap_or_else(|| {
                tables.push(region);
                tables.len() - 1
            });
        let table = PAGE_DIRECTORY_POINTERS + (5 + table as u32) * PAGE;
        entries.push((
            directory(linear) + (linear >> 21 & 0x1ff) * 8,
            u64::from(table) | PRESENT | WRITABLE | USER,
        ));
        entries.push((
            table + (linear >> 12 & 0x1ff) * 8,
            u64::from(physical) | rights,
        ));
    }
    entries
}
