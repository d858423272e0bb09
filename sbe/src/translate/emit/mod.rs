//! [`Emitter`]: host code for guest instructions, one after the other.
//!
//! A memory access is a probe of a flat table, all without touching flags:
//!
//! ```text
//!   lea   r8d, [effective address]    ; not where the address is just a register
//!   rorx  ecx, r8d, log2(size)        ; low bits to the top: a misaligned address indexes slots that are always empty
//!   shrx  ecx, ecx, r15d              ; by 12 - log2(size)
//!   mov   rcx, [r14 + rcx*8]          ; slot: host page - linear page + SLOT_PRESENT, or 0
//!   jrcxz miss                        ; the engine fills the slot, or the emulator does the instruction
//!   op    ..., [r8 + rcx - SLOT_PRESENT]
//! ```
//!
//! Tables for 48-bit linear addresses have fewer slots than there are pages. The bits of the address that choose one come from
//! PEXT, and the slot may be that of another page:
//!
//! ```text
//!   rorx  rcx, r8, log2(size)
//!   pext  rcx, rcx, [r15 + MASKS + 8*log2(size)]
//!   mov   r9, [r15 + TABLE]           ; for writes WRITE_TABLE
//!   mov   rcx, [r9 + rcx*8]
//!   jrcxz miss
//!   op    ..., [r8 + rcx - SLOT_PRESENT]
//! ```
//!
//! The slot of another page, or an address that is not canonical, leads to a host address at which nothing is (`mmu`, `index`). The
//! access faults on the host, and the emulator executes the instruction: so nothing of the guest's changes before the last access.
//!
//! | file | emits |
//! |---|---|
//! | `group` | checks of several accesses at once |
//! | `memory` | effective addresses, probes, windows |
//! | `misses` | slow paths, taken when a check fails |
//! | `room` | how much code an instruction may become (emits nothing) |
//! | `plain` | integer instructions that the host executes as they are |
//! | `fpu` | x87, MMX and SSE instructions, and notes of the x87 instructions |
//! | `arithmetic` | instructions on registers and memory that need more than renaming |
//! | `stack` | PUSH, POP, LEAVE |
//! | `flags` | PUSHF, POPF, CLI, STI, CLD, STD |
//! | `string` | string instructions |
//! | `system` | segment registers, SYSENTER, SYSEXIT, RDTSC |
//! | `transfer` | jumps, calls, returns, and the stubs that link fragments |
//! | `branch` | the branches among them that can be linked (emits nothing) |

mod arithmetic;
mod branch;
mod flags;
mod fpu;
mod group;
mod memory;
mod misses;
mod plain;
mod room;
mod stack;
mod string;
mod system;
mod transfer;

use super::asm::*;
use super::bounds::Bounds;
use super::classify::{Rewrite, Verdict, verdict};
use super::context::PAGE_BIAS;
use super::context::field;
use super::fault_map::FaultEntry;
use super::listing::{Mark, Marks};
use super::mode::Mode;
use super::operands;
use super::sequences::{GUEST, UPPER_GUEST, context};
use super::trampoline::{Trampoline, Trampolines};
use super::x87_note::DeferredNote;
pub use branch::{Branch, Link, Target};
use fpu::Noted;
use group::{Group, Plan};
use iced_x86::{Instruction, InstructionInfoFactory, Register};
use misses::Miss;
use mmu::{LinearWidth, PAGE_SHIFT, PAGE_SIZE};
use room::Room;
use transfer::Stub;

/// The size of a page in bytes: branch targets below it are inside the page.
const PAGE: u32 = PAGE_SIZE as u32;
/// The length of the code at an entry that notes the page's address, with linear addresses of this width: LEA with a 32-bit
/// displacement, and where the address has its place in the context a MOV with one of 8 bits.
pub const fn entry_bytes(width: LinearWidth) -> u32 {
    match width {
        LinearWidth::Bits32 => 7,
        LinearWidth::Bits48 => 7 + 4,
    }
}

/// The outcome of emitting an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitted {
    /// Host code was emitted; the next instruction follows.
    Inline,
    /// Host code was emitted that never continues with the next instruction.
    Ends,
    /// Nothing was emitted: the emulator has to execute the instruction.
    Emulate,
}

type Result<T> = std::result::Result<T, AsmError>;

/// Emits fragments, one after the other.
pub struct Emitter {
    /// The code of the present fragment.
    pub asm: Asm,
    /// The branches of the fragment that can be linked, in the order of their sites.
    branches: Vec<Branch>,
    trampolines: Trampolines,
    /// The width of linear addresses, and so of tables.
    width: LinearWidth,
    mode: Mode,
    first_site: u32,
    info: InstructionInfoFactory,
    /// Checks whose islands are not placed yet.
    misses: Vec<Miss>,
    /// Arena offset of the first of them.
    first_miss: u32,
    /// Checks whose slow paths are not emitted yet.
    far: Vec<(Label, Miss)>,
    stubs: Vec<Stub>,
    /// The accesses of the fragment's instructions; empty in a variant without groups.
    plans: Vec<Plan>,
    /// The group that R10 serves at present.
    group: Option<Group>,
    /// What is known of the values of general registers.
    bounds: [Option<Bounds>; 16],
    /// Whether accesses go through the window.
    windowed: bool,
    /// The fault map of the fragment's sections, if accesses may fault on the host.
    pub fault_entries: [Vec<FaultEntry>; 2],
    /// Notes that are not stored yet where the code at an arena offset begins.
    pub fault_notes: Vec<(u32, DeferredNote)>,
    fpu_checked: bool,
    /// What is known of the notes of x87 instructions here.
    noted: Noted,
    /// DF is known to be clear here.
    upward: bool,
    /// The instruction before was STI: no interrupt may be taken before the next has executed.
    shadow: bool,
    /// A poll was counted for this instruction with the one before.
    polled: bool,
    /// The guest register that has its place in the context and of which R9 has a copy, where the code at this arena offset begins.
    copied: Option<(Register, u32)>,
    /// The positions of the fragment's instructions, if they are recorded.
    marks: Option<Marks>,
}

/// The place of a guest register while emitted code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// A host register of 64 bits.
    Register(Reg),
    /// The context.
    Context(Mem),
}

impl Home {
    /// The host register, or `scratch` for a place in the context.
    fn or(self, scratch: Reg) -> Reg {
        match self {
            Self::Register(register) => register,
            Self::Context(_) => scratch,
        }
    }
}

/// The place of the general register of which `register` is a part.
fn home(register: Register) -> Option<Home> {
    if !register.is_gpr() || operands::is_high_byte(register) {
        return None;
    }
    let number = register.full_register().number();
    let upper = UPPER_GUEST.iter().find(|upper| upper.0 == number);
    let held = GUEST.get(number).or(upper.map(|(_, register)| register));
    Some(match held {
        Some(&register) => Home::Register(register),
        None => Home::Context(context(field::REGS + 8 * number as i32)),
    })
}

/// The displacement of offset `offset` of the page from the page's biased address.
fn in_page(offset: u32) -> i32 {
    offset as i32 - PAGE_BIAS
}

impl Emitter {
    /// Creates an emitter of code that uses `trampolines`, for linear addresses of this width.
    pub fn new(trampolines: Trampolines, width: LinearWidth) -> Self {
        Self {
            asm: Asm::new(),
            branches: Vec::new(),
            trampolines,
            width,
            mode: Mode::Supervisor,
            first_site: 0,
            info: InstructionInfoFactory::new(),
            misses: Vec::new(),
            first_miss: 0,
            far: Vec::new(),
            stubs: Vec::new(),
            plans: Vec::new(),
            group: None,
            bounds: [None; 16],
            windowed: false,
            fault_entries: Default::default(),
            fault_notes: Vec::new(),
            fpu_checked: false,
            noted: Noted::default(),
            upward: false,
            shadow: false,
            polled: false,
            copied: None,
            marks: None,
        }
    }

    /// Whether linear addresses have 48 bits.
    fn is_wide(&self) -> bool {
        self.width == LinearWidth::Bits48
    }

    /// Bytes of a stack slot, which is as wide as addresses and the instruction pointer.
    fn word(&self) -> i32 {
        match self.mode.is_64() {
            true => 8,
            false => 4,
        }
    }

    /// Returns the register that holds the page's biased address: R13, or `scratch`, into which it is loaded from the context.
    fn page(&mut self, scratch: Reg) -> Reg {
        if !self.is_wide() {
            return R13;
        }
        self.asm.load64(scratch, context(field::PAGE));
        scratch
    }

    /// Returns a register whose low bits are the number of bits of an offset in a page: R13, or `scratch`, into which it is moved.
    fn page_shift(&mut self, scratch: Reg) -> Reg {
        if !self.is_wide() {
            return R13;
        }
        self.asm.mov_imm32(scratch, PAGE_SHIFT);
        scratch
    }

    /// Whether a register is as wide as addresses.
    fn is_word(&self, register: Register) -> bool {
        match self.mode.is_64() {
            true => register.is_gpr64(),
            false => register.is_gpr32(),
        }
    }

    /// The guest register of which R9 has a copy here.
    fn copied(&self) -> Option<Register> {
        let (register, code) = self.copied?;
        (code == self.asm.here()).then_some(register)
    }

    /// Notes that R9 has a copy of `register` here, of which the context has the same value.
    fn note_copy(&mut self, register: Option<Register>) {
        self.copied = register.map(|register| (register, self.asm.here()));
    }

    /// Emits the loading of the general register of which `register` is a part into `scratch`, if it is none of the host's and R9
    /// has no copy. Returns the register that holds it.
    fn held(&mut self, register: Register, scratch: Reg) -> Option<Reg> {
        Some(match home(register)? {
            Home::Context(_) if self.copied() == Some(register.full_register()) => R9,
            place => self.held_at(place, scratch),
        })
    }

    /// Emits the loading of a general register into `scratch` if it is none of the host's. Returns the register that holds it.
    fn held_at(&mut self, place: Home, scratch: Reg) -> Reg {
        if let Home::Context(place) = place {
            self.asm.load64(scratch, place);
        }
        place.or(scratch)
    }

    /// Emits the storing of `scratch` to a general register that is none of the host's.
    fn put_back(&mut self, place: Home, scratch: Reg) {
        if let Home::Context(place) = place {
            self.asm.store64(place, scratch);
        }
    }

    /// LEA of an address of the guest's.
    fn lea(&mut self, to: Reg, from: Mem) {
        match self.mode.is_64() {
            true => self.asm.lea64(to, from),
            false => self.asm.lea32(to, from),
        }
    }

    /// MOV of an address or stack slot of the guest's.
    fn mov(&mut self, to: Reg, from: Reg) {
        match self.mode.is_64() {
            true => self.asm.mov64(to, from),
            false => self.asm.mov32(to, from),
        }
    }

    /// MOV from a stack slot, or a place of its width.
    fn load_word(&mut self, to: Reg, from: Mem) {
        match self.mode.is_64() {
            true => self.asm.load64(to, from),
            false => self.asm.load32(to, from),
        }
    }

    /// MOV to a stack slot.
    fn store_word(&mut self, to: Mem, from: Reg) {
        match self.mode.is_64() {
            true => self.asm.store64(to, from),
            false => self.asm.store32(to, from),
        }
    }

    /// Records the positions of instructions from now on.
    pub fn record(&mut self) {
        self.marks = Some(Marks::default());
    }

    /// Takes the positions of the finished fragment's instructions, if they are recorded.
    pub fn take_marks(&mut self) -> Option<Marks> {
        self.marks.as_mut().map(std::mem::take)
    }

    /// Records that the code of the instruction at `offset` begins here.
    fn mark(&mut self, offset: u32, verdict: Verdict) {
        if let Some(marks) = &mut self.marks {
            marks.add(Mark {
                offset,
                verdict,
                code: self.asm.here(),
            });
        }
    }

    /// Adds an entry to the fault map: the code of an instruction, or of what is left of one, begins here, or that of the last one
    /// ends. An instruction can begin anew wherever it faults, as it changes nothing of the guest's before its last access that may.
    fn begin_instruction(&mut self, offset: Option<u16>) {
        self.begin_code(offset, self.copied().is_none());
    }

    /// Adds an entry to the fault map: code of `raw` begins here that needs what the code before it has left in scratch registers. If
    /// it faults, the emulator executes the instruction, of which nothing has been done yet.
    fn begin_rest(&mut self, raw: &Instruction) {
        self.begin_code(Some(raw.ip32() as u16), false);
    }

    fn begin_code(&mut self, offset: Option<u16>, restarts: bool) {
        if self.windowed || self.is_wide() {
            let code = self.asm.here();
            let section = self.asm.section() as usize;
            self.fault_entries[section].push(FaultEntry {
                code,
                offset,
                restarts,
            });
            self.fault_notes
                .extend(self.noted.deferred().map(|note| (code, note)));
        }
    }

    /// Begins the fragment for offset `at` of a page, at the arena offsets `origins`, executed in `mode`, with site numbers from
    /// `first_site` on. It is entered with EIP in R8D, from which it computes the page's address, or [`entry_bytes`] further on
    /// from inside the page.
    pub fn begin(&mut self, origins: [u32; 2], mode: Mode, first_site: u32, at: u32) {
        self.asm.restart(origins);
        self.branches.clear();
        self.misses.clear();
        self.far.clear();
        self.stubs.clear();
        self.plans.clear();
        self.group = None;
        self.bounds = [None; 16];
        self.mode = mode;
        self.windowed = mode.is_windowed();
        self.fault_entries.iter_mut().for_each(Vec::clear);
        self.fault_notes.clear();
        self.first_site = first_site;
        self.fpu_checked = false;
        self.noted = Noted::default();
        self.upward = false;
        self.shadow = false;
        self.copied = None;
        self.take_marks();
        self.note_page(at);
    }

    /// Emits the page's biased address = R8D less `at`.
    fn note_page(&mut self, at: u32) {
        // LEA R13 or R8, [R8 + disp32], in its long form whatever the displacement.
        let rex = if self.mode.is_64() { 0x4d } else { 0x45 };
        let operands = if self.is_wide() { 0x80 } else { 0xa8 };
        self.asm.raw(&[rex, 0x8d, operands]);
        self.asm.raw(&(PAGE_BIAS - at as i32).to_le_bytes());
        if self.is_wide() {
            self.asm.store64(context(field::PAGE), R8);
        }
    }

    /// Looks ahead at an instruction of the fragment, so that accesses can be grouped. Returns whether the next instruction can
    /// follow it.
    pub fn plan(&mut self, raw: &Instruction) -> bool {
        let verdict = self.verdict(raw);
        self.plans
            .push(Plan::new(raw, verdict, &mut self.info, self.mode.is_64()));
        !matches!(verdict, Verdict::Emulate) && !verdict.ends()
    }

    /// Instruction `number` of the fragment, if it was looked ahead at.
    pub fn planned(&self, number: usize) -> Option<Instruction> {
        self.plans.get(number).map(|plan| plan.raw)
    }

    /// Emits `raw`, instruction `number` of the fragment, whose IP is its offset in the page; `bytes` begin with those that it was
    /// decoded from.
    ///
    /// # Errors
    /// The encoder's.
    pub fn instruction(
        &mut self,
        raw: &Instruction,
        bytes: &[u8],
        number: usize,
    ) -> Result<Emitted> {
        let planned = self.plans.get(number).map(|plan| plan.verdict);
        let verdict = planned.unwrap_or_else(|| self.verdict(raw));
        let shadow = std::mem::take(&mut self.shadow);
        if !self.can_defer_note_over(raw, verdict) {
            self.store_note();
        }
        self.keep_islands_near(Room::of(raw, verdict, self.width));
        self.mark(raw.ip32(), verdict);
        self.begin_instruction(Some(raw.ip32() as u16));
        if verdict != Verdict::Emulate {
            self.begin_group(raw, number);
        }
        self.polled = shadow;
        let emitted = self.by_verdict(raw, bytes, verdict);
        self.follow_group(number);
        self.follow_bounds(raw, number);
        emitted
    }

    /// Classifies `raw`.
    fn verdict(&self, raw: &Instruction) -> Verdict {
        match verdict(raw, self.mode) {
            // A look at the GDT may fault on the host.
            Verdict::Rewrite(Rewrite::PopSegment | Rewrite::LoadSegment) if self.is_wide() => {
                Verdict::Emulate
            }
            verdict => verdict,
        }
    }

    fn by_verdict(&mut self, raw: &Instruction, bytes: &[u8], verdict: Verdict) -> Result<Emitted> {
        match verdict {
            Verdict::Skip => Ok(Emitted::Inline),
            Verdict::Copy => self.copy(raw),
            Verdict::CopyWithCl => self.copy_with_cl(raw),
            Verdict::CopyFpu => self.copy_fpu(raw, bytes),
            Verdict::Emulate => Ok(Emitted::Emulate),
            Verdict::Rewrite(rewrite) => self.rewrite(raw, rewrite),
        }
    }

    fn rewrite(&mut self, raw: &Instruction, rewrite: Rewrite) -> Result<Emitted> {
        match rewrite {
            Rewrite::Lea => Ok(self.load_address(raw)),
            Rewrite::Push => Ok(self.push(raw)),
            Rewrite::Pop => Ok(self.pop(raw)),
            Rewrite::PopMemory => Ok(self.pop_memory(raw)),
            Rewrite::Leave => Ok(self.leave_frame(raw)),
            Rewrite::Pushf => Ok(self.by_tables(|emitter| emitter.pushf(raw))),
            Rewrite::Popf => Ok(self.popf(raw)),
            Rewrite::Cld => Ok(self.cld()),
            Rewrite::Std => Ok(self.std()),
            Rewrite::Cli => Ok(self.cli()),
            Rewrite::Sti => Ok(self.sti(raw)),
            Rewrite::BitString => self.by_tables(|emitter| emitter.bit_string(raw)),
            Rewrite::CompareExchangePair => Ok(self.compare_exchange_pair(raw)),
            Rewrite::Divide => self.divide(raw),
            Rewrite::LoadControlWord => {
                Ok(self.by_tables(|emitter| emitter.load_control_word(raw)))
            }
            Rewrite::PushSegment => Ok(self.push_segment(raw)),
            Rewrite::PopSegment => Ok(self.pop_segment(raw)),
            Rewrite::StoreSegment => Ok(self.store_segment(raw)),
            Rewrite::StoreControl => Ok(self.store_control(raw)),
            Rewrite::LoadSegment => Ok(self.load_segment(raw)),
            Rewrite::Sysenter => Ok(self.change_level(raw, Trampoline::Sysenter)),
            Rewrite::Sysexit => Ok(self.change_level(raw, Trampoline::Sysexit)),
            Rewrite::Syscall => Ok(self.with_next(raw, Trampoline::Syscall)),
            Rewrite::WriteMsr => Ok(self.with_next(raw, Trampoline::WriteMsr)),
            Rewrite::Sysret => Ok(self.change_level(raw, Trampoline::Sysret)),
            Rewrite::Swapgs => Ok(self.swapgs()),
            Rewrite::Rdtsc => Ok(self.rdtsc(raw)),
            Rewrite::String => self.string(raw),
            Rewrite::RepeatedString => self.by_tables(|emitter| emitter.repeated_string(raw)),
            Rewrite::Branch => Ok(self.branch_if(raw)),
            Rewrite::BranchIfZero => Ok(self.branch_if_zero(raw)),
            Rewrite::Loop => Ok(self.branch_loop(raw)),
            Rewrite::Jump => Ok(self.jump(raw)),
            Rewrite::Call => Ok(self.call(raw)),
            Rewrite::JumpIndirect => Ok(self.jump_indirect(raw)),
            Rewrite::CallIndirect => Ok(self.call_indirect(raw)),
            Rewrite::Return => Ok(self.ret(raw)),
        }
    }

    /// Emits JMP to a trampoline.
    fn jmp_to(&mut self, trampoline: Trampoline) {
        self.asm.jmp_to(self.trampolines.at(trampoline));
    }

    /// Emits CALL of a trampoline.
    fn call_to(&mut self, trampoline: Trampoline) {
        self.asm.call_to(self.trampolines.at(trampoline));
    }

    /// Continues at offset `target` of the page or, beyond its end, of the next.
    pub fn go_on(&mut self, target: u32) {
        self.store_note();
        self.keep_islands_near(Room::PLAIN);
        self.go_to(target);
    }

    /// Exits to have the instruction at `offset` emulated.
    pub fn emulate(&mut self, offset: u32) {
        self.store_note();
        self.keep_islands_near(Room::PLAIN);
        self.mark(offset, Verdict::Emulate);
        self.asm.mov_imm32(R9, offset);
        self.jmp_to(Trampoline::EmulateAt);
    }

    /// Emits islands, stubs and slow paths, and returns the code. To be called once, behind code that does not fall through.
    ///
    /// # Errors
    /// The encoder's.
    pub fn finish(&mut self) -> Result<[&[u8]; 2]> {
        if let Some(marks) = &mut self.marks {
            marks.end = self.asm.here();
        }
        self.begin_instruction(None);
        self.islands(false);
        for index in 0..self.stubs.len() {
            self.stub(self.stubs[index]);
        }
        self.asm.switch_to(Section::Cold);
        for index in 0..self.far.len() {
            let (label, miss) = self.far[index];
            self.slow_path(label, miss);
        }
        self.asm.finish()
    }

    /// The branches of the finished fragment that can be linked, in the order of their sites.
    pub fn links(&self) -> impl Iterator<Item = Link> {
        self.branches.iter().map(|branch| branch.link(&self.asm))
    }
}
