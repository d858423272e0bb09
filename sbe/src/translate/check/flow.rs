//! [`Disassembly`]: emitted code as instructions, in an order in which each comes behind all that lead to it.

use super::rule::{Rule, Violation};
use hashbrown::HashMap;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

/// The successors of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next instruction.
    Next,
    /// The instruction at this arena offset.
    Jump(u32),
    /// The instruction at this offset or the next, depending on the flags.
    Branch(u32),
    /// The instruction at this offset if RCX is zero, else the next.
    BranchIfZero(u32),
    /// The code at this offset and, when it returns, the next instruction.
    Call(u32),
    /// The code at the address on the stack.
    Return,
    /// The code at the address in a register.
    Indirect,
}

impl Flow {
    /// The successors of `instruction`.
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

    fn falls_through(self) -> bool {
        !matches!(self, Self::Jump(_) | Self::Return | Self::Indirect)
    }
}

/// The instructions of both sections of a fragment.
pub struct Disassembly {
    /// The instructions, hot ones first.
    pub instructions: Vec<Instruction>,
    /// Numbers of instructions by arena offset.
    numbers: HashMap<u32, usize>,
    /// Number of the first cold one.
    cold: usize,
}

/// The violation of `rule` by `instruction`.
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
        let next = flow.falls_through().then(|| self.next(number)).flatten();
        target.into_iter().chain(next)
    }

    /// The numbers of all instructions from `roots` on, each behind all that lead to it.
    ///
    /// # Errors
    /// A loop, or an instruction that cannot be reached.
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
