//! The checks whether an instruction of the x87, MMX or SSE sets may execute now
//! (SDM Vol. 3A, 2.5 "Control Registers"; 13.1 "Providing Operating System Support for SSE Extensions").
//!
//! With CR0.NE clear a PC reports x87 errors through the FERR# pin, IRQ 13 and port 0xf0. replex has no such wiring: a
//! waiting instruction that meets a pending error then stops the machine with a message.

use crate::cpu::Cpu;
use crate::cpu::control::{CR0_EM, CR0_MP, CR0_NE, CR0_TS, CR4_OSFXSR};
use crate::fault::{Fault, Unsupported, Vector};
use crate::host_fpu::Class;

const NOT_AVAILABLE: Fault = Fault::plain(Vector::DeviceNotAvailable);

/// Checks for an x87 instruction that does not wait for pending errors, and for FXSAVE and FXRSTOR.
pub fn x87_no_wait(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr0 & (CR0_EM | CR0_TS) != 0 {
        Err(NOT_AVAILABLE)
    } else {
        Ok(())
    }
}

/// Checks for a waiting x87 instruction.
pub fn x87(cpu: &Cpu) -> Result<(), Fault> {
    x87_no_wait(cpu)?;
    no_pending_error(cpu)
}

/// Checks for WAIT.
pub fn wait(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(NOT_AVAILABLE);
    }
    no_pending_error(cpu)
}

/// Checks for an instruction of `class`.
pub fn class(cpu: &Cpu, class: Class) -> Result<(), Fault> {
    match class {
        Class::X87 => x87(cpu),
        Class::Mmx => mmx(cpu),
        Class::Sse => sse(cpu),
        Class::SseMmx => {
            sse(cpu)?;
            no_pending_error(cpu)
        }
    }
}

/// Checks for an instruction on MMX registers.
pub fn mmx(cpu: &Cpu) -> Result<(), Fault> {
    simd(cpu)?;
    no_pending_error(cpu)
}

/// Checks for an instruction on XMM registers or MXCSR.
pub fn sse(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr4 & CR4_OSFXSR == 0 {
        return Err(Fault::ud());
    }
    simd(cpu)
}

fn simd(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr0 & CR0_EM != 0 {
        return Err(Fault::ud());
    }
    if cpu.cr0 & CR0_TS != 0 {
        Err(NOT_AVAILABLE)
    } else {
        Ok(())
    }
}

fn no_pending_error(cpu: &Cpu) -> Result<(), Fault> {
    match (cpu.fpu.has_pending_x87_error(), cpu.cr0 & CR0_NE != 0) {
        (false, _) => Ok(()),
        (true, true) => Err(Fault::plain(Vector::X87Error)),
        (true, false) => Err(Fault::Unsupported(Unsupported::ExternalX87Error)),
    }
}
