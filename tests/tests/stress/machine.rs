//! A machine of RAM and one processor, which runs a program to its HLT on either engine.

use std::{fs::File, ops::AddAssign, os::unix::fs::FileExt as _};

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use mmu::{GuestPhys, Memory};
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use sbe::{EmptyBus, Engine, Exit, TranslationStats, Vcpu, VcpuConfig, Windows};
use tests::{report::report, vm};

use super::contents::Contents;
use super::tables::{PRESENT, Tables, WRITABLE};
use super::width::Width;

/// Number of ESP.
const ESP: u8 = 4;
/// Bytes compared at a time; memory is a multiple of it.
const CHUNK: usize = 64 << 10;
/// Physical address of the page tables that a 64-bit program starts with.
const FIRST_TABLES: u32 = 0x1_0000;
/// Instructions, or jumps of translated code, that the processor runs at a time.
const SLICE: u64 = 100_000;
/// Room for translated code that few programs fill, in bytes.
pub const CODE_CACHE: usize = 32 << 20;
/// Slices that a program may take at most.
const SLICES: u32 = 10_000;
/// The choices of windows that make a difference.
pub const WINDOWS: [Windows; 2] = [Windows::Never, Windows::Always];

/// A program: contents of memory, and where it starts, in 32-bit protected mode with paging off or in 64-bit mode with the first
/// [`IDENTITY`](super::tables::IDENTITY) bytes mapped one to one.
pub struct Program {
    /// The width of code and machine.
    pub width: Width,
    /// Bytes of RAM, whole MiB.
    pub memory: u64,
    /// Physical address of the first instruction.
    pub entry: u32,
    /// ESP at the start.
    pub stack: u32,
    /// Bytes of translated code that there is room for.
    pub code_cache: usize,
    /// Whether translated code is checked before it executes.
    pub verify_code: bool,
    /// Contents of memory.
    pub contents: Contents,
}

impl Program {
    /// Adds `bytes` at `address`.
    pub fn place(&mut self, address: u32, bytes: impl Into<Vec<u8>>) {
        self.contents.place(address, bytes);
    }

    /// Runs the program to its HLT on `engine`.
    pub fn run(&self, engine: Engine) -> Ended {
        self.run_with(engine, Windows::Never)
    }

    /// Runs the program with `windows`.
    pub fn run_with(&self, engine: Engine, windows: Windows) -> Ended {
        let mut vcpu = self.vcpu(engine, windows);
        run_to_halt(&mut vcpu);
        Ended(vcpu)
    }

    /// A processor about to execute the program.
    pub fn vcpu(&self, engine: Engine, windows: Windows) -> Vcpu {
        let model = self.width.model();
        let paging = model.paging_model();
        let phys = Memory::for_width(self.memory, paging.linear_width).expect("memory");
        for (address, bytes) in &self.contents.pieces {
            phys.write(GuestPhys::new((*address).into()), bytes)
                .expect("the program fits");
        }
        let config = VcpuConfig {
            model,
            engine,
            code_cache: self.code_cache,
            windows,
            verify_code: self.verify_code,
            ..VcpuConfig::default()
        };
        let mut vcpu = Vcpu::new(&config, vm::mmu(phys, paging)).expect("a processor");
        match self.width {
            Width::Narrow => vcpu.set_linux_entry(self.entry, 0),
            Width::Wide => vcpu.set_linux_entry64(self.entry.into(), 0, FIRST_TABLES.into()),
        }
        vcpu.cpu.regs.set(ESP, self.stack);
        vcpu
    }

    /// Creates a program without code in `memory` bytes of RAM.
    pub fn new(width: Width, memory: u64, entry: u32, stack: u32) -> Self {
        let mut program = Self {
            width,
            memory,
            entry,
            stack,
            code_cache: CODE_CACHE,
            verify_code: true,
            contents: Contents::default(),
        };
        if let Width::Wide = width {
            Tables::new(width, FIRST_TABLES)
                .map_all(&mut program.contents, 0, |page| page | PRESENT | WRITABLE);
        }
        program
    }

    /// Adds code at `address`.
    pub fn assemble(
        &mut self,
        address: u32,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        self.place(address, assemble(self.width, address, code));
    }

    /// Runs the program on both engines, fails unless they agree, and prints what it took.
    pub fn agree(&self, what: &str) -> Ended {
        let (ended, counts) = self.compare(what);
        counts.report(what);
        ended
    }

    /// Runs the program on both engines, with windows and without, and fails unless they agree. Returns the state that the
    /// translator ended in, with windows, and what it took.
    pub fn compare(&self, what: &str) -> (Ended, Counts) {
        let emulator = self.run(Engine::Emulator);
        let compared = WINDOWS.into_iter().map(|windows| {
            let translator = self.run_with(Engine::Translator, windows);
            let what = format!("{what}, {}, {windows} windows", self.width);
            emulator.assert_same(&translator, &what);
            translator
        });
        let translator = compared
            .reduce(|_, last| last)
            .expect("one choice at least");
        let counts = Counts {
            instructions: emulator.0.cpu.retired,
            emulated: translator.0.cpu.retired,
            served: vm::served(&translator.0.mmu),
        };
        (translator, counts)
    }
}

/// Runs a program to its HLT.
pub fn run_to_halt(vcpu: &mut Vcpu) {
    match next_stop(vcpu) {
        Exit::Halt => {}
        exit => panic!("{exit:?} at {:08x}", vcpu.cpu.eip),
    }
}

/// Runs a program until something stops it.
pub fn next_stop(vcpu: &mut Vcpu) -> Exit {
    for _ in 0..SLICES {
        match vcpu.run(&mut EmptyBus, SLICE) {
            Exit::Budget => {}
            exit => return exit,
        }
    }
    panic!("runs away at {:08x}", vcpu.cpu.eip)
}

/// Counts of the instructions that a program took.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Instructions the program executes.
    pub instructions: u64,
    /// Instructions that the translator left to the emulator.
    pub emulated: u64,
    /// Faults in windows that the host's kernel module served.
    pub served: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.emulated += other.emulated;
        self.served += other.served;
    }
}

impl Counts {
    /// Prints the counts, and fails if nothing ran as translated code.
    pub fn report(self, what: &str) {
        let Self {
            instructions,
            emulated,
            served,
        } = self;
        let translated = instructions.saturating_sub(emulated);
        let served = match vm::is_vm() {
            true => format!("; the module served {served} faults"),
            false => String::new(),
        };
        report(&format!(
            "{what}: {instructions} instructions, {translated} of them ran as translated code; same end{served}"
        ));
        assert_ne!(translated, 0, "{what}: nothing was translated");
    }
}

/// A machine after a program's HLT.
pub struct Ended(pub Vcpu);

impl Ended {
    /// Returns the translator's statistics.
    pub fn translation(&self) -> &TranslationStats {
        self.0.translation().expect("ended on the translator")
    }

    /// Fails unless `other` has ended in the same state and memory.
    pub fn assert_same(&self, other: &Self, what: &str) {
        let state = |ended: &Self| {
            let cpu = &ended.0.cpu;
            (
                cpu.regs.clone(),
                cpu.eflags,
                cpu.eip,
                cpu.cr2,
                cpu.fpu.clone(),
            )
        };
        assert_eq!(state(self), state(other), "{what}: registers");
        let files = [self, other].map(|ended| ended.0.mmu.memory().file());
        let [mut mine, mut theirs] = [vec![0; CHUNK], vec![0; CHUNK]];
        let mut start = 0;
        // What neither machine has written is zero in both.
        while let Some(data) = files.iter().filter_map(|file| next_data(file, start)).min() {
            start = data - data % CHUNK as u64;
            for (file, bytes) in files.into_iter().zip([&mut mine, &mut theirs]) {
                file.read_exact_at(bytes, start).expect("RAM");
            }
            if mine != theirs {
                let differs = |&at: &usize| mine[at] != theirs[at];
                let at = (0..CHUNK).find(differs).unwrap_or_default();
                panic!("{what}: memory differs at {:08x}", start + at as u64);
            }
            start += CHUNK as u64;
        }
    }

    fn read(&self, start: u64, bytes: &mut [u8]) {
        self.0
            .mmu
            .memory()
            .read(GuestPhys::new(start), bytes)
            .expect("RAM");
    }

    /// `count` doublewords from physical address `start` on.
    pub fn dwords(&self, start: u32, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * count];
        self.read(start.into(), &mut bytes);
        bytes
            .chunks_exact(4)
            .map(|dword| u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]))
            .collect()
    }
}

/// The offset from `start` on at which `file` has data, if it has any there.
fn next_data(file: &File, start: u64) -> Option<u64> {
    match lseek(file, start.cast_signed(), Whence::SeekData) {
        Ok(data) => Some(data.cast_unsigned()),
        Err(Errno::ENXIO) => None,
        Err(error) => panic!("RAM: {error}"),
    }
}

/// Assembles code for `address`.
pub fn assemble(
    width: Width,
    address: impl Into<u64>,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(width.bits()).expect("a bitness");
    code(&mut assembler).expect("valid instructions");
    assembler.assemble(address.into()).expect("branches reach")
}
