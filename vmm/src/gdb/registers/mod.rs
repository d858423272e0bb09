//! [`Table`]: the registers as gdb sees them. The target description, the `g` packet and single accesses are made from it.
//!
//! The features `org.gnu.gdb.i386.core` and `.sse` are gdb's (Debugging with GDB, G.5.8 "i386 Features"); `org.replex.system` has
//! the rest: segment bases, descriptor tables, control and debug registers. A register's number is its place in the table.
//!
//! gdb knows one address space and no segments. So `eip` is the linear address of the next instruction, by which gdb compares stops
//! with breakpoints, disassembles, looks up symbols and jumps; the offset in CS, the processor's EIP, is `eip_offset`. All other
//! registers are the processor's: what lies on the stack begins at `esp_linear`, the sum of SS's base and ESP or SP. Where the bases
//! are 0, each pair is equal.

use std::fmt::Write as _;

use sbe::cpu::{
    Cpu,
    control::{DR6_FIXED, DR7_FIXED, DR7_WRITABLE},
    eflags,
    fpu::{FxState, MXCSR_MASK, Pointers},
    regs::ESP,
    segment::SegReg,
};

type Get = Box<dyn Fn(&Cpu) -> u128>;
type Set = Box<dyn Fn(&mut Cpu, u128) -> Result<(), NotWritable>>;

/// One register: its name, size and type, and how it is read and written.
pub struct Register {
    name: &'static str,
    bits: usize,
    /// The type in target descriptions.
    kind: &'static str,
    get: Get,
    /// `None` for a read-only register, one whose change takes more than a new value.
    set: Option<Set>,
}

/// The error for a value that cannot be written: the register is read-only or cannot hold it, or the value has another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritable;

impl Register {
    fn new(
        name: &'static str,
        bits: usize,
        kind: &'static str,
        get: impl Fn(&Cpu) -> u128 + 'static,
    ) -> Self {
        Self {
            name,
            bits,
            kind,
            get: Box::new(get),
            set: None,
        }
    }

    fn set_by(self, set: impl Fn(&mut Cpu, u128) + 'static) -> Self {
        self.try_set_by(move |cpu, value| {
            set(cpu, value);
            Ok(())
        })
    }

    fn try_set_by(self, set: impl Fn(&mut Cpu, u128) -> Result<(), NotWritable> + 'static) -> Self {
        Self {
            set: Some(Box::new(set)),
            ..self
        }
    }

    /// The size of the register in packets, in bytes.
    pub fn bytes(&self) -> usize {
        self.bits / 8
    }

    /// The value of the register in `cpu`, little endian.
    pub fn read(&self, cpu: &Cpu) -> Vec<u8> {
        (self.get)(cpu).to_le_bytes()[..self.bytes()].to_vec()
    }

    /// Sets the register in `cpu` to a value of [`Self::bytes`] bytes. Its present value can always be written.
    ///
    /// # Errors
    /// If this value cannot be written.
    pub fn write(&self, cpu: &mut Cpu, value: &[u8]) -> Result<(), NotWritable> {
        let present = self.read(cpu);
        self.replace(cpu, &present, value)
    }

    /// Sets the register, which was `before`, to `value`, unless they are the same or it has this value already.
    fn replace(&self, cpu: &mut Cpu, before: &[u8], value: &[u8]) -> Result<(), NotWritable> {
        if value.len() != self.bytes() {
            return Err(NotWritable);
        }
        if before == value || self.read(cpu) == value {
            return Ok(());
        }
        let set = self.set.as_ref().ok_or(NotWritable)?;
        let mut bytes = [0; size_of::<u128>()];
        bytes[..value.len()].copy_from_slice(value);
        set(cpu, u128::from_le_bytes(bytes))
    }
}

/// Registers of gdb's core feature that come before the x87 ones.
const GENERAL: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
const SEGMENTS: [(&str, SegReg); 6] = [
    ("cs", SegReg::Cs),
    ("ss", SegReg::Ss),
    ("ds", SegReg::Ds),
    ("es", SegReg::Es),
    ("fs", SegReg::Fs),
    ("gs", SegReg::Gs),
];
const BASES: [(&str, SegReg); 6] = [
    ("cs_base", SegReg::Cs),
    ("ss_base", SegReg::Ss),
    ("ds_base", SegReg::Ds),
    ("es_base", SegReg::Es),
    ("fs_base", SegReg::Fs),
    ("gs_base", SegReg::Gs),
];
const ST: [&str; 8] = ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"];
const XMM: [&str; 8] = [
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
];
const DEBUG: [(&str, usize); 6] = [
    ("dr0", 0),
    ("dr1", 1),
    ("dr2", 2),
    ("dr3", 3),
    ("dr6", 6),
    ("dr7", 7),
];

/// The number of EIP.
const EIP: usize = 8;

/// All registers, in the order of their numbers.
pub struct Table {
    core: Vec<Register>,
    sse: Vec<Register>,
    system: Vec<Register>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            core: core(),
            sse: sse(),
            system: system(),
        }
    }
}

impl Table {
    /// The registers in the order of their numbers.
    pub fn registers(&self) -> impl Iterator<Item = &Register> {
        self.core.iter().chain(&self.sse).chain(&self.system)
    }

    /// The register numbered `number`.
    pub fn get(&self, number: usize) -> Option<&Register> {
        self.registers().nth(number)
    }

    /// The values of all registers, one after the other.
    pub fn read(&self, cpu: &Cpu) -> Vec<u8> {
        self.registers()
            .flat_map(|register| register.read(cpu))
            .collect()
    }

    /// Sets all registers whose value is another to `values`, which lie one after the other. Where two stand for one of the
    /// processor's, only the one that differs counts.
    ///
    /// # Errors
    /// If a register cannot be written. Then no register is changed.
    pub fn write(&self, cpu: &mut Cpu, mut values: &[u8]) -> Result<(), NotWritable> {
        let mut changed = cpu.clone();
        for register in self.registers() {
            let value;
            (value, values) = values
                .split_at_checked(register.bytes())
                .ok_or(NotWritable)?;
            register.replace(&mut changed, &register.read(cpu), value)?;
        }
        *cpu = changed;
        Ok(())
    }

    /// The value of EIP in `values`, the values of all registers.
    pub fn eip(values: &[u8]) -> u32 {
        let at = EIP * size_of::<u32>();
        let bytes = values.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |&bytes| u32::from_le_bytes(bytes))
    }

    /// The target description (Debugging with GDB, G "Target Descriptions"). Its architecture, by which gdb disassembles, is
    /// that of the code that `cpu` executes.
    pub fn description(&self, cpu: &Cpu) -> String {
        let architecture = match code_bits(cpu) {
            16 => "i8086",
            _ => "i386",
        };
        let mut xml = format!("{HEAD}<architecture>{architecture}</architecture>\n");
        let mut number = 0;
        for (name, types, registers) in [
            ("org.gnu.gdb.i386.core", EFLAGS_TYPE, &self.core),
            ("org.gnu.gdb.i386.sse", SSE_TYPES, &self.sse),
            ("org.replex.system", "", &self.system),
        ] {
            let _ = writeln!(xml, "<feature name=\"{name}\">{types}");
            for Register {
                name, bits, kind, ..
            } in registers
            {
                let _ = writeln!(
                    xml,
                    "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
                );
                number += 1;
            }
            xml.push_str("</feature>\n");
        }
        xml.push_str("</target>\n");
        xml
    }
}

const HEAD: &str = r#"<?xml version="1.0"?>
<!DOCTYPE target SYSTEM "gdb-target.dtd">
<target version="1.0">
"#;
/// Fields of EFLAGS (SDM Vol. 1, 3.4.3 "EFLAGS Register").
const EFLAGS_TYPE: &str = r#"
<flags id="i386_eflags" size="4">
<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/><field name="PF" start="2" end="2"/>
<field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>
<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/>
<field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>
<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>
<field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/>
</flags>"#;
/// The element types of an XMM register, and fields of MXCSR (SDM Vol. 1, 10.2.3 "MXCSR Control and Status Register").
const SSE_TYPES: &str = r#"
<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v16i8" type="int8" count="16"/><vector id="v2i64" type="int64" count="2"/>
<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
<union id="vec128">
<field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>
<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/>
</union>
<flags id="i386_mxcsr" size="4">
<field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/><field name="ZE" start="2" end="2"/>
<field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/><field name="PE" start="5" end="5"/>
<field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/><field name="DM" start="8" end="8"/>
<field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/><field name="UM" start="11" end="11"/>
<field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/>
</flags>"#;

fn core() -> Vec<Register> {
    let mut registers = Vec::new();
    for (name, index) in GENERAL.into_iter().zip(0..) {
        let kind = match name {
            "esp" | "ebp" => "data_ptr",
            _ => "int32",
        };
        let register = Register::new(name, 32, kind, move |cpu| cpu.regs.get(index).into());
        registers.push(register.set_by(move |cpu, value| cpu.regs.set(index, value as u32)));
    }
    registers.extend([
        Register::new("eip", 32, "code_ptr", |cpu| cpu.linear_eip().get().into())
            .try_set_by(set_linear_eip),
        Register::new("eflags", 32, "i386_eflags", |cpu| cpu.eflags.into()).set_by(set_eflags),
    ]);
    for (name, segment) in SEGMENTS {
        let get = move |cpu: &Cpu| cpu.seg(segment).selector.0.into();
        registers.push(Register::new(name, 32, "int32", get));
    }
    for (name, index) in ST.into_iter().zip(0..) {
        let get = move |cpu: &Cpu| {
            let mut bytes = [0; size_of::<u128>()];
            let value = cpu.fpu.st(index);
            bytes[..value.len()].copy_from_slice(&value);
            u128::from_le_bytes(bytes)
        };
        let set = move |cpu: &mut Cpu, value: u128| {
            let bytes = value.to_le_bytes();
            cpu.fpu.set_st(index, std::array::from_fn(|at| bytes[at]));
        };
        registers.push(Register::new(name, 80, "i387_ext", get).set_by(set));
    }
    registers.extend([
        x87(
            "fctrl",
            |fpu| fpu.fcw().into(),
            |fpu, value| fpu.set_fcw(value as u16),
        ),
        x87(
            "fstat",
            |fpu| fpu.fsw().into(),
            |fpu, value| fpu.set_fsw(value as u16),
        ),
        x87(
            "ftag",
            |fpu| fpu.full_tags().into(),
            |fpu, value| fpu.set_full_tags(value as u16),
        ),
        pointer(
            "fiseg",
            |at| at.fcs.into(),
            |at, value| at.fcs = value as u16,
        ),
        pointer(
            "fioff",
            |at| at.fip as u32,
            |at, value| at.fip = value.into(),
        ),
        pointer(
            "foseg",
            |at| at.fds.into(),
            |at, value| at.fds = value as u16,
        ),
        pointer(
            "fooff",
            |at| at.fdp as u32,
            |at, value| at.fdp = value.into(),
        ),
        pointer("fop", |at| at.fop.into(), |at, value| at.fop = value as u16),
    ]);
    registers
}

fn x87(name: &'static str, get: fn(&FxState) -> u32, set: fn(&mut FxState, u32)) -> Register {
    Register::new(name, 32, "int", move |cpu| get(&cpu.fpu).into())
        .set_by(move |cpu, value| set(&mut cpu.fpu, value as u32))
}

fn pointer(name: &'static str, get: fn(&Pointers) -> u32, set: fn(&mut Pointers, u32)) -> Register {
    let change = move |cpu: &mut Cpu, value: u128| {
        let mut pointers = cpu.fpu.pointers();
        set(&mut pointers, value as u32);
        cpu.fpu.set_pointers(pointers);
    };
    Register::new(name, 32, "int", move |cpu| get(&cpu.fpu.pointers()).into()).set_by(change)
}

/// Sets EIP to the offset in CS that stands for a linear address.
fn set_linear_eip(cpu: &mut Cpu, linear: u128) -> Result<(), NotWritable> {
    let code = cpu.seg(SegReg::Cs);
    let offset = (linear as u32).wrapping_sub(code.base as u32);
    if offset > code.limit {
        return Err(NotWritable);
    }
    cpu.eip = offset.into();
    Ok(())
}

/// The default size of operands and addresses: that of the code segment.
fn code_bits(cpu: &Cpu) -> u8 {
    match cpu.is_code32() {
        true => 32,
        false => 16,
    }
}

/// The linear address of the top of the stack.
fn linear_esp(cpu: &Cpu) -> u32 {
    let offset = cpu.stack_size().wrap(cpu.regs.get64(ESP));
    cpu.linear(SegReg::Ss, offset).get() as u32
}

/// Sets EFLAGS, except for VM: entering or leaving virtual-8086 mode also changes what the segment registers hold.
fn set_eflags(cpu: &mut Cpu, value: u128) {
    let kept = eflags::VM | !eflags::DEFINED;
    cpu.eflags = cpu.eflags & kept | value as u32 & !kept;
}

fn sse() -> Vec<Register> {
    let mut registers = Vec::new();
    for (name, index) in XMM.into_iter().zip(0..) {
        let register = Register::new(name, 128, "vec128", move |cpu| cpu.fpu.xmm(index));
        registers.push(register.set_by(move |cpu, value| cpu.fpu.set_xmm(index, value)));
    }
    let mxcsr = Register::new("mxcsr", 32, "i386_mxcsr", |cpu| cpu.fpu.mxcsr().into());
    registers.push(mxcsr.set_by(|cpu, value| cpu.fpu.set_mxcsr(value as u32 & MXCSR_MASK)));
    registers
}

fn system() -> Vec<Register> {
    let mut registers = Vec::new();
    for (name, segment) in BASES {
        let get = move |cpu: &Cpu| cpu.seg(segment).base.into();
        registers.push(Register::new(name, 32, "data_ptr", get));
    }
    registers.extend([
        Register::new("eip_offset", 32, "int32", |cpu| cpu.eip.into())
            .set_by(|cpu, value| cpu.eip = (value as u32).into()),
        Register::new("cs_bits", 32, "int32", |cpu| code_bits(cpu).into()),
        Register::new("esp_linear", 32, "data_ptr", |cpu| linear_esp(cpu).into()),
        Register::new("ldtr", 32, "int32", |cpu| cpu.ldtr.selector.0.into()),
        Register::new("ldtr_base", 32, "data_ptr", |cpu| cpu.ldtr.base.into()),
        Register::new("tr", 32, "int32", |cpu| cpu.tr.selector.0.into()),
        Register::new("tr_base", 32, "data_ptr", |cpu| cpu.tr.base.into()),
        Register::new("gdtr_base", 32, "data_ptr", |cpu| cpu.gdtr.base.into()),
        Register::new("gdtr_limit", 32, "int32", |cpu| cpu.gdtr.limit.into()),
        Register::new("idtr_base", 32, "data_ptr", |cpu| cpu.idtr.base.into()),
        Register::new("idtr_limit", 32, "int32", |cpu| cpu.idtr.limit.into()),
        Register::new("cpl", 32, "int32", |cpu| cpu.cpl.into()),
        Register::new("cr0", 32, "int32", |cpu| cpu.cr0.into()),
        Register::new("cr2", 32, "data_ptr", |cpu| cpu.cr2.into())
            .set_by(|cpu, value| cpu.cr2 = (value as u32).into()),
        Register::new("cr3", 32, "int32", |cpu| cpu.cr3.into()),
        Register::new("cr4", 32, "int32", |cpu| cpu.cr4.into()),
        Register::new("efer", 64, "int64", |cpu| cpu.efer.into()),
    ]);
    for (name, index) in DEBUG {
        let set = move |cpu: &mut Cpu, value: u128| {
            let value = u64::from(value as u32);
            cpu.dr[index] = match index {
                6 => value | DR6_FIXED,
                7 => value & DR7_WRITABLE | DR7_FIXED,
                _ => value,
            };
        };
        let register = Register::new(name, 32, "int32", move |cpu| cpu.dr[index].into());
        registers.push(register.set_by(set));
    }
    registers
}

#[cfg(test)]
mod tests;
