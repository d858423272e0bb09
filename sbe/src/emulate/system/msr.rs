//! Model-specific registers and counters (SDM Vol. 4, 2.1 "Architectural MSRs").

use crate::cpu::control::{CR4_PCE, CR4_TSD, EFER_WRITABLE};
use crate::cpu::host_time_stamp;
use crate::cpu::regs::{EAX, ECX, EDX};
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
            IA32_SYSENTER_ESP => self.cpu.sysenter_esp.into(),
            IA32_SYSENTER_EIP => self.cpu.sysenter_eip.into(),
            IA32_MISC_ENABLE => self.cpu.misc_enable,
            IA32_EFER => self.cpu.efer,
            _ => return Err(unknown(msr)),
        })
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let cpu = &mut *self.cpu;
        match msr {
            IA32_TIME_STAMP_COUNTER => cpu.set_time_stamp(value, host_time_stamp()),
            IA32_BIOS_SIGN_ID => cpu.bios_sign_id = value,
            IA32_SYSENTER_CS => cpu.sysenter_cs = value as u32,
            IA32_SYSENTER_ESP => cpu.sysenter_esp = value as u32,
            IA32_SYSENTER_EIP => cpu.sysenter_eip = value as u32,
            IA32_MISC_ENABLE => cpu.misc_enable = value,
            IA32_DEBUGCTL | IA32_MCG_STATUS if value == 0 => {}
            IA32_EFER if value & !EFER_WRITABLE == 0 => {
                cpu.efer = value;
                self.update_paging();
                self.mmu.flush_all();
            }
            _ => return Err(unknown(msr)),
        }
        Ok(())
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
