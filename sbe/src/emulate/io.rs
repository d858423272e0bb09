//! IN and OUT (SDM Vol. 1, chapter "Input/Output").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::regs::{EAX, EDX};
use crate::decode::{Insn, Operand};
use crate::fault::Fault;
use crate::observation::Direction;
use crate::width::Width;

fn width<W: Word>() -> Width {
    match W::BITS {
        8 => Width::Byte,
        16 => Width::Word,
        _ => Width::Dword,
    }
}

impl Exec<'_> {
    /// Reads a port for `insn`, permission checked before.
    pub fn port_in<W: Word>(&mut self, insn: &Insn, port: u16) -> W {
        let value = W::cut(self.bus.port_read(port, width::<W>()).into());
        self.sample_bus();
        let read = (width::<W>(), value.zero_extend() as u32);
        self.observe_port(Direction::In, port, read, insn.len);
        value
    }

    /// Writes a port for `insn`, permission checked before.
    pub fn port_out<W: Word>(&mut self, insn: &Insn, port: u16, value: W) {
        let (width, value) = (width::<W>(), value.zero_extend() as u32);
        self.bus.port_write(port, width, value);
        self.sample_bus();
        self.observe_port(Direction::Out, port, (width, value), insn.len);
    }

    /// The port operand `index`: imm8 or DX.
    fn port(&self, insn: &Insn, index: usize) -> u16 {
        match insn.ops[index] {
            Operand::Imm => insn.imm as u8 as u16,
            _ => self.cpu.regs.get16(EDX),
        }
    }
}

/// IN.
pub fn port_in<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let port = cx.port(insn, 1);
    cx.io_allowed(port, W::BYTES)?;
    let value = cx.port_in::<W>(insn, port);
    value.set_register(&mut cx.cpu.regs, EAX);
    Ok(())
}

/// OUT.
pub fn port_out<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let port = cx.port(insn, 0);
    cx.io_allowed(port, W::BYTES)?;
    cx.port_out(insn, port, W::register(&cx.cpu.regs, EAX));
    Ok(())
}
