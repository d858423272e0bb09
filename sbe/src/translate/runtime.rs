//! The fixed code at the start of the arena: the way in, the ways out, and the jump dispatcher.

use super::arena::Arena;
use super::asm::*;
use super::context::{
    AccessKind, CODE_TABLE, CONTEXT_BIAS, Context, KNOWN_SEGMENTS, PAGE_BIAS, Reason, WRITE_TABLE,
    field,
};
use super::signal::{Executing, with_faults_handled};
use crate::cpu::segment::SegReg;
use mmu::SLOT_PRESENT;
use std::io;

/// Where the fixed pieces are, as arena offsets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runtime {
    /// Goes to the code of the EIP in R8D, if it is known; else leaves. Counts a poll.
    pub jump: u32,
    /// As `jump`, without a poll.
    pub forward: u32,
    /// Where the outermost host return goes: as `jump`, with the stack kept.
    pub underflow: u32,
    /// Where guest calls whose return does not match land: as `jump`, with EIP inverted.
    pub mismatch: u32,
    /// Leaves to have the instruction at R8D emulated: what entry tables hold for such instructions.
    pub emulate: u32,
    /// Leaves to have the instruction at offset R9D of the page emulated.
    pub emulate_at: u32,
    /// Leaves before the instruction at offset R9D of the page, because polls are used up.
    pub budget_at: u32,
    /// Leaves at the branch to offset R9D of the page whose site R8D names.
    pub link: u32,
    /// Leaves at the branch to the EIP in R8D, in another page, whose site R9D names.
    pub cross: u32,
    /// Called with the instruction's offset in R9D: loads the guest's FPU state, or leaves.
    pub load_fpu: u32,
    /// Called with a selector in R8D and the instruction's offset in R9D: loads a segment register, by number, or leaves.
    load_segment: [u32; 6],
    /// SYSENTER at offset R9D of the page.
    pub sysenter: u32,
    /// SYSEXIT at offset R9D of the page.
    pub sysexit: u32,
    /// Called with an address in R8D and the instruction's offset in R9D: returns with a slot in RCX, or leaves.
    misses: [u32; AccessKind::COUNT],
    /// Where code goes on after a fault of the host.
    pub landing: u32,
    /// Saves the guest's state and returns to the caller of `enter`; EIP and reason are already in the context.
    exit: u32,
    /// `extern "C" fn(*mut Context, target)`: loads the guest's state and goes to `target`.
    enter: u32,
    /// Where code that can be thrown away begins.
    pub end: [u32; 2],
}

/// Guest registers by number, as the host holds them.
pub const GUEST: [Reg; 8] = [RAX, R11, RDX, RBX, R12, RBP, RSI, RDI];
/// Callee-saved registers of the C ABI that guest state overwrites.
const SAVED: [Reg; 6] = [RBX, RBP, R12, R13, R14, R15];

/// Adding this to AL = 0 or 1 leaves OF = 0 or 1.
const OVERFLOW_MAKER: u8 = 0x7F;

/// `name` of the context.
pub fn context(name: i32) -> Mem {
    at(R15, name)
}

/// LAHF, and OF into AL.
pub fn save_flags_to_ax(asm: &mut Asm) {
    asm.raw(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
}

/// Flags from AX as [`save_flags_to_ax`] leaves it.
pub fn load_flags_from_ax(asm: &mut Asm) {
    asm.raw(&[0x04, OVERFLOW_MAKER, 0x9E]); // add al, imm8; sahf
}

/// Counts one poll down and goes to `expired` when it was the last. Keeps flags; RCX is scratch.
pub fn poll(asm: &mut Asm, expired: Label) {
    asm.load32(RCX, context(field::POLLS));
    asm.lea32(RCX, at(RCX, -1));
    asm.store32(context(field::POLLS), RCX);
    asm.jrcxz(expired);
}

impl Runtime {
    /// Emits the fixed pieces into an empty arena. The first byte of the arena is the piece that leaves to look up the EIP in
    /// R8D: an entry table's zero.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn emit(arena: &mut Arena) -> io::Result<Self> {
        let mut runtime = Self::default();
        let mut asm = Asm::new();
        asm.restart(arena.next());
        let exit = asm.label();
        leave(&mut asm, Reason::Lookup, exit);
        runtime.exit = asm.here();
        asm.bind(exit);
        self::exit(&mut asm);
        runtime.enter = asm.here();
        enter(&mut asm);
        let jump_label = asm.label();
        runtime.underflow = asm.here();
        asm.lea64(RSP, at(RSP, -(size_of::<u64>() as i32)));
        asm.jmp_short(jump_label);
        runtime.mismatch = asm.here();
        asm.not64(R8);
        asm.bind(jump_label);
        runtime.jump = asm.here();
        jump(&mut asm, exit);
        runtime.forward = asm.here();
        dispatch(&mut asm);
        runtime.emulate = asm.here();
        leave(&mut asm, Reason::Emulate, exit);
        runtime.emulate_at = asm.here();
        leave_at(&mut asm, Reason::Emulate, exit);
        runtime.budget_at = asm.here();
        leave_at(&mut asm, Reason::Budget, exit);
        runtime.link = asm.here();
        asm.store32(context(field::SITE), R8);
        leave_at(&mut asm, Reason::Link, exit);
        runtime.cross = asm.here();
        asm.store32(context(field::SITE), R9);
        leave(&mut asm, Reason::Cross, exit);
        runtime.landing = asm.here();
        asm.store_imm32(context(field::REASON), Reason::Window as u32);
        asm.jmp(exit);
        runtime.load_fpu = asm.here();
        load_fpu(&mut asm, exit);
        for register in SegReg::ALL {
            runtime.load_segment[register as usize] = asm.here();
            load_segment(&mut asm, register, exit);
        }
        runtime.sysenter = asm.here();
        change_level(&mut asm, Level::Kernel, jump_label, exit);
        runtime.sysexit = asm.here();
        change_level(&mut asm, Level::User, jump_label, exit);
        for kind in AccessKind::all() {
            runtime.misses[kind.number() as usize] = asm.here();
            miss(&mut asm, kind, exit);
        }
        let code = asm.finish().map_err(io::Error::other)?;
        if !arena.append(code) {
            return Err(io::Error::other("the fixed pieces do not fit"));
        }
        runtime.end = arena.next();
        Ok(runtime)
    }

    /// The piece for a miss of this kind.
    pub fn miss(&self, kind: AccessKind) -> u32 {
        self.misses[kind.number() as usize]
    }

    /// The piece that loads `register`: DS, ES, FS or GS.
    pub fn load_segment(&self, register: SegReg) -> u32 {
        self.load_segment[register as usize]
    }

    /// Runs emitted code at `target` until it exits.
    pub fn run(&self, arena: &mut Arena, context: &mut Context, target: u64) {
        arena.publish();
        let address = arena.address_of(self.enter);
        let context: *mut Context = context;
        let executing = Executing {
            code: arena.addresses(),
            landing: arena.address_of(self.landing),
            context,
        };
        // SAFETY: `address` is the `enter` piece, a function of this signature that keeps the C ABI's promises. Code at
        // `target` was made by `fragment`: it touches the context, the stack that the context names, and guest memory
        // through the tables and the window in the context only, and ends at the `exit` piece. The landing is a piece that
        // can be entered from wherever code faults.
        with_faults_handled(&executing, || unsafe {
            let enter: extern "C" fn(*mut Context, u64) = std::mem::transmute(address as *const ());
            enter(context, target);
        });
    }
}

/// RDI: context, RSI: target.
fn enter(asm: &mut Asm) {
    for register in SAVED {
        asm.push(register);
    }
    asm.lea64(R15, at(RDI, CONTEXT_BIAS));
    asm.mov64(R9, RSI);
    asm.store64(context(field::HOST_STACK), RSP);
    let no_window = asm.label();
    asm.load64(RCX, context(field::WINDOW));
    asm.jrcxz(no_window);
    asm.raw(&[0xF3, 0x48, 0x0F, 0xAE, 0xD9]); // wrgsbase rcx
    asm.bind(no_window);
    asm.load64(RSP, context(field::STACK));
    asm.load64(R14, context(field::TABLE));
    asm.load64(R13, context(field::PAGE));
    asm.load64(R10, context(field::POINTER));
    asm.load32(R8, context(field::EIP));
    asm.load32(RAX, context(field::FLAGS));
    load_flags_from_ax(asm);
    let slot = asm.label();
    asm.load64(RCX, context(field::FPU_LIVE));
    asm.jrcxz(slot);
    asm.digit(&[0x0F, 0xAE], 1, context(field::FPU)); // fxrstor
    asm.bind(slot);
    asm.load64(RCX, context(field::SLOT));
    for (number, register) in GUEST.into_iter().enumerate() {
        asm.load64(register, context(field::REGS + 8 * number as i32));
    }
    asm.jmp_register(R9);
}

fn exit(asm: &mut Asm) {
    for (number, register) in GUEST.into_iter().enumerate() {
        asm.store64(context(field::REGS + 8 * number as i32), register);
    }
    asm.store64(context(field::PAGE), R13);
    asm.store64(context(field::POINTER), R10);
    save_flags_to_ax(asm);
    asm.store32(context(field::FLAGS), RAX);
    asm.store64(context(field::STACK), RSP);
    asm.load64(RSP, context(field::HOST_STACK));
    let no_fpu = asm.label();
    asm.load64(RCX, context(field::FPU_LIVE));
    asm.jrcxz(no_fpu);
    asm.digit(&[0x0F, 0xAE], 0, context(field::FPU)); // fxsave
    asm.store64(context(field::FPU_SAVED), RCX);
    asm.raw(&[0xDB, 0xE3]); // fninit
    asm.digit(&[0x0F, 0xAE], 2, context(field::HOST_MXCSR)); // ldmxcsr
    asm.bind(no_fpu);
    for register in SAVED.into_iter().rev() {
        asm.pop(register);
    }
    asm.ret();
}

/// R8D: EIP. Polls first.
fn jump(asm: &mut Asm, exit: Label) {
    let (expired, go) = (asm.label(), asm.label());
    poll(asm, expired);
    asm.jmp_short(go);
    asm.bind(expired);
    leave(asm, Reason::Budget, exit);
    asm.bind(go);
    dispatch(asm);
}

/// R8D: EIP. The code table holds where the page's entry table begins, less four times the page's address.
pub fn dispatch(asm: &mut Asm) {
    let unknown = asm.label();
    asm.shrx32(RCX, R8, R13);
    asm.load64(RCX, indexed(R14, RCX, 3, CODE_TABLE));
    asm.jrcxz(unknown);
    asm.load32(RCX, indexed(RCX, R8, 2, 0));
    asm.bind(unknown);
    asm.lea_arena(R9);
    asm.lea64(RCX, indexed(RCX, R9, 0, 0));
    asm.jmp_register(RCX);
}

/// Leaves with EIP in R8D.
fn leave(asm: &mut Asm, reason: Reason, exit: Label) {
    asm.store32(context(field::EIP), R8);
    asm.store_imm32(context(field::REASON), reason as u32);
    asm.jmp(exit);
}

/// Leaves with EIP's offset in the page in R9D.
fn leave_at(asm: &mut Asm, reason: Reason, exit: Label) {
    asm.lea32(R8, indexed(R13, R9, 0, -PAGE_BIAS));
    leave(asm, reason, exit);
}

/// R9D: offset in the page, for EIP if it has to leave.
fn load_fpu(asm: &mut Asm, exit: Label) {
    let refused = asm.label();
    asm.load64(RCX, context(field::FPU_LOADABLE));
    asm.jrcxz(refused);
    asm.digit(&[0x0F, 0xAE], 1, context(field::FPU)); // fxrstor
    asm.store64(context(field::FPU_LIVE), RCX);
    asm.ret();
    asm.bind(refused);
    asm.pop(RCX);
    asm.store64(context(field::RESUME), RCX);
    leave_at(asm, Reason::LoadFpu, exit);
}

/// R8D: selector, R9D: offset in the page. Emitted code knows what some selectors stand for, as long as their descriptors in
/// the GDT are the same; the others are the emulator's, and so are those for DS and ES that are not flat.
fn load_segment(asm: &mut Asm, register: SegReg, exit: Label) {
    let (known, refused, same) = (asm.label(), asm.label(), asm.label());
    let moved = asm.label();
    let number = 4 * register as i32;
    // Descriptors are 8 bytes: the index is in bits 7:3 of the selector.
    asm.mov_imm32(R10, (KNOWN_SEGMENTS as u32 - 1) << 3);
    asm.pext32(R10, R8, R10);
    let of_known = |field| indexed(R15, R10, 3, field);
    asm.load64(RCX, of_known(field::KNOWN_KEYS));
    asm.lea64(RCX, indexed(RCX, R8, 0, 1));
    asm.jrcxz(known);
    asm.jmp_short(refused);
    asm.bind(known);
    // A null selector has no descriptor.
    asm.mov32(RCX, R10);
    asm.jrcxz(same);
    asm.push(R9);
    asm.load32(R9, context(field::GDT_BASE));
    asm.lea32(R9, indexed(R9, R10, 3, 0));
    asm.shrx32(RCX, R9, R13);
    asm.load64(RCX, indexed(R14, RCX, 3, 0));
    asm.jrcxz(moved);
    asm.load64(RCX, indexed(R9, RCX, 0, -(SLOT_PRESENT as i32)));
    asm.load64(R9, of_known(field::KNOWN_DESCRIPTORS));
    asm.lea64(RCX, indexed(RCX, R9, 0, 0));
    asm.pop(R9);
    asm.jrcxz(same);
    asm.jmp_short(refused);
    asm.bind(moved);
    asm.pop(R9);
    asm.bind(refused);
    asm.pop(RCX);
    leave_at(asm, Reason::Emulate, exit);
    asm.bind(same);
    let base_and_use = match register {
        SegReg::Fs => Some((field::FS_BASE, field::FS_USABLE)),
        SegReg::Gs => Some((field::GS_BASE, field::GS_USABLE)),
        _ => None,
    };
    match base_and_use {
        Some((base, usable)) => {
            asm.load64(RCX, of_known(field::KNOWN_BASES));
            asm.store64(context(base), RCX);
            asm.load64(RCX, of_known(field::KNOWN_USABLE));
            asm.store64(context(usable), RCX);
        }
        None => {
            asm.load64(RCX, of_known(field::KNOWN_FLAT));
            asm.jrcxz(refused);
        }
    }
    asm.store32(context(field::SELECTORS + number), R8);
    asm.store_imm32(context(field::LOADED + number), 1);
    asm.ret();
}

/// Where SYSENTER and SYSEXIT lead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Kernel,
    User,
}

/// SYSENTER or SYSEXIT at offset R9D of the page. Each level has a stack for its calls.
fn change_level(asm: &mut Asm, to: Level, jump: Label, exit: Label) {
    let usable = asm.label();
    let (index, cpl, condition) = match to {
        Level::Kernel => (0, 0, field::SYSENTER_USABLE),
        Level::User => (1, 3, field::SYSEXIT_USABLE),
    };
    asm.load64(RCX, context(condition));
    asm.not64(RCX);
    asm.jrcxz(usable);
    leave_at(asm, Reason::Emulate, exit);
    asm.bind(usable);
    match to {
        Level::Kernel => {
            asm.store_imm32(context(field::INTERRUPT_FLAG), 0);
            asm.store64(context(field::USER_STACK), RSP);
            asm.load64(RSP, context(field::STACK_BOTTOM));
            asm.load32(R8, context(field::SYSENTER_EIP));
            asm.load32(R12, context(field::SYSENTER_ESP));
        }
        Level::User => {
            asm.load64(RSP, context(field::USER_STACK));
            asm.mov32(R8, RDX);
            asm.mov32(R12, R11);
        }
    }
    asm.load64(R14, context(field::TABLES + 8 * index));
    asm.store64(context(field::TABLE), R14);
    asm.store_imm32(context(field::CPL), cpl);
    asm.store_imm32(context(field::LEVEL_CHANGED), 1);
    for (register, half) in [(SegReg::Cs, 0), (SegReg::Ss, 4)] {
        asm.load32(RCX, context(field::FLAT_SELECTORS + 8 * index + half));
        asm.store32(context(field::SELECTORS + 4 * register as i32), RCX);
    }
    asm.jmp(jump);
}

/// R8D: address, R9D: offset in the page. A misaligned address may have a slot all the same, if it stays in one page.
fn miss(asm: &mut Asm, kind: AccessKind, exit: Label) {
    let size = kind.size() as i32;
    if size > 1 && kind.may_be_misaligned() {
        let (same, absent) = (asm.label(), asm.label());
        let table = if kind.writes() { WRITE_TABLE } else { 0 };
        asm.push(R9);
        asm.shrx32(RCX, R8, R13);
        asm.lea32(R9, at(R8, size - 1));
        asm.shrx32(R9, R9, R13);
        asm.not64(R9);
        asm.lea64(RCX, indexed(RCX, R9, 0, 1));
        asm.pop(R9);
        asm.jrcxz(same);
        asm.jmp_short(absent);
        asm.bind(same);
        asm.shrx32(RCX, R8, R13);
        asm.load64(RCX, indexed(R14, RCX, 3, table));
        asm.jrcxz(absent);
        asm.ret();
        asm.bind(absent);
    }
    asm.pop(RCX);
    asm.store64(context(field::RESUME), RCX);
    asm.store32(context(field::ADDRESS), R8);
    asm.store_imm32(context(field::ACCESS), kind.number());
    leave_at(asm, Reason::Miss, exit);
}
