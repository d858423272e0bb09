//! [`Disassembly`]: emitted code as instructions, and the order in which every one comes behind all that lead to it.

use super::rule::{Rule, Violation};
use hashbrown::HashMap;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

/// How an instruction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next.
    Next,
    /// At this arena offset.
    Jump(u32),
    /// At this one or with the next, by the flags.
    Branch(u32),
    /// At this one if RCX is zero, else with the next.
    BranchIfZero(u32),
    /// At this one, and behind a return with the next.
    Call(u32),
    /// Where the stack says.
    Return,
    /// Where a register says.
    Indirect,
}

impl Flow {
    /// How `instruction` goes on.
    pub fn of(instruction: &Instruction) -> Self {
        use Code::*;
        let target = instruction.near_branch_target() as u32;
        match instruction.code() {
            Jmp_rel8_64 | Jmp_rel32_64 => Self::Jump(target),
            Jrcxz_rel8_64 => Self::BranchIfZero(target),
            Call_rel32_64 => Self::Call(target),
            Retnq => Self::Return,
            Jmp_rm64 => Self::Indirect,
            _ if instruction.is_jcc_short_or_near() => Self::Branch(target),
            _ => Self::Next,
        }
    }

    fn target(self) -> Option<u32> {
        match self {
            Self::Jump(target)
            | Self::Branch(target)
            | Self::BranchIfZero(target)
            | Self::Call(target) => Some(target),
            Self::Next | Self::Return | Self::Indirect => None,
        }
    }

    fn goes_on(self) -> bool {
        !matches!(self, Self::Jump(_) | Self::Return | Self::Indirect)
    }
}

/// Instructions of two sections.
pub struct Disassembly {
    /// They, hot ones first.
    pub instructions: Vec<Instruction>,
    /// Their numbers by arena offset.
    numbers: HashMap<u32, usize>,
    /// Number of the first cold one.
    cold: usize,
}

/// `instruction` as what breaks `rule`.
pub fn violation(instruction: &Instruction, rule: Rule) -> Violation {
    Violation {
        offset: instruction.ip() as u32,
        instruction: instruction.to_string(),
        rule,
    }
}

impl Disassembly {
    /// Decodes two sections that lie at the arena offsets `origins`.
    ///
    /// # Errors
    /// Bytes that are no instruction.
    pub fn decode(code: [&[u8]; 2], origins: [u32; 2]) -> Result<Self, Violation> {
        let mut disassembly = Self {
            instructions: Vec::new(),
            numbers: HashMap::new(),
            cold: 0,
        };
        for (bytes, origin) in code.into_iter().zip(origins) {
            disassembly.cold = disassembly.instructions.len();
            let mut decoder = Decoder::with_ip(64, bytes, origin.into(), DecoderOptions::NONE);
            while decoder.can_decode() {
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    return Err(violation(&instruction, Rule::Undecodable));
                }
                let number = disassembly.instructions.len();
                disassembly.numbers.insert(instruction.ip() as u32, number);
                disassembly.instructions.push(instruction);
            }
        }
        Ok(disassembly)
    }

    /// The number of the instruction at an arena offset.
    pub fn number(&self, offset: u32) -> Option<usize> {
        self.numbers.get(&offset).copied()
    }

    /// The number of the instruction behind instruction `number`.
    pub fn next(&self, number: usize) -> Option<usize> {
        let next = number + 1;
        (next != self.cold && next < self.instructions.len()).then_some(next)
    }

    fn successors(&self, number: usize) -> impl Iterator<Item = usize> {
        let flow = Flow::of(&self.instructions[number]);
        let target = flow.target().and_then(|target| self.number(target));
        let next = flow.goes_on().then(|| self.next(number)).flatten();
        target.into_iter().chain(next)
    }

    /// All instructions from `roots` on, each behind all that lead to it.
    ///
    /// # Errors
    /// When there is a loop, or no way to some instruction.
    pub fn order(&self, roots: &[usize]) -> Result<Vec<usize>, Violation> {
        let count = self.instructions.len();
        let (mut begun, mut done) = (vec![false; count], vec![false; count]);
        let mut order = Vec::with_capacity(count);
        for &root in roots {
            let mut open = vec![root];
            while let Some(&number) = open.last() {
                if done[number] {
                    open.pop();
                } else if begun[number] {
                    done[number] = true;
                    order.push(number);
                    open.pop();
                } else {
                    begun[number] = true;
                    for next in self.successors(number) {
                        if begun[next] && !done[next] {
                            return Err(violation(&self.instructions[number], Rule::Loop));
                        }
                        open.push(next);
                    }
                }
            }
        }
        order.reverse();
        match (0..count).find(|&number| !done[number]) {
            Some(number) => Err(violation(&self.instructions[number], Rule::Unreachable)),
            None => Ok(order),
        }
    }
}
