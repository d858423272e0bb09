//! [`CpuState`]: the processor's architectural state as plain data, which is saved and restored.
//!
//! Derived values are not saved: the bounds of segments, and the reasons in [`Pending`] that the run loop works out whenever it
//! starts. The surroundings are not saved either: the INTR pin belongs to the bus, and translations are made anew. The four
//! PDPTE registers of PAE paging belong to the MMU.
//!
//! A saved state may come from anybody. [`Cpu::restore`] refuses values that no processor can hold, so that the guarantees of the
//! emulator and the translator hold for every state that it accepts. It accepts values that can harm the guest alone, such as
//! a segment limit that no descriptor gave.

mod error;
mod fpu;
mod segment;
#[cfg(test)]
mod tests;

pub use error::CpuStateError;
pub use fpu::FpuState;
pub use segment::SegmentState;

use super::canonical::is_canonical;
use super::control::{
    CR0_ET, CR0_PE, CR0_PG, CR0_WRITABLE, CR4_PAE, CR4_WRITABLE, CR8_WRITABLE, DR6_BS, DR6_BT,
    DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_WRITABLE, EFER_LMA, EFER_LME, is_valid_cr0,
};
use super::model::CpuModel;
use super::regs::{self, Registers};
use super::segment::{Attributes, SegReg};
use super::{Cpu, DescriptorTable, Pending, SyscallRegisters, eflags};
use serde::{Deserialize, Serialize};

/// Names of the segment registers, in encoding order.
const SEGMENT_NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/// DR6 bits that a debug trap can report: B0 to B3, BS and BT.
const DEBUG_HITS: u64 = 0xf | DR6_BS | DR6_BT;
/// The highest count that is accepted, so that no run can make it overflow.
const MAX_COUNT: u64 = 1 << 62;

/// The events that are inhibited until the next instruction has executed (SDM Vol. 3A, 6.8.3 "Masking Exceptions and Interrupts
/// When Switching Stacks").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptShadow {
    /// No event.
    #[default]
    None,
    /// Maskable interrupts: after STI.
    Sti,
    /// Maskable interrupts, NMIs and debug exceptions: after MOV SS and POP SS.
    MovSs,
}

/// The architectural state of one processor, saved between two instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// The version of this layout: [`Self::VERSION`].
    pub version: u32,
    /// The model that CPUID announces.
    pub model: CpuModel,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI and R8 to R15.
    pub general: [u64; regs::COUNT as usize],
    /// Instruction pointer: the next instruction's.
    pub eip: u64,
    /// RFLAGS, whose upper half is zero.
    pub eflags: u32,
    /// Segment registers in encoding order: ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentState; 6],
    /// Local descriptor table register.
    pub ldtr: SegmentState,
    /// Task register.
    pub tr: SegmentState,
    /// Global descriptor table register.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table register.
    pub idtr: DescriptorTable,
    /// Current privilege level: 3 in virtual-8086 mode, 0 in real-address mode.
    pub cpl: u8,
    /// CR0.
    pub cr0: u32,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u32,
    /// CR8.
    pub cr8: u8,
    /// DR0 to DR3.
    pub breakpoints: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_STAR, IA32_LSTAR, IA32_CSTAR and IA32_FMASK.
    pub syscall: SyscallRegisters,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_BIOS_SIGN_ID.
    pub bios_sign_id: u64,
    /// IA32_TIME_STAMP_COUNTER when the state was saved. It counts on from this value after the state is restored.
    pub time_stamp: u64,
    /// x87, MMX and SSE registers.
    pub fpu: FpuState,
    /// Whether the processor waits in HLT.
    pub halted: bool,
    /// Whether a non-maskable interrupt waits for its delivery.
    pub nmi_pending: bool,
    /// Whether NMIs are blocked until the next IRET.
    pub nmi_blocked: bool,
    /// The events that the instruction before EIP inhibits.
    pub shadow: InterruptShadow,
    /// DR6 bits that a debug trap will report before the next instruction; 0 for no trap.
    pub debug_hits: u64,
    /// [`Cpu::retired`].
    pub retired: u64,
    /// [`Cpu::delivered`].
    pub delivered: u64,
}

impl CpuState {
    /// The version that [`Cpu::save`] makes, and the only one that [`Cpu::restore`] takes.
    pub const VERSION: u32 = 2;

    /// Whether the processor is in 64-bit mode.
    fn is_code64(&self) -> bool {
        let code = &self.segments[SegReg::Cs as usize];
        self.efer & EFER_LMA != 0 && Attributes(code.attributes).is_long()
    }
}

impl Cpu {
    /// Saves the state between two instructions. `host_time_stamp` is the host's time-stamp counter at that moment.
    pub fn save(&self, host_time_stamp: u64) -> CpuState {
        let [dr0, dr1, dr2, dr3, _, _, dr6, dr7] = self.dr;
        CpuState {
            version: CpuState::VERSION,
            model: self.model,
            general: std::array::from_fn(|index| self.regs.get64(index as u8)),
            eip: self.eip,
            eflags: self.eflags,
            segments: self.segs.each_ref().map(SegmentState::save),
            ldtr: SegmentState::save(&self.ldtr),
            tr: SegmentState::save(&self.tr),
            gdtr: self.gdtr,
            idtr: self.idtr,
            cpl: self.cpl,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            cr8: self.cr8,
            breakpoints: [dr0, dr1, dr2, dr3],
            dr6,
            dr7,
            efer: self.efer,
            syscall: self.syscall,
            kernel_gs_base: self.kernel_gs_base,
            sysenter_cs: self.sysenter_cs,
            sysenter_esp: self.sysenter_esp,
            sysenter_eip: self.sysenter_eip,
            misc_enable: self.misc_enable,
            bios_sign_id: self.bios_sign_id,
            time_stamp: self.time_stamp(host_time_stamp),
            fpu: FpuState::save(&self.fpu),
            halted: self.pending.has(Pending::HALT),
            nmi_pending: self.pending.has(Pending::NMI),
            nmi_blocked: self.nmi_blocked,
            shadow: shadow(self.pending),
            debug_hits: self.debug_hits,
            retired: self.retired,
            delivered: self.delivered,
        }
    }

    /// Makes the processor of a saved state. `host_time_stamp` is the host's time-stamp counter at the moment from which the
    /// guest's counts on.
    ///
    /// # Errors
    /// Names a field whose value no processor can hold.
    pub fn restore(state: &CpuState, host_time_stamp: u64) -> Result<Self, CpuStateError> {
        check_registers(state)?;
        check_long_mode(state)?;
        let mut cpu = Self::new(state.model);
        cpu.regs = Registers::default();
        for (&value, register) in state.general.iter().zip(0..) {
            cpu.regs.set64(register, value);
        }
        cpu.eip = state.eip;
        cpu.eflags = state.eflags;
        for (segment, (saved, name)) in cpu
            .segs
            .iter_mut()
            .zip(state.segments.iter().zip(SEGMENT_NAMES))
        {
            *segment = saved.restore(name)?;
        }
        cpu.ldtr = state.ldtr.restore("LDTR")?;
        cpu.tr = state.tr.restore("TR")?;
        (cpu.gdtr, cpu.idtr) = (state.gdtr, state.idtr);
        cpu.cpl = state.cpl;
        (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) = (state.cr0, state.cr2, state.cr3, state.cr4);
        cpu.cr8 = state.cr8;
        let [dr0, dr1, dr2, dr3] = state.breakpoints;
        cpu.dr = [dr0, dr1, dr2, dr3, 0, 0, state.dr6, state.dr7];
        cpu.efer = state.efer;
        cpu.syscall = state.syscall;
        cpu.kernel_gs_base = state.kernel_gs_base;
        cpu.sysenter_cs = state.sysenter_cs;
        cpu.sysenter_esp = state.sysenter_esp;
        cpu.sysenter_eip = state.sysenter_eip;
        cpu.misc_enable = state.misc_enable;
        cpu.bios_sign_id = state.bios_sign_id;
        cpu.set_time_stamp(state.time_stamp, host_time_stamp);
        cpu.fpu = state.fpu.restore()?;
        cpu.pending = pending(state);
        cpu.nmi_blocked = state.nmi_blocked;
        cpu.debug_hits = state.debug_hits;
        (cpu.retired, cpu.delivered) = (state.retired, state.delivered);
        Ok(cpu)
    }
}

/// Checks the registers and counts that are kept as they are.
fn check_registers(state: &CpuState) -> Result<(), CpuStateError> {
    CpuStateError::unless(state.version == CpuState::VERSION, "version", state.version)?;
    let cr0 = state.cr0;
    let cr0_is_valid = cr0 & !CR0_WRITABLE == CR0_ET && is_valid_cr0(cr0);
    CpuStateError::unless(cr0_is_valid, "CR0", cr0)?;
    CpuStateError::unless(state.cr4 & !CR4_WRITABLE == 0, "CR4", state.cr4)?;
    CpuStateError::unless(u64::from(state.cr8) & !CR8_WRITABLE == 0, "CR8", state.cr8)?;
    let cr3_is_valid = state.cr3 >> state.model.physical_bits() == 0;
    CpuStateError::unless(cr3_is_valid, "CR3", state.cr3)?;
    let is_protected = cr0 & CR0_PE != 0;
    let is_v86 = state.eflags & eflags::VM != 0;
    let has_v86 = is_protected && state.efer & EFER_LMA == 0;
    let eflags_are_valid = state.eflags & !eflags::DEFINED == eflags::FIXED && (has_v86 || !is_v86);
    CpuStateError::unless(eflags_are_valid, "EFLAGS", state.eflags)?;
    let cpl_is_valid = match (is_protected, is_v86) {
        (false, _) => state.cpl == 0,
        (true, true) => state.cpl == 3,
        (true, false) => state.cpl <= 3,
    };
    CpuStateError::unless(cpl_is_valid, "CPL", state.cpl)?;
    CpuStateError::unless(state.dr6 & !DR6_WRITABLE == DR6_FIXED, "DR6", state.dr6)?;
    CpuStateError::unless(state.dr7 & !DR7_WRITABLE == DR7_FIXED, "DR7", state.dr7)?;
    let hits = state.debug_hits;
    CpuStateError::unless(hits & !DEBUG_HITS == 0, "debug hits", hits)?;
    CpuStateError::unless(
        state.retired <= MAX_COUNT,
        "retired instructions",
        state.retired,
    )?;
    CpuStateError::unless(
        state.delivered <= MAX_COUNT,
        "delivered events",
        state.delivered,
    )
}

/// Checks what is bound up with IA-32e mode.
fn check_long_mode(state: &CpuState) -> Result<(), CpuStateError> {
    let is_long = state.efer & EFER_LMA != 0;
    let is_paged_long = state.efer & EFER_LME != 0 && state.cr0 & CR0_PG != 0;
    let efer_is_valid = state.efer & !(state.model.writable_efer() | EFER_LMA) == 0;
    CpuStateError::unless(
        efer_is_valid && is_long == is_paged_long,
        "IA32_EFER",
        state.efer,
    )?;
    let cr4_is_valid = !is_long || state.cr4 & CR4_PAE != 0;
    CpuStateError::unless(cr4_is_valid, "CR4", state.cr4)?;
    let eip_is_valid = state.is_code64() || state.eip <= u32::MAX.into();
    CpuStateError::unless(eip_is_valid, "EIP", state.eip)?;
    for (address, field) in [
        (state.gdtr.base, "GDTR"),
        (state.idtr.base, "IDTR"),
        (state.syscall.lstar, "IA32_LSTAR"),
        (state.syscall.cstar, "IA32_CSTAR"),
        (state.kernel_gs_base, "IA32_KERNEL_GS_BASE"),
        (state.sysenter_esp, "IA32_SYSENTER_ESP"),
        (state.sysenter_eip, "IA32_SYSENTER_EIP"),
    ] {
        CpuStateError::unless(is_canonical(address), field, address)?;
    }
    Ok(())
}

/// The shadow that `pending` tells of.
fn shadow(pending: Pending) -> InterruptShadow {
    if pending.has(Pending::SHADOW_SS) {
        InterruptShadow::MovSs
    } else if pending.has(Pending::SHADOW) {
        InterruptShadow::Sti
    } else {
        InterruptShadow::None
    }
}

/// The reasons that a processor of this state has for looking up before its first instruction.
fn pending(state: &CpuState) -> Pending {
    let mut pending = Pending(Pending::REFETCH);
    pending.set(match state.shadow {
        InterruptShadow::None => 0,
        InterruptShadow::Sti => Pending::SHADOW,
        InterruptShadow::MovSs => Pending::SHADOW | Pending::SHADOW_SS,
    });
    for (wanted, bit) in [
        (state.halted, Pending::HALT),
        (state.nmi_pending, Pending::NMI),
        (state.debug_hits != 0, Pending::DEBUG_TRAP),
    ] {
        if wanted {
            pending.set(bit);
        }
    }
    pending
}
