//! [`Table`]: the registers as gdb sees them. The target description, the `g` packet and single accesses are made from it.
//!
//! There is a table for each [`Width`]: for 32 bits, and for the processor in long mode. The features `org.gnu.gdb.i386.core`, `.sse`
//! and, of 64 bits, `.segments` are gdb's (Debugging with GDB, G.5.8 "i386 Features"); `org.replex.system` has the rest: segment
//! bases, descriptor tables, control and debug registers. A register's number is its place in the table.
//!
//! gdb knows one address space and no segments. So `eip` is the linear address of the next instruction, by which gdb compares stops
//! with breakpoints, disassembles, looks up symbols and jumps; the offset in CS, the processor's EIP, is `eip_offset`. All other
//! registers are the processor's: what lies on the stack begins at `esp_linear`, the sum of SS's base and ESP or SP. Where the bases
//! are 0, each pair is equal. Of 64 bits, the names are `rip`, `rip_offset` and `rsp_linear`; in 64-bit code each pair is equal.

mod core_registers;
mod processor;
mod register;
mod sse;
mod system;
mod tables;
mod types;

use std::fmt::Write as _;

use sbe::cpu::Cpu;

use crate::linear::Width;
pub use register::{NotWritable, Register};
pub use tables::Tables;

/// The width in bits.
fn bits(width: Width) -> usize {
    match width {
        Width::Bits32 => 32,
        Width::Bits64 => 64,
    }
}

/// The type of an integer of this width in target descriptions.
fn int(width: Width) -> &'static str {
    match width {
        Width::Bits32 => "int32",
        Width::Bits64 => "int64",
    }
}

/// All registers, in the order of their numbers.
pub struct Table {
    width: Width,
    features: Vec<Feature>,
}

/// Registers that gdb knows together.
struct Feature {
    name: &'static str,
    /// The types that the registers need, in a target description.
    types: &'static str,
    registers: Vec<Register>,
}

impl Table {
    /// The table of a width.
    pub fn new(width: Width) -> Self {
        let feature = |name, types, registers| Feature {
            name,
            types,
            registers,
        };
        let mut features = vec![
            feature(
                "org.gnu.gdb.i386.core",
                types::EFLAGS,
                core_registers::registers(width),
            ),
            feature("org.gnu.gdb.i386.sse", types::SSE, sse::registers(width)),
        ];
        if width == Width::Bits64 {
            let bases = system::thread_bases(width);
            features.push(feature("org.gnu.gdb.i386.segments", "", bases));
        }
        let others = system::registers(width);
        features.push(feature("org.replex.system", "", others));
        Self { width, features }
    }

    /// The registers in the order of their numbers.
    pub fn registers(&self) -> impl Iterator<Item = &Register> {
        self.features.iter().flat_map(|feature| &feature.registers)
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

    /// The instruction pointer, which is a linear address.
    pub fn ip(&self, cpu: &Cpu) -> u64 {
        processor::linear_ip(cpu)
    }

    /// The target description (Debugging with GDB, G "Target Descriptions"). Its architecture, by which gdb disassembles, is
    /// that of the code that `cpu` executes; of 64 bits it is that of the table.
    pub fn description(&self, cpu: &Cpu) -> String {
        let architecture = match (self.width, processor::code_bits(cpu)) {
            (Width::Bits64, _) => "i386:x86-64",
            (Width::Bits32, 16) => "i8086",
            (Width::Bits32, _) => "i386",
        };
        let mut xml = format!("{HEAD}<architecture>{architecture}</architecture>\n");
        let mut number = 0;
        for feature in &self.features {
            let Feature { name, types, .. } = feature;
            let _ = writeln!(xml, "<feature name=\"{name}\">{types}");
            for Register {
                name, bits, kind, ..
            } in &feature.registers
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

#[cfg(test)]
mod tests;
