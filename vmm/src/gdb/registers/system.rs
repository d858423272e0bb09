//! The registers that gdb has no feature for: segment bases, descriptor tables, control and debug registers.

use sbe::cpu::{Cpu, segment::SegReg};

use super::{bits, int, processor, register::Register};
use crate::linear::Width;

/// Segments whose bases gdb does not know of.
const BASES: [(&str, SegReg); 4] = [
    ("cs_base", SegReg::Cs),
    ("ss_base", SegReg::Ss),
    ("ds_base", SegReg::Ds),
    ("es_base", SegReg::Es),
];
/// Segments whose bases are, in 64-bit programs, of gdb's feature `org.gnu.gdb.i386.segments`.
const THREAD_BASES: [(&str, SegReg); 2] = [("fs_base", SegReg::Fs), ("gs_base", SegReg::Gs)];
const DEBUG: [(&str, usize); 6] = [
    ("dr0", 0),
    ("dr1", 1),
    ("dr2", 2),
    ("dr3", 3),
    ("dr6", 6),
    ("dr7", 7),
];

/// The registers of `org.gnu.gdb.i386.segments`.
pub(super) fn thread_bases(width: Width) -> Vec<Register> {
    bases(&THREAD_BASES, width, int(width))
}

/// The other registers, in the order of their numbers. Of 32 bits, those of [`thread_bases`] are among them.
pub(super) fn registers(width: Width) -> Vec<Register> {
    let mut registers = bases(&BASES, width, "data_ptr");
    if width == Width::Bits32 {
        registers.extend(bases(&THREAD_BASES, width, "data_ptr"));
    }
    let [offset, sp] = match width {
        Width::Bits32 => ["eip_offset", "esp_linear"],
        Width::Bits64 => ["rip_offset", "rsp_linear"],
    };
    let (bits, int) = (bits(width), int(width));
    registers.extend([
        Register::new(offset, bits, int, |cpu| cpu.eip.into())
            .try_set_by(|cpu, value| processor::set_ip(cpu, value as u64)),
        Register::new("cs_bits", 32, "int32", |cpu| {
            processor::code_bits(cpu).into()
        }),
        Register::new(sp, bits, "data_ptr", |cpu| processor::linear_sp(cpu).into()),
        Register::new("ldtr", 32, "int32", |cpu| cpu.ldtr.selector.0.into()),
        Register::new("ldtr_base", bits, "data_ptr", |cpu| cpu.ldtr.base.into()),
        Register::new("tr", 32, "int32", |cpu| cpu.tr.selector.0.into()),
        Register::new("tr_base", bits, "data_ptr", |cpu| cpu.tr.base.into()),
        Register::new("gdtr_base", bits, "data_ptr", |cpu| cpu.gdtr.base.into()),
        Register::new("gdtr_limit", 32, "int32", |cpu| cpu.gdtr.limit.into()),
        Register::new("idtr_base", bits, "data_ptr", |cpu| cpu.idtr.base.into()),
        Register::new("idtr_limit", 32, "int32", |cpu| cpu.idtr.limit.into()),
        Register::new("cpl", 32, "int32", |cpu| cpu.cpl.into()),
        Register::new("cr0", bits, int, |cpu| cpu.cr0.into()),
        Register::new("cr2", bits, "data_ptr", |cpu| cpu.cr2.into())
            .set_by(|cpu, value| cpu.cr2 = value as u64),
        Register::new("cr3", bits, int, |cpu| cpu.cr3.into()),
        Register::new("cr4", bits, int, |cpu| cpu.cr4.into()),
        Register::new("efer", 64, "int64", |cpu| cpu.efer.into()),
    ]);
    for (name, index) in DEBUG {
        let get = move |cpu: &Cpu| cpu.dr[index].into();
        let set = move |cpu: &mut Cpu, value: u128| processor::set_debug(cpu, index, value as u64);
        registers.push(Register::new(name, bits, int, get).set_by(set));
    }
    registers
}

/// Registers for the bases of `segments`.
fn bases(segments: &[(&'static str, SegReg)], width: Width, kind: &'static str) -> Vec<Register> {
    let base = |&(name, segment): &(&'static str, SegReg)| {
        let get = move |cpu: &Cpu| cpu.seg(segment).base.into();
        Register::new(name, bits(width), kind, get)
    };
    segments.iter().map(base).collect()
}
