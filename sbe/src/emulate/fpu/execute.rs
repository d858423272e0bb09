//! The handlers of instructions that execute on the host: they load the operands, run the template and store the results.

use super::{available, extent};
use crate::cpu::control::CR4_OSXMMEXCPT;
use crate::cpu::fpu::{MXCSR_INIT, Pointers, X87_IE, X87_OE, X87_UE};
use crate::cpu::regs::{EAX, ECX, EDX};
use crate::cpu::segment::SegReg;
use crate::cpu::{Cpu, eflags};
use crate::decode::decoder::CodeSize;
use crate::decode::{Insn, Operand};
use crate::emulate::exec::Exec;
use crate::fault::{Fault, Unsupported, Vector};
use crate::host_fpu::simd_errors::{self, Outcome};
use crate::host_fpu::{
    Alignment, Class, FlagsUse, GeneralUse, MemoryUse, OPERAND_BYTES, StubFrame, Template,
    TemplateRef,
};

/// Bytes of an 80-bit real or packed BCD integer.
const TBYTE: u8 = 10;
/// The parts in which it is accessed.
const TBYTE_PARTS: [usize; 2] = [8, 2];

const REFUSED: Fault = Fault::Unsupported(Unsupported::HostRefuses);

/// Unmasked exceptions after which an x87 instruction writes no memory (SDM Vol. 1, 8.5 "x87 FPU Floating-Point
/// Exception Conditions"): all that a store can raise but the inexact result.
const STORE_INHIBITING: u16 = X87_IE | X87_OE | X87_UE;

/// Executes an x87 instruction that is not a control instruction.
///
/// As on all Intel processors, it sets the last-instruction pointers whether or not it raises an exception; the operand
/// pointer only if it has a memory operand. FOP is set with them, as by AMD processors and by Intel's in fopcode compatibility
/// mode (SDM Vol. 1, 8.1.9.1 "Fopcode Compatibility Sub-mode").
pub fn x87(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let reference = TemplateRef::from_bits(insn.aux);
    let template = exec.host.get(reference).ok_or(REFUSED)?;
    available::x87(exec.cpu)?;
    let mut frame = prepare(exec, insn, &template)?;
    frame.image.set_mxcsr(MXCSR_INIT);
    if !exec.host.run(&template, &mut frame) {
        return Err(REFUSED);
    }
    if frame.image.unmasked_x87() & STORE_INHIBITING == 0 {
        store_operand(exec, insn, &template, &frame)?;
    }
    set_flags(exec.cpu, &template, &frame);
    frame.image.set_mxcsr(exec.cpu.fpu.mxcsr());
    frame
        .image
        .set_pointers(pointers(exec.cpu, insn, &template, reference.fop));
    exec.cpu.fpu = frame.image;
    Ok(())
}

/// Executes an MMX or SSE instruction.
pub fn simd(exec: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let template = exec
        .host
        .get(TemplateRef::from_bits(insn.aux))
        .ok_or(REFUSED)?;
    let class = template.facts.class;
    available::class(exec.cpu, class)?;
    let mut frame = prepare(exec, insn, &template)?;
    let mxcsr = exec.cpu.fpu.mxcsr();
    match simd_errors::run(exec.host, &template, &mut frame, mxcsr) {
        Outcome::Done(raised) => {
            store_operand(exec, insn, &template, &frame)?;
            set_flags(exec.cpu, &template, &frame);
            set_general(exec.cpu, insn, &template, &frame);
            take_registers(exec.cpu, class, frame, mxcsr | raised);
            Ok(())
        }
        Outcome::Unmasked(raised) => {
            // The register file is switched before the exception is found.
            if class == Class::SseMmx {
                exec.cpu.fpu.enter_mmx();
            }
            exec.cpu.fpu.set_mxcsr(mxcsr | raised);
            let reported = exec.cpu.cr4 & CR4_OSXMMEXCPT != 0;
            Err(if reported {
                Fault::plain(Vector::SimdError)
            } else {
                Fault::ud()
            })
        }
        Outcome::Refused => Err(REFUSED),
    }
}

/// Makes the frame of an instruction: the guest's registers and the source operands. Memory that the instruction will write is
/// checked, so that the store cannot fault.
fn prepare(exec: &mut Exec<'_>, insn: &Insn, template: &Template) -> Result<StubFrame, Fault> {
    let facts = &template.facts;
    let mut operand = [0; OPERAND_BYTES];
    if facts.memory != MemoryUse::None {
        let segment = insn.mem.segment;
        let offset = insn.effective_address(exec.cpu);
        if facts.alignment == Alignment::Paragraph {
            check_paragraph(exec.cpu, segment, offset)?;
        }
        match facts.memory {
            MemoryUse::None => {}
            MemoryUse::Read(TBYTE) => {
                extent::load_parts(exec, insn, &TBYTE_PARTS, &mut operand)?;
            }
            MemoryUse::Read(bytes) => operand = load(exec, segment, offset, bytes)?,
            MemoryUse::Write(TBYTE) => extent::probe_parts(exec, insn, &TBYTE_PARTS)?,
            MemoryUse::Write(bytes) => exec.probe_write(segment, offset, u32::from(bytes))?,
        }
    }
    let general = match facts.general {
        GeneralUse::Read(index) => {
            general_register(insn, index).map_or(0, |number| exec.cpu.regs.get64(number))
        }
        GeneralUse::Strings => exec.cpu.regs.get64(EAX),
        GeneralUse::None | GeneralUse::Write(_) => 0,
    };
    Ok(StubFrame {
        image: exec.cpu.fpu.clone(),
        operand,
        general,
        index: exec.cpu.regs.get64(ECX),
        length: exec.cpu.regs.get64(EDX),
        flags: exec.cpu.eflags & eflags::STATUS,
    })
}

/// Raises #GP(0) if `segment:[offset]` is not 16-byte aligned. As on the host, it comes before a page fault and before the
/// fault of an address outside the segment, #SS included.
pub fn check_paragraph(cpu: &Cpu, segment: SegReg, offset: u64) -> Result<(), Fault> {
    let linear = cpu.linear(segment, offset);
    if linear.get().is_multiple_of(16) {
        Ok(())
    } else {
        Err(Fault::gp(0))
    }
}

/// Reads a memory operand of 1, 2, 4, 8 or 16 bytes.
fn load(
    exec: &mut Exec<'_>,
    segment: SegReg,
    offset: u64,
    bytes: u8,
) -> Result<[u8; OPERAND_BYTES], Fault> {
    let privilege = exec.cpu.privilege();
    let linear = exec.readable(segment, offset, u32::from(bytes))?;
    let value = match bytes {
        1 => u128::from(exec.load_at::<u8>(linear, privilege)?),
        2 => u128::from(exec.load_at::<u16>(linear, privilege)?),
        4 => u128::from(exec.load_at::<u32>(linear, privilege)?),
        8 => u128::from(exec.load_at::<u64>(linear, privilege)?),
        _ => exec.load_at::<u128>(linear, privilege)?,
    };
    Ok(value.to_le_bytes())
}

/// Writes the memory operand, if the instruction has one to write.
fn store_operand(
    exec: &mut Exec<'_>,
    insn: &Insn,
    template: &Template,
    frame: &StubFrame,
) -> Result<(), Fault> {
    let MemoryUse::Write(bytes) = template.facts.memory else {
        return Ok(());
    };
    if bytes == TBYTE {
        return extent::store_parts(exec, insn, &TBYTE_PARTS, &frame.operand);
    }
    let (segment, offset) = (insn.mem.segment, insn.effective_address(exec.cpu));
    let privilege = exec.cpu.privilege();
    let linear = exec.writable(segment, offset, u32::from(bytes))?;
    let value = u128::from_le_bytes(frame.operand);
    match bytes {
        1 => exec.store_at(linear, privilege, value as u8),
        2 => exec.store_at(linear, privilege, value as u16),
        4 => exec.store_at(linear, privilege, value as u32),
        8 => exec.store_at(linear, privilege, value as u64),
        _ => exec.store_at(linear, privilege, value),
    }
}

fn general_register(insn: &Insn, index: u8) -> Option<u8> {
    match insn.ops.get(usize::from(index)) {
        Some(&Operand::Reg(number)) => Some(number),
        _ => None,
    }
}

fn set_general(cpu: &mut Cpu, insn: &Insn, template: &Template, frame: &StubFrame) {
    // A stub writes a 32-bit register by zero-extension, as the guest does.
    match template.facts.general {
        GeneralUse::Write(index) => {
            if let Some(number) = general_register(insn, index) {
                cpu.regs.set64(number, frame.general);
            }
        }
        GeneralUse::Strings => cpu.regs.set64(ECX, frame.index),
        GeneralUse::None | GeneralUse::Read(_) => {}
    }
}

fn set_flags(cpu: &mut Cpu, template: &Template, frame: &StubFrame) {
    if template.facts.flags == FlagsUse::Write {
        cpu.eflags = cpu.eflags & !eflags::STATUS | frame.flags;
    }
}

/// The last-instruction pointers after an x87 instruction, EIP being past it.
fn pointers(cpu: &Cpu, insn: &Insn, template: &Template, fop: u16) -> Pointers {
    let fip = cpu.eip_before(insn.len);
    let last = cpu.fpu.pointers();
    let (fdp, fds) = match template.facts.memory {
        MemoryUse::None => (last.fdp, last.fds),
        _ => (
            insn.effective_address(cpu),
            cpu.seg(insn.mem.segment).selector.0,
        ),
    };
    Pointers {
        fop,
        fip: match CodeSize::of(cpu) {
            CodeSize::Bits16 => u64::from(fip as u16),
            CodeSize::Bits32 | CodeSize::Bits64 => fip,
        },
        fcs: cpu.seg(SegReg::Cs).selector.0,
        fdp,
        fds,
    }
}

/// Takes over the frame's registers of the unit that the instruction belongs to.
fn take_registers(cpu: &mut Cpu, class: Class, mut frame: StubFrame, mxcsr: u32) {
    if class.uses_stack() {
        frame.image.set_mxcsr(mxcsr);
        cpu.fpu = frame.image;
    } else {
        cpu.fpu.copy_xmm(&frame.image);
        cpu.fpu.set_mxcsr(mxcsr);
    }
}
