//! [`HostFpu`]: the templates of the instructions that the host executes, made when they are decoded.

use super::frame::StubFrame;
use super::memory::{SLOTS, StubId, StubMemory};
use super::stub::{Class, Facts, STUB_BYTES, Stub};
use crate::cpu::fpu::FOP_MASK;
use hashbrown::HashMap;
use iced_x86::Instruction;
use std::io;

/// First byte of the x87 opcodes 0xd8..=0xdf.
const ESCAPE: u8 = 0xd8;
/// Mask of [`ESCAPE`].
const ESCAPE_MASK: u8 = 0xf8;

/// The contents of [`crate::decode::Insn::aux`] for an instruction that the host executes: the number of its template, and the
/// last-opcode register of an x87 instruction (instructions that differ in their addressing form share a template but not an
/// opcode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRef {
    number: u16,
    /// Value of FOP after the instruction.
    pub fop: u16,
}

impl TemplateRef {
    /// The number of no template.
    const NONE: u16 = u16::MAX;

    /// Packs the reference into 32 bits.
    pub fn to_bits(self) -> u32 {
        u32::from(self.fop) << 16 | u32::from(self.number)
    }

    /// Unpacks a reference.
    pub fn from_bits(bits: u32) -> Self {
        Self {
            number: bits as u16,
            fop: (bits >> 16) as u16,
        }
    }
}

const _: () = assert!(SLOTS < TemplateRef::NONE as usize);

/// The stub of one instruction form, and the facts about it.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    slot: StubId,
    /// The facts about the instruction.
    pub facts: Facts,
}

/// The host's FPU, and the templates of the instructions that execute on it.
pub struct HostFpu {
    memory: StubMemory,
    templates: Vec<Template>,
    numbers: HashMap<[u8; STUB_BYTES], u16>,
}

impl HostFpu {
    /// An FPU without templates. It owns 256 KiB of executable memory.
    ///
    /// # Errors
    /// The host refuses executable memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            memory: StubMemory::new()?,
            templates: Vec::new(),
            numbers: HashMap::new(),
        })
    }

    /// Makes or finds the template of `raw`, which was decoded from `bytes`. The result is for
    /// [`crate::decode::Insn::aux`] and valid until [`Self::clear`].
    ///
    /// While [`Self::is_full`], new templates are refused: the instruction then stops the machine when it executes.
    /// Test `is_full` before decoding, therefore.
    pub fn template(&mut self, raw: &Instruction, bytes: &[u8]) -> u32 {
        let number = self.number(raw).unwrap_or(TemplateRef::NONE);
        TemplateRef {
            number,
            fop: last_opcode(raw, bytes),
        }
        .to_bits()
    }

    /// Whether no further template fits.
    pub fn is_full(&self) -> bool {
        self.memory.is_full()
    }

    /// Forgets all templates. Every decoded instruction that refers to one must be forgotten with them.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.templates.clear();
        self.numbers.clear();
    }

    /// The template `reference` names.
    pub fn get(&self, reference: TemplateRef) -> Option<Template> {
        self.templates.get(usize::from(reference.number)).copied()
    }

    /// Executes `template` on `frame`; see [`StubMemory::run`].
    pub fn run(&self, template: &Template, frame: &mut StubFrame) -> bool {
        self.memory.run(template.slot, frame)
    }

    fn number(&mut self, raw: &Instruction) -> Option<u16> {
        let stub = match Stub::new(raw) {
            Ok(stub) => stub,
            Err(error) => {
                log::error!("{:?}: {error}", raw.code());
                return None;
            }
        };
        if let Some(&number) = self.numbers.get(stub.code()) {
            return Some(number);
        }
        let slot = self.memory.publish(&stub)?;
        let number = self.templates.len() as u16;
        self.templates.push(Template {
            slot,
            facts: stub.facts(),
        });
        self.numbers.insert(*stub.code(), number);
        Some(number)
    }
}

/// Returns the 11 bits that FOP keeps of the opcode of `raw`, decoded from `bytes`: the low three of its first byte and the
/// ModR/M byte; 0 if it is no x87 instruction.
pub fn last_opcode(raw: &Instruction, bytes: &[u8]) -> u16 {
    if Class::of(raw) != Some(Class::X87) {
        return 0;
    }
    let at = bytes.iter().position(|byte| byte & ESCAPE_MASK == ESCAPE);
    match at.map(|at| &bytes[at..]) {
        Some(&[escape, modrm, ..]) => u16::from_be_bytes([escape, modrm]) & FOP_MASK,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::new(32, bytes, DecoderOptions::NONE).decode()
    }

    fn template(unit: &mut HostFpu, bytes: &[u8]) -> TemplateRef {
        TemplateRef::from_bits(unit.template(&decode(bytes), bytes))
    }

    #[test]
    fn addressing_forms_share_a_template_but_not_the_opcode() {
        let mut unit = HostFpu::new().expect("executable memory");
        let first = template(&mut unit, &[0xdd, 0x00]);
        let second = template(&mut unit, &[0x64, 0xdd, 0x44, 0x24, 0x10]);
        assert_eq!(first.number, second.number);
        assert_eq!((first.fop, second.fop), (0x500, 0x544));
        assert_eq!(unit.templates.len(), 1);
    }

    #[test]
    fn a_full_store_refuses_until_it_is_cleared() {
        let mut unit = HostFpu::new().expect("executable memory");
        // pshufd, pshuflw, pshufhw, shufps, shufpd by all registers and immediates: 81,920 forms.
        let prefixes: [&[u8]; 5] = [
            &[0x66, 0x0f, 0x70],
            &[0xf2, 0x0f, 0x70],
            &[0xf3, 0x0f, 0x70],
            &[0x0f, 0xc6],
            &[0x66, 0x0f, 0xc6],
        ];
        let forms = prefixes.iter().flat_map(|prefix| {
            (0xc0..=0xff).flat_map(move |modrm| {
                (0..=0xff).map(move |imm| [prefix, &[modrm, imm][..]].concat())
            })
        });
        let mut made = 0;
        for bytes in forms {
            let full = unit.is_full();
            let number = template(&mut unit, &bytes).number;
            assert_eq!(number == TemplateRef::NONE, full);
            if full {
                break;
            }
            made += 1;
        }
        assert_eq!(made, SLOTS);
        unit.clear();
        assert!(!unit.is_full());
        assert_eq!(template(&mut unit, &[0xd9, 0xe8]).number, 0);
    }
}
