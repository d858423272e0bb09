//! The exchange of the processor's state with emitted code, by way of the context.

use super::Translator;
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_TSD, EFER_SCE};
use crate::cpu::fpu::{FCW_INIT, MXCSR_INIT, Pointers};
use crate::cpu::segment::SegReg;
use crate::cpu::{Cpu, Pending, eflags};
use crate::emulate::Exec;
use crate::emulate::sysenter::selectors;
use crate::translate::asm::Mem;
use crate::translate::context::{Context, NO_SELECTOR, PAGE_BIAS};
use crate::translate::segments::segment_base;
use crate::translate::sequences::{FIXED_FLAGS, GUEST};
use crate::translate::x87_note::{DeferredNote, NotedOperand, X87Note};
use mmu::{Access, LinearWidth, PAGE_SHIFT, Privilege, Tlb, View};

/// The six exception masks of the x87 control word.
const EXCEPTION_MASKS: u16 = 0x3f;

/// The privileges, in the order of the context's tables.
const PRIVILEGES: [Privilege; 2] = [Privilege::Supervisor, Privilege::User];

impl Translator {
    /// Loads the processor's state into the context.
    pub(super) fn load(&mut self, cx: &mut Exec<'_>) {
        if self.width == LinearWidth::Bits32 {
            self.segments.learn(cx, &mut self.context);
        }
        let cpu = &*cx.cpu;
        let context = &mut *self.context;
        self.stack.change_level(context, cpu.cpl.into());
        for (number, value) in (0..).zip(&mut context.regs) {
            *value = cpu.regs.get64(number);
        }
        context.set_flags(cpu.eflags);
        context.interrupt_flag = cpu.eflags & eflags::IF;
        context.direction_flag = cpu.eflags & eflags::DF;
        let elsewhere = eflags::STATUS | eflags::IF | eflags::DF | eflags::FIXED;
        context.eflags_delta = cpu.eflags & !elsewhere;
        context.eflags_fixed = cpu.eflags & FIXED_FLAGS;
        context.no_interrupt = (!cpu.pending.has(Pending::INTR)).into();
        context.eip = cpu.eip;
        // Shifts count by R13 before a page is known.
        context.page = PAGE_SHIFT.into();
        load_tables(context, cx.mmu.tlb(), cpu.cpl);
        context.window = self.windows.window(cx.mmu);
        context.level_changed = 0;
        for (selector, segment) in context.selectors.iter_mut().zip(&cpu.segs) {
            *selector = segment.selector.0.into();
        }
        context.loaded = [0; 6];
        context.control = [cpu.cr0.into(), 0, cpu.cr2, cpu.cr3, cpu.cr4.into()];
        context.tsc_usable = (cpu.cr4 & CR4_TSD == 0).into();
        context.tsc_offset = cpu.tsc_offset;
        if self.is_64 {
            context.fs_base = cpu.seg(SegReg::Fs).base;
            context.gs_base = cpu.seg(SegReg::Gs).base;
            context.kernel_gs_base = cpu.kernel_gs_base;
            load_syscall_registers(context, cpu);
        } else {
            load_sysenter_registers(context, cpu, self.width);
            (context.fs_base, context.fs_usable) = segment_base(cpu.seg(SegReg::Fs));
            (context.gs_base, context.gs_usable) = segment_base(cpu.seg(SegReg::Gs));
        }
        context.fpu_live = 0;
        context.fpu_loadable = 0;
        context.x87_note = X87Note::NONE;
        context.x87_selector = NO_SELECTOR;
    }

    /// Stores the context's state into the processor's.
    pub(super) fn store(&mut self, cx: &mut Exec<'_>) {
        self.store_fpu(cx);
        self.segments.store(cx, &self.context);
        let context = &*self.context;
        if context.level_changed != 0 {
            // ESP and EIP are set below.
            match self.is_64 {
                true => cx.enter_by_syscall(context.cpl as u8),
                false => cx.enter_flat(context.cpl as u8, 0, 0),
            }
        }
        if self.is_64 {
            cx.cpu.segs[SegReg::Fs as usize].base = context.fs_base;
            cx.cpu.segs[SegReg::Gs as usize].base = context.gs_base;
            cx.cpu.kernel_gs_base = context.kernel_gs_base;
        }
        for (number, &value) in (0..).zip(&context.regs) {
            cx.cpu.regs.set64(number, value);
        }
        let kept = cx.cpu.eflags & !(eflags::IF | eflags::DF);
        let eflags = kept | context.interrupt_flag | context.direction_flag;
        cx.cpu.eflags = context.merge_flags(eflags);
        cx.cpu.eip = context.eip;
    }

    /// Stores the FPU state that emitted code left in the context, if it did, into the processor's.
    fn store_fpu(&mut self, cx: &mut Exec<'_>) {
        if self.context.fpu_saved != 0 {
            self.context.fpu_saved = 0;
            let pointers = x87_pointers(&self.context, cx.cpu.fpu.pointers());
            cx.cpu.fpu.take_registers(&self.context.fpu.0, pointers);
        }
    }

    /// Arranges for the guest's FPU state to be loaded on the way in, if its instructions can execute without an exception.
    /// Returns the host address at which emitted code continues; `None` when the emulator has to execute the instruction.
    pub(super) fn load_fpu(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        if !may_run_on_host(cx.cpu) {
            return None;
        }
        self.context.fpu.0.copy_from_slice(cx.cpu.fpu.as_bytes());
        self.context.fpu_loadable = 1;
        self.context.fpu_live = 1;
        Some(self.context.resume)
    }
}

/// Loads the addresses of the present address space's tables, for code of this privilege level.
fn load_tables(context: &mut Context, tlb: &Tlb, cpl: u8) {
    let address = |view| tlb.base(view).expose_provenance() as u64;
    let first = View::of(Access::Read, Privilege::Supervisor);
    // The others lie at fixed distances.
    if context.tables[0][0] != address(first) {
        context.tables = PRIVILEGES.map(|privilege| {
            let of = |access| View::of(access, privilege);
            let [read, write, fetch] = [Access::Read, Access::Write, Access::Fetch].map(of);
            [read, write, fetch, View::code(privilege)].map(address)
        });
    }
    [
        context.table,
        context.write_table,
        context.fetch_table,
        context.code_table,
    ] = context.tables[usize::from(cpl == 3)];
}

/// Whether x87, MMX and SSE instructions execute without any exception: available, all exceptions masked.
fn may_run_on_host(cpu: &Cpu) -> bool {
    cpu.cr0 & (CR0_EM | CR0_TS) == 0
        && cpu.cr4 & CR4_OSFXSR != 0
        && !cpu.fpu.has_pending_x87_error()
        && cpu.fpu.fcw() & FCW_INIT & EXCEPTION_MASKS == EXCEPTION_MASKS
        && cpu.fpu.mxcsr() & MXCSR_INIT == MXCSR_INIT
}

/// The last-instruction pointers after emitted code has run, `before` being those before it.
fn x87_pointers(context: &Context, before: Pointers) -> Pointers {
    let Some(note) = X87Note::from_bits(context.x87_note) else {
        return before;
    };
    let (fdp, fds) = match context.x87_selector {
        NO_SELECTOR => (before.fdp, before.fds),
        selector => (context.x87_operand, selector as u16),
    };
    let level = usize::from(note.privilege == Privilege::User);
    let is_present = level == usize::from(context.cpl == 3);
    let fcs = match is_present {
        true => context.selectors[SegReg::Cs as usize],
        // No change of level from another selector is allowed.
        false => context.flat_selectors[level][0],
    };
    Pointers {
        fop: note.fop,
        fip: context.x87_page - PAGE_BIAS as u64 + u64::from(note.offset),
        fcs: fcs as u16,
        fdp,
        fds,
    }
}

/// Stores a deferred note in the context, as emitted code would have done.
pub(super) fn store_note(context: &mut Context, deferred: DeferredNote) {
    if let Some(NotedOperand { address, segment }) = deferred.operand {
        context.x87_operand = effective_address(context, address).into();
        context.x87_selector = context.selectors[segment as usize];
    }
    context.x87_page = context.page;
    context.x87_note = deferred.note.to_bits();
}

/// The effective address `address`, with the guest's registers as they are in the context.
fn effective_address(context: &Context, address: Mem) -> u32 {
    let value = |register| {
        let number = GUEST.iter().position(|&held| held == register);
        number.map_or(0, |number| context.regs[number] as u32)
    };
    let base = address.base.map_or(0, value);
    let index = address
        .index
        .map_or(0, |(index, scale)| value(index) << scale);
    base.wrapping_add(index)
        .wrapping_add(address.disp.cast_unsigned())
}

/// All ones if a condition holds, else 0.
fn all_ones_if(condition: bool) -> u64 {
    u64::from(condition).wrapping_neg()
}

/// Loads what SYSCALL and SYSRET need. They are left to the emulator unless SYSCALL clears all flags that emitted code keeps, and
/// none of the others that are set.
fn load_syscall_registers(context: &mut Context, cpu: &Cpu) {
    context.flat_selectors = [0, 3].map(|level| {
        let (code, stack) = cpu.syscall.selectors(level);
        [code.0.into(), stack.0.into()]
    });
    let [code, _] = context.flat_selectors[usize::from(cpu.cpl == 3)];
    let is_usable = cpu.efer & EFER_SCE != 0 && u32::from(cpu.seg(SegReg::Cs).selector.0) == code;
    let emitted = eflags::STATUS | eflags::IF | eflags::DF;
    let fmask = cpu.syscall.fmask;
    let clears = fmask & emitted == emitted && cpu.eflags & fmask & !(emitted | eflags::FIXED) == 0;
    context.syscall_usable = all_ones_if(is_usable && clears);
    context.sysret_usable = all_ones_if(is_usable && clears && cpu.eflags & eflags::AC == 0);
    context.lstar = cpu.syscall.lstar;
}

/// Loads what SYSENTER and SYSEXIT need.
fn load_sysenter_registers(context: &mut Context, cpu: &Cpu, width: LinearWidth) {
    context.flat_selectors = [0, 3].map(|level| {
        let (code, stack) = selectors(cpu.sysenter_cs, level);
        [code.0.into(), stack.0.into()]
    });
    // Notes of x87 instructions say the level but not the selector of CS: there has to be one for each level.
    let [code, _] = context.flat_selectors[usize::from(cpu.cpl == 3)];
    // With 64-bit mode they may lead there.
    let is_usable = width == LinearWidth::Bits32
        && cpu.sysenter_cs & 0xfffc != 0
        && u32::from(cpu.seg(SegReg::Cs).selector.0) == code;
    context.sysenter_usable = all_ones_if(is_usable);
    // With AC set, accesses of CPL 3 may have to be checked for alignment.
    context.sysexit_usable = all_ones_if(is_usable && cpu.eflags & eflags::AC == 0);
    context.sysenter_esp = cpu.sysenter_esp as u32;
    context.sysenter_eip = cpu.sysenter_eip as u32;
}
