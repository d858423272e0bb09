//! Instructions that are allowed behind tests of their operands only: DIV, IDIV and FLDCW.

use super::super::registers::{RAX, RDX};
use super::super::rule::Rule;
use super::super::state::State;
use super::super::value::{Node, Shift};
use super::{Stepper, number};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// The position of a doubleword's sign.
const DOUBLEWORD_SIGN: u8 = 31;
/// The position of a quadword's sign.
const QUADWORD_SIGN: u8 = 63;
/// The count of a shift left that leaves bits 5:0, the exception masks of the x87 control word.
const ABOVE_MASKS: u8 = 26;

impl Stepper {
    /// Checks DIV or IDIV of EDX:EAX or RDX:RAX: the quotient has to be proven to fit.
    pub(super) fn divide(&mut self, state: &State, instruction: &Instruction) -> Result<(), Rule> {
        if instruction.op0_kind() != OpKind::Register {
            return Err(Rule::Division);
        }
        let divisor = instruction.op0_register();
        let operands = [number(divisor), RAX, RDX].map(|number| state.registers[number]);
        let (is_quad, sign_bit) = match instruction.code() {
            Code::Div_rm32 | Code::Idiv_rm32 => (false, DOUBLEWORD_SIGN),
            Code::Div_rm64 | Code::Idiv_rm64 => (true, QUADWORD_SIGN),
            _ => return Err(Rule::Division),
        };
        let [divisor, low, high] = match is_quad {
            true => operands,
            false => operands.map(|value| self.values.low32(value)),
        };
        let fits = match (instruction.mnemonic(), is_quad) {
            (Mnemonic::Div, true) => state.knows(high, true) && state.knows(divisor, false),
            (Mnemonic::Div, false) => {
                let difference = self.values.subtract(high, divisor);
                let below = self.values.shift(Shift::Right, difference, QUADWORD_SIGN);
                state.knows(below, false)
            }
            _ => {
                let shift = match is_quad {
                    true => Shift::Signed64,
                    false => Shift::Signed32,
                };
                let sign = self.values.shift(shift, low, sign_bit);
                let extension = self.values.subtract(high, sign);
                let more = match is_quad {
                    true => divisor.plus(1),
                    false => self.values.low32(divisor.plus(1)),
                };
                state.knows(extension, true)
                    && state.knows(divisor, false)
                    && state.knows(more, false)
            }
        };
        fits.then_some(()).ok_or(Rule::Division)
    }

    /// Checks FLDCW: the low bits of the word have to be proven to be all ones.
    pub(super) fn load_control_word(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), Rule> {
        if !state.fpu {
            return Err(Rule::Fpu);
        }
        let (operand, _) = self
            .operand(state, instruction, false)?
            .ok_or(Rule::ControlWord)?;
        let word = self.values.of(Node::Loaded {
            address: operand.address,
            bytes: 2,
            version: state.version,
        });
        let inverted = self.values.not(word);
        let clear = self.values.shift(Shift::Left32, inverted, ABOVE_MASKS);
        state
            .knows(clear, true)
            .then_some(())
            .ok_or(Rule::ControlWord)
    }
}
