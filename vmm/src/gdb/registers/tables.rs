//! [`Tables`]: the table of each width, and the one that gdb sees.

use std::cell::Cell;

use sbe::cpu::Cpu;

use super::Table;
use crate::linear::Width;

/// The tables.
pub struct Tables {
    of_32_bits: Table,
    of_64_bits: Table,
    /// The width of the registers that gdb sees.
    width: Cell<Width>,
}

impl Tables {
    /// The tables, of which gdb sees that of `cpu`'s present mode.
    pub fn new(cpu: &Cpu) -> Self {
        Self {
            of_32_bits: Table::new(Width::Bits32),
            of_64_bits: Table::new(Width::Bits64),
            width: Cell::new(Width::of(cpu)),
        }
    }

    /// Shows gdb the registers of `cpu`'s present mode from now on. gdb learns which there are when it reads a target description,
    /// and goes by that until it reads another.
    pub fn choose(&self, cpu: &Cpu) {
        self.width.set(Width::of(cpu));
    }

    /// The width of the registers that gdb sees.
    pub fn width(&self) -> Width {
        self.width.get()
    }

    /// The registers that gdb sees.
    pub fn shown(&self) -> &Table {
        match self.width() {
            Width::Bits32 => &self.of_32_bits,
            Width::Bits64 => &self.of_64_bits,
        }
    }
}
