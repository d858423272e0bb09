//! Model-specific registers and counters (SDM Vol. 4, 2.1 "Architectural MSRs").

use crate::cpu::canonical::is_canonical;
use crate::cpu::control::{
    CR0_PG, CR4_PCE, CR4_TSD, EFER_LMA, EFER_LME, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE,
};
use crate::cpu::host_time_stamp;
use crate::cpu::model::CpuModel;
use crate::cpu::regs::{EAX, ECX, EDX};
use crate::cpu::segment::SegReg;
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::fault::Fault;

const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
const IA32_PLATFORM_ID: u32 = 0x17;
const IA32_BIOS_SIGN_ID: u32 = 0x8b;
const IA32_MCG_CAP: u32 = 0x179;
const IA32_MCG_STATUS: u32 = 0x17a;
const IA32_SYSENTER_CS: u32 = 0x174;
const IA32_SYSENTER_ESP: u32 = 0x175;
const IA32_SYSENTER_EIP: u32 = 0x176;
const IA32_MISC_ENABLE: u32 = 0x1a0;
const IA32_DEBUGCTL: u32 = 0x1d9;
const IA32_EFER: u32 = 0xc000_0080;
const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_CSTAR: u32 = 0xc000_0083;
const IA32_FMASK: u32 = 0xc000_0084;

impl Exec<'_> {
    fn set_edx_eax(&mut self, value: u64) {
        self.cpu.regs.set(EAX, value as u32);
        self.cpu.regs.set(EDX, (value >> 32) as u32);
    }

    fn read_msr(&self, msr: u32) -> Result<u64, Fault> {
        Ok(match msr {
            IA32_TIME_STAMP_COUNTER => self.cpu.time_stamp(host_time_stamp()),
            // MCG_CAP: no bank of machine-check errors.
            IA32_PLATFORM_ID | IA32_DEBUGCTL | IA32_MCG_CAP | IA32_MCG_STATUS => 0,
            IA32_BIOS_SIGN_ID => self.cpu.bios_sign_id,
            IA32_SYSENTER_CS => self.cpu.sysenter_cs.into(),
            IA32_SYSENTER_ESP => self.cpu.sysenter_esp,
            IA32_SYSENTER_EIP => self.cpu.sysenter_eip,
            IA32_MISC_ENABLE => self.cpu.misc_enable,
            IA32_EFER => self.cpu.efer,
            _ => return self.read_long_msr(msr),
        })
    }

    /// Reads an MSR that only models with IA-32e mode have.
    fn read_long_msr(&self, msr: u32) -> Result<u64, Fault> {
        let cpu = &*self.cpu;
        Ok(match msr {
            _ if !cpu.model.has_long_mode() => return Err(unknown(msr)),
            IA32_STAR => cpu.syscall.star,
            IA32_LSTAR => cpu.syscall.lstar,
            IA32_CSTAR => cpu.syscall.cstar,
            IA32_FMASK => cpu.syscall.fmask.into(),
            IA32_FS_BASE => cpu.seg(SegReg::Fs).base,
            IA32_GS_BASE => cpu.seg(SegReg::Gs).base,
            IA32_KERNEL_GS_BASE => cpu.kernel_gs_base,
            _ => return Err(unknown(msr)),
        })
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let cpu = &mut *self.cpu;
        match msr {
            IA32_TIME_STAMP_COUNTER => cpu.set_time_stamp(value, host_time_stamp()),
            IA32_BIOS_SIGN_ID => cpu.bios_sign_id = value,
            IA32_SYSENTER_CS => cpu.sysenter_cs = value as u32,
            IA32_SYSENTER_ESP => cpu.sysenter_esp = sysenter_address(cpu.model, value)?,
            IA32_SYSENTER_EIP => cpu.sysenter_eip = sysenter_address(cpu.model, value)?,
            IA32_MISC_ENABLE => cpu.misc_enable = value,
            IA32_DEBUGCTL | IA32_MCG_STATUS if value == 0 => {}
            IA32_EFER => self.write_efer(value)?,
            _ => self.write_long_msr(msr, value)?,
        }
        Ok(())
    }

    /// Writes an MSR that only models with IA-32e mode have.
    fn write_long_msr(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let cpu = &mut *self.cpu;
        match msr {
            _ if !cpu.model.has_long_mode() => return Err(unknown(msr)),
            IA32_STAR => cpu.syscall.star = value,
            IA32_LSTAR => cpu.syscall.lstar = canonical(value)?,
            IA32_CSTAR => cpu.syscall.cstar = canonical(value)?,
            // The upper half is reserved.
            IA32_FMASK => cpu.syscall.fmask = u32::try_from(value).map_err(|_| Fault::gp(0))?,
            IA32_FS_BASE => cpu.segs[SegReg::Fs as usize].base = canonical(value)?,
            IA32_GS_BASE => cpu.segs[SegReg::Gs as usize].base = canonical(value)?,
            IA32_KERNEL_GS_BASE => cpu.kernel_gs_base = canonical(value)?,
            _ => return Err(unknown(msr)),
        }
        Ok(())
    }

    /// Writes IA32_EFER: LMA cannot be written, LME not while paging is on.
    fn write_efer(&mut self, value: u64) -> Result<(), Fault> {
        let writable = self.cpu.model.writable_efer();
        let reserved = match self.cpu.model.has_long_mode() {
            true => !(writable | EFER_LMA),
            false => !writable,
        };
        let changed = self.cpu.efer ^ value;
        if value & reserved != 0 || self.cpu.cr0 & CR0_PG != 0 && changed & EFER_LME != 0 {
            return Err(Fault::gp(0));
        }
        self.cpu.efer = value & writable | self.cpu.efer & EFER_LMA;
        self.update_paging();
        self.mmu.flush_all();
        Ok(())
    }
}

/// Raises #GP(0) unless `address` is canonical.
fn canonical(address: u64) -> Result<u64, Fault> {
    match is_canonical(address) {
        true => Ok(address),
        false => Err(Fault::gp(0)),
    }
}

/// The contents of IA32_SYSENTER_ESP or IA32_SYSENTER_EIP after a write of `value`: 32 bits without IA-32e mode.
fn sysenter_address(model: CpuModel, value: u64) -> Result<u64, Fault> {
    match model.has_long_mode() {
        true => canonical(value),
        false => Ok(u64::from(value as u32)),
    }
}

fn unknown(msr: u32) -> Fault {
    log::debug!("access to MSR {msr:#x}, which this model does not have");
    Fault::gp(0)
}

/// RDTSC: #GP(0) in user mode when CR4.TSD is set.
pub fn rdtsc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    if cx.cpu.cr4 & CR4_TSD != 0 && cx.cpu.cpl != 0 {
        return Err(Fault::gp(0));
    }
    cx.set_edx_eax(cx.cpu.time_stamp(host_time_stamp()));
    Ok(())
}

/// RDMSR.
pub fn rdmsr(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    let value = cx.read_msr(cx.cpu.regs.get(ECX))?;
    cx.set_edx_eax(value);
    Ok(())
}

/// WRMSR.
pub fn wrmsr(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    let regs = &cx.cpu.regs;
    let value = u64::from(regs.get(EDX)) << 32 | u64::from(regs.get(EAX));
    cx.write_msr(regs.get(ECX), value)
}

/// RDPMC: there is no performance counter, so every number is #GP(0).
pub fn rdpmc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    if cx.cpu.cr4 & CR4_PCE == 0 {
        cx.require_cpl0()?;
    }
    Err(Fault::gp(0))
}
