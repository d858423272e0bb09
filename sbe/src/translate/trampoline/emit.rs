//! The emitters of the trampolines, one for each [`Trampoline`].

use super::{COUNT, Trampoline};
use crate::cpu::control::{IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE};
use crate::cpu::eflags::{DF, IF};
use crate::cpu::segment::SegReg;
use crate::translate::asm::*;
use crate::translate::context::{
    AccessKind, CODE_TABLE, CONTEXT_BIAS, KNOWN_SEGMENTS, PAGE_BIAS, Reason, WRITE_TABLE, field,
};
use crate::translate::origin::Origin;
use crate::translate::sequences::{
    FIXED_FLAGS, GUEST, UPPER_GUEST, WORD_ROTATION, context, gather_flags, load_flags_from_ax,
    load_flags_from_r8, poll, save_flags_to_ax,
};
use mmu::{LinearWidth, PAGE_SHIFT, SLOT_PRESENT};

/// Bytes of the tables of one privilege level in the context.
const TABLES_BYTES: i32 = 4 * size_of::<u64>() as i32;
/// The number of guest register R11.
const GUEST_R11: i32 = 11;
/// The number of bits of each half of EDX:EAX.
const HALF: u32 = 32;
/// The bits of linear addresses in the lower half.
const LOW_BITS: u32 = 47;
/// The rotation to the right behind which the lower half of an offset is zero if it is a whole word's in the area of entry tables.
const AREA_ROTATION: u8 = 34;

/// Callee-saved registers of the C ABI that guest state overwrites.
const SAVED: [Reg; 6] = [RBX, RBP, R12, R13, R14, R15];

/// What the trampolines have in common.
pub(super) struct Setting {
    /// The labels of the trampolines, by number.
    pub(super) labels: [Label; COUNT],
    /// The width of linear addresses.
    pub(super) width: LinearWidth,
}

impl Setting {
    fn of(&self, trampoline: Trampoline) -> Label {
        self.labels[trampoline.number()]
    }

    fn is_wide(&self) -> bool {
        self.width == LinearWidth::Bits48
    }
}

/// Emits one trampoline.
pub(super) fn emit(asm: &mut Asm, trampoline: Trampoline, setting: &Setting) {
    let wide = setting.is_wide();
    let exit = Exit {
        label: setting.of(Trampoline::Exit),
        wide,
    };
    let dispatch_polled = setting.of(Trampoline::PolledDispatch);
    match trampoline {
        Trampoline::Lookup => exit_for(asm, Reason::Lookup, exit),
        Trampoline::Exit => self::exit(asm, wide),
        Trampoline::Enter => enter(asm, wide),
        Trampoline::ReturnUnderflow => {
            asm.lea64(RSP, at(RSP, -(size_of::<u64>() as i32)));
            asm.jmp_short(dispatch_polled);
        }
        // It falls through to `PolledDispatch`.
        Trampoline::ReturnMismatch => asm.not64(R8),
        Trampoline::PolledDispatch => polled_dispatch(asm, exit),
        // It falls through to `Dispatch`.
        Trampoline::DirectDispatch => asm.mov_imm32(R10, Origin::NONE),
        Trampoline::Dispatch => dispatch(asm, wide),
        Trampoline::Emulate => exit_for(asm, Reason::Emulate, exit),
        Trampoline::EmulateAt => exit_at(asm, Reason::Emulate, exit),
        Trampoline::BudgetAt => exit_at(asm, Reason::Budget, exit),
        Trampoline::Link => {
            asm.store32(context(field::SITE), R8);
            exit_at(asm, Reason::Link, exit);
        }
        Trampoline::LinkAcross => {
            asm.store32(context(field::SITE), R9);
            exit_for(asm, Reason::LinkAcross, exit);
        }
        Trampoline::WindowFault => {
            asm.store_imm32(context(field::REASON), Reason::WindowFault as u32);
            asm.jmp(exit.label);
        }
        Trampoline::LoadFpu => load_fpu(asm, exit),
        // Fragments with 48-bit linear addresses do not enter it.
        Trampoline::LoadSegment(_) if wide => {}
        Trampoline::LoadSegment(register) => load_segment(asm, register, exit),
        Trampoline::Sysenter => change_level(asm, Level::Kernel, dispatch_polled, exit),
        Trampoline::Sysexit => change_level(asm, Level::User, dispatch_polled, exit),
        Trampoline::Syscall => syscall(asm, dispatch_polled, exit),
        Trampoline::Sysret => sysret(asm, dispatch_polled, exit),
        Trampoline::WriteMsr => write_msr(asm, setting.of(Trampoline::DirectDispatch), exit),
        Trampoline::Miss(kind) => miss(asm, kind, exit),
    }
}

/// The way out.
#[derive(Clone, Copy)]
struct Exit {
    label: Label,
    /// Whether linear addresses have 48 bits.
    wide: bool,
}

/// The registers of the host that hold the guest's, with the guest's numbers; `wide` if linear addresses have 48 bits.
fn guest_registers(wide: bool) -> impl Iterator<Item = (usize, Reg)> {
    let upper = UPPER_GUEST.into_iter().filter(move |_| wide);
    GUEST.into_iter().enumerate().chain(upper)
}

/// Emits the way in; in: RDI context, RSI target.
fn enter(asm: &mut Asm, wide: bool) {
    for register in SAVED {
        asm.push(register);
    }
    asm.lea64(R15, at(RDI, CONTEXT_BIAS));
    asm.mov64(R9, RSI);
    asm.store64(context(field::HOST_STACK), RSP);
    let no_window = asm.label();
    asm.load64(RCX, context(field::WINDOW));
    asm.jrcxz(no_window);
    asm.raw(&[0xf3, 0x48, 0x0f, 0xae, 0xd9]); // wrgsbase rcx
    asm.bind(no_window);
    asm.load64(RSP, context(field::STACK));
    if !wide {
        asm.load64(R14, context(field::TABLE));
        asm.load64(R13, context(field::PAGE));
    }
    asm.load64(R10, context(field::POINTER));
    match wide {
        true => asm.load64(R8, context(field::EIP)),
        false => asm.load32(R8, context(field::EIP)),
    }
    asm.load32(RAX, context(field::FLAGS));
    load_flags_from_ax(asm);
    let slot = asm.label();
    asm.load64(RCX, context(field::FPU_LIVE));
    asm.jrcxz(slot);
    asm.digit(&[0x0f, 0xae], 1, context(field::FPU)); // fxrstor
    asm.bind(slot);
    asm.load64(RCX, context(field::SLOT));
    for (number, register) in guest_registers(wide) {
        asm.load64(register, context(field::REGS + 8 * number as i32));
    }
    asm.jmp_register(R9);
}

/// Emits the way out: saves the guest's state and returns to the engine.
fn exit(asm: &mut Asm, wide: bool) {
    for (number, register) in guest_registers(wide) {
        asm.store64(context(field::REGS + 8 * number as i32), register);
    }
    if !wide {
        asm.store64(context(field::PAGE), R13);
    }
    asm.store64(context(field::POINTER), R10);
    save_flags_to_ax(asm);
    asm.store32(context(field::FLAGS), RAX);
    asm.store64(context(field::STACK), RSP);
    asm.load64(RSP, context(field::HOST_STACK));
    let no_fpu = asm.label();
    asm.load64(RCX, context(field::FPU_LIVE));
    asm.jrcxz(no_fpu);
    asm.digit(&[0x0f, 0xae], 0, context(field::FPU)); // fxsave
    asm.store64(context(field::FPU_SAVED), RCX);
    asm.raw(&[0xdb, 0xe3]); // fninit
    asm.digit(&[0x0f, 0xae], 2, context(field::HOST_MXCSR)); // ldmxcsr
    asm.bind(no_fpu);
    for register in SAVED.into_iter().rev() {
        asm.pop(register);
    }
    asm.ret();
}

/// Emits a poll and the dispatcher; in: R8D EIP.
fn polled_dispatch(asm: &mut Asm, exit: Exit) {
    let (expired, go) = (asm.label(), asm.label());
    poll(asm, expired);
    asm.jmp_short(go);
    asm.bind(expired);
    exit_for(asm, Reason::Budget, exit);
    asm.bind(go);
    dispatch(asm, exit.wide);
}

/// Emits the dispatcher; in: R8D EIP. The code table holds the address of the page's entry table, less four times the page's
/// address.
fn dispatch(asm: &mut Asm, wide: bool) {
    let unknown = asm.label();
    if wide {
        find_entry(asm, unknown);
    } else {
        asm.shrx32(RCX, R8, R13);
        asm.load64(RCX, indexed(R14, RCX, 3, CODE_TABLE));
        asm.jrcxz(unknown);
        asm.load32(RCX, indexed(RCX, R8, 2, 0));
    }
    asm.bind(unknown);
    asm.lea_arena(R9);
    asm.lea64(RCX, indexed(RCX, R9, 0, 0));
    asm.jmp_register(RCX);
}

/// Emits RCX = the word of the entry table for the RIP in R8, or 0 and a jump to `unknown`. The slot may be that of another page,
/// whose address differs in the upper bits. The rotation keeps them all: so the sum lies in the area of entry tables, at a whole
/// word, for the slot's own page only.
fn find_entry(asm: &mut Asm, unknown: Label) {
    let known = asm.label();
    let over = asm.label();
    asm.pext64(RCX, R8, context(field::MASKS));
    asm.load64(R9, context(field::CODE_TABLE));
    asm.load64(RCX, indexed(R9, RCX, 3, 0));
    asm.jrcxz(unknown);
    asm.rorx64(R9, R8, WORD_ROTATION);
    asm.lea64(R9, indexed(R9, RCX, 0, 0));
    asm.load64(RCX, context(field::ENTRIES));
    asm.lea64(RCX, indexed(RCX, R9, 0, 0));
    asm.rorx64(RCX, RCX, AREA_ROTATION);
    asm.mov32(RCX, RCX);
    asm.jrcxz(known);
    asm.mov_imm32(RCX, 0);
    asm.jmp_short(over);
    asm.bind(known);
    asm.load32(RCX, at(R9, 0));
    asm.bind(over);
}

/// Emits an exit; in: R8 RIP.
fn exit_for(asm: &mut Asm, reason: Reason, exit: Exit) {
    match exit.wide {
        true => asm.store64(context(field::EIP), R8),
        false => asm.store32(context(field::EIP), R8),
    }
    asm.store_imm32(context(field::REASON), reason as u32);
    asm.jmp(exit.label);
}

/// Emits an exit; in: R9D offset of RIP in the page.
fn exit_at(asm: &mut Asm, reason: Reason, exit: Exit) {
    match exit.wide {
        true => {
            asm.load64(R8, context(field::PAGE));
            asm.lea64(R8, indexed(R8, R9, 0, -PAGE_BIAS));
        }
        false => asm.lea32(R8, indexed(R13, R9, 0, -PAGE_BIAS)),
    }
    exit_for(asm, reason, exit);
}

/// Emits the loading of the guest's FPU state; in: R9D offset in the page, for EIP if it has to exit.
fn load_fpu(asm: &mut Asm, exit: Exit) {
    let refused = asm.label();
    asm.load64(RCX, context(field::FPU_LOADABLE));
    asm.jrcxz(refused);
    asm.digit(&[0x0f, 0xae], 1, context(field::FPU)); // fxrstor
    asm.store64(context(field::FPU_LIVE), RCX);
    asm.ret();
    asm.bind(refused);
    asm.pop(RCX);
    asm.store64(context(field::RESUME), RCX);
    exit_at(asm, Reason::LoadFpu, exit);
}

/// Emits the loading of a segment register; in: R8D selector, R9D offset in the page. Emitted code knows the segments of some
/// selectors, as long as their descriptors in the GDT are the same (`segments`); the others are left to the emulator, and so are
/// segments for DS and ES that are not flat.
fn load_segment(asm: &mut Asm, register: SegReg, exit: Exit) {
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
    exit_at(asm, Reason::Emulate, exit);
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

/// The privilege level to which SYSENTER or SYSEXIT leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Kernel,
    User,
}

/// Emits SYSENTER or SYSEXIT; in: R9D offset in the page. Each level has a stack of its own for its calls.
fn change_level(asm: &mut Asm, to: Level, jump: Label, exit: Exit) {
    let usable = asm.label();
    let (index, cpl, condition) = match to {
        Level::Kernel => (0, 0, field::SYSENTER_USABLE),
        Level::User => (1, 3, field::SYSEXIT_USABLE),
    };
    asm.load64(RCX, context(condition));
    asm.not64(RCX);
    asm.jrcxz(usable);
    exit_at(asm, Reason::Emulate, exit);
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
    match exit.wide {
        true => set_level_wide(asm, index, cpl),
        false => set_level(asm, index, cpl),
    }
    asm.jmp(jump);
}

/// Emits the change to the tables and selectors of a privilege level.
fn set_level(asm: &mut Asm, index: i32, cpl: u32) {
    asm.load64(R14, context(field::TABLES + TABLES_BYTES * index));
    asm.store64(context(field::TABLE), R14);
    set_selectors(asm, index, cpl);
}

/// Emits the change to the level itself and its selectors.
fn set_selectors(asm: &mut Asm, index: i32, cpl: u32) {
    asm.store_imm32(context(field::CPL), cpl);
    asm.store_imm32(context(field::LEVEL_CHANGED), 1);
    for (register, half) in [(SegReg::Cs, 0), (SegReg::Ss, 4)] {
        asm.load32(RCX, context(field::FLAT_SELECTORS + 8 * index + half));
        asm.store32(context(field::SELECTORS + 4 * register as i32), RCX);
    }
}

/// Emits the change to the tables and selectors of a privilege level, on a processor with 48-bit linear addresses.
fn set_level_wide(asm: &mut Asm, index: i32, cpl: u32) {
    for (at, table) in [
        (0, field::TABLE),
        (1, field::WRITE_TABLE),
        (2, field::FETCH_TABLE),
        (3, field::CODE_TABLE),
    ] {
        asm.load64(RCX, context(field::TABLES + TABLES_BYTES * index + 8 * at));
        asm.store64(context(table), RCX);
    }
    set_selectors(asm, index, cpl);
}

/// Emits SYSCALL; in: R8 the return address, R9D offset in the page. It clears all status flags, IF and DF, and changes no others
/// that are set: `syscall_usable`.
fn syscall(asm: &mut Asm, jump: Label, exit: Exit) {
    let usable = asm.label();
    asm.load64(RCX, context(field::SYSCALL_USABLE));
    asm.not64(RCX);
    asm.jrcxz(usable);
    exit_at(asm, Reason::Emulate, exit);
    asm.bind(usable);
    asm.mov64(R11, R8);
    asm.mov64(R9, RAX);
    gather_flags(asm);
    asm.store64(context(field::REGS + 8 * GUEST_R11), RCX);
    asm.mov_imm32(RAX, 0);
    load_flags_from_ax(asm);
    asm.mov64(RAX, R9);
    asm.store_imm32(context(field::INTERRUPT_FLAG), 0);
    asm.store_imm32(context(field::DIRECTION_FLAG), 0);
    asm.store64(context(field::USER_STACK), RSP);
    asm.load64(RSP, context(field::STACK_BOTTOM));
    set_level_wide(asm, 0, 0);
    asm.load64(R8, context(field::LSTAR));
    asm.jmp(jump);
}

/// Emits SYSRET to 64-bit code; in: R9D offset in the page. The flags that it loads differ from the present ones in status flags, IF
/// and DF only, it goes to the lower half of addresses, and no interrupt waits for IF; else the emulator executes it.
fn sysret(asm: &mut Asm, jump: Label, exit: Exit) {
    let (usable, refused, low, same) = (asm.label(), asm.label(), asm.label(), asm.label());
    let masked = asm.label();
    asm.load64(RCX, context(field::SYSRET_USABLE));
    asm.not64(RCX);
    asm.jrcxz(usable);
    asm.bind(refused);
    exit_at(asm, Reason::Emulate, exit);
    asm.bind(usable);
    asm.mov_imm32(RCX, LOW_BITS);
    asm.shrx64(RCX, R11, RCX);
    asm.jrcxz(low);
    asm.jmp_short(refused);
    asm.bind(low);
    asm.load32(R8, context(field::REGS + 8 * GUEST_R11));
    asm.mov_imm32(R10, FIXED_FLAGS);
    asm.pext32(RCX, R8, R10);
    asm.not64(RCX);
    asm.push(R9);
    asm.load32(R9, context(field::EFLAGS_FIXED));
    asm.pext32(R9, R9, R10);
    asm.lea64(RCX, indexed(RCX, R9, 0, 1));
    asm.pop(R9);
    asm.jrcxz(same);
    asm.jmp_short(refused);
    asm.bind(same);
    asm.mov_imm32(R10, IF);
    asm.pext32(RCX, R8, R10);
    asm.jrcxz(masked);
    asm.load64(RCX, context(field::NO_INTERRUPT));
    asm.jrcxz(refused);
    asm.bind(masked);
    for (flag, place) in [(IF, field::INTERRUPT_FLAG), (DF, field::DIRECTION_FLAG)] {
        asm.mov_imm32(R10, flag);
        asm.pext32(RCX, R8, R10);
        asm.mov_imm32(R10, flag.trailing_zeros());
        asm.shlx32(RCX, RCX, R10);
        asm.store32(context(place), RCX);
    }
    asm.mov64(R9, RAX);
    load_flags_from_r8(asm);
    asm.mov64(RAX, R9);
    asm.load64(RSP, context(field::USER_STACK));
    set_level_wide(asm, 1, 3);
    asm.mov64(R8, R11);
    asm.jmp(jump);
}

/// Emits WRMSR; in: R8 the address of the next instruction, R9D offset in the page. Of MSRs other than the bases of FS and GS, and
/// of addresses that are not canonical, the emulator knows.
fn write_msr(asm: &mut Asm, jump: Label, exit: Exit) {
    let (canonical, refused, done) = (asm.label(), asm.label(), asm.label());
    asm.push(R8);
    asm.push(R9);
    asm.mov_imm32(R9, HALF);
    asm.shlx64(R8, RDX, R9);
    asm.mov32(R9, RAX);
    asm.lea64(R8, indexed(R8, R9, 0, 0));
    asm.mov_imm32(R9, LOW_BITS);
    asm.sarx64(RCX, R8, R9);
    asm.jrcxz(canonical);
    asm.not64(RCX);
    asm.jrcxz(canonical);
    asm.bind(refused);
    asm.pop(R9);
    asm.pop(R8);
    exit_at(asm, Reason::Emulate, exit);
    asm.bind(canonical);
    for (msr, place) in [
        (IA32_FS_BASE, field::FS_BASE),
        (IA32_GS_BASE, field::GS_BASE),
        (IA32_KERNEL_GS_BASE, field::KERNEL_GS_BASE),
    ] {
        let (named, other) = (asm.label(), asm.label());
        asm.lea32(RCX, at(R11, msr.wrapping_neg().cast_signed()));
        asm.jrcxz(named);
        asm.jmp_short(other);
        asm.bind(named);
        asm.store64(context(place), R8);
        asm.jmp_short(done);
        asm.bind(other);
    }
    asm.jmp_short(refused);
    asm.bind(done);
    asm.pop(R9);
    asm.pop(R8);
    asm.jmp(jump);
}

/// Emits what an access does whose probe has missed; in: R8 address, R9D offset in the page. A misaligned address may have a slot
/// all the same, if the access stays in one page.
fn miss(asm: &mut Asm, kind: AccessKind, exit: Exit) {
    if kind.size() > 1 && kind.may_be_misaligned() {
        match exit.wide {
            true => second_chance_wide(asm, kind),
            false => second_chance(asm, kind),
        }
    }
    asm.pop(RCX);
    asm.store64(context(field::RESUME), RCX);
    match exit.wide {
        true => asm.store64(context(field::ADDRESS), R8),
        false => asm.store32(context(field::ADDRESS), R8),
    }
    asm.store_imm32(context(field::ACCESS), kind.number());
    exit_at(asm, Reason::Miss, exit);
}

/// Emits a return with the slot in RCX, if the access lies in one page that has one.
fn second_chance(asm: &mut Asm, kind: AccessKind) {
    let (same, absent) = (asm.label(), asm.label());
    let table = if kind.writes() { WRITE_TABLE } else { 0 };
    asm.push(R9);
    asm.shrx32(RCX, R8, R13);
    asm.lea32(R9, at(R8, kind.size() as i32 - 1));
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

/// Emits the same for 48-bit linear addresses.
fn second_chance_wide(asm: &mut Asm, kind: AccessKind) {
    let (same, absent) = (asm.label(), asm.label());
    asm.push(R9);
    asm.mov_imm32(RCX, PAGE_SHIFT);
    asm.lea64(R9, at(R8, kind.size() as i32 - 1));
    asm.shrx64(R9, R9, RCX);
    asm.shrx64(RCX, R8, RCX);
    asm.not64(R9);
    asm.lea64(RCX, indexed(RCX, R9, 0, 1));
    asm.jrcxz(same);
    asm.pop(R9);
    asm.jmp_short(absent);
    asm.bind(same);
    asm.pext64(RCX, R8, context(field::MASKS));
    let table = match kind.writes() {
        true => field::WRITE_TABLE,
        false => field::TABLE,
    };
    asm.load64(R9, context(table));
    asm.load64(RCX, indexed(R9, RCX, 3, 0));
    asm.pop(R9);
    asm.jrcxz(absent);
    asm.ret();
    asm.bind(absent);
}
