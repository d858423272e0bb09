//! What holds for every outcome of 64-bit code, whoever ran it: a check of the harness and of the real CPU that needs no other
//! engine.
//!
//! * Registers that no instruction of the case writes keep their values.
//! * A 32-bit result leaves zeros in the upper half of its register, one of 8 or 16 bits leaves the rest alone (SDM Vol. 1, 3.4.1.1
//!   "General-Purpose Registers in 64-Bit Mode").
//! * A page fault has a canonical address, and #AC an error code of zero.
//! * A case that goes through ends at the exit of its place, in 64-bit mode.

use super::case::{Case, Exception, Outcome, PAGE_FAULT};
use super::compare::register_names;
use super::forms::{Row, Style, row};
use super::layout::EXIT;
use super::prepare::gpr_index;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};

/// The part of a register that instructions wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Nothing.
    Nothing,
    /// 8 or 16 bits at most.
    Part,
    /// 32 bits by the last of them.
    Half,
    /// Any of it.
    Any,
}

/// Describes what in the outcome of a case of 64-bit code cannot be.
pub fn violations(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    check_exception(outcome.exception.as_ref(), &mut found);
    if outcome.exception.is_none() {
        let exit = case.mode().places()[case.place()] + u64::from(EXIT);
        let (rip, cs) = (outcome.end.rip, outcome.end.cs);
        if (rip, cs) != (exit, case.mode().flat_code()) {
            found.push(format!("it ended at {cs:04x}:{rip:x}"));
        }
    }
    check_registers(case, outcome, &mut found);
    found
}

fn check_exception(exception: Option<&Exception>, found: &mut Vec<String>) {
    /// Vector of #AC.
    const ALIGNMENT: u8 = 17;
    let Some(exception) = exception else {
        return;
    };
    let address = exception.address as i64;
    if exception.vector == PAGE_FAULT && address << 16 >> 16 != address {
        found.push(format!("a page fault at {address:x}"));
    }
    if exception.vector == ALIGNMENT && exception.error != 0 {
        found.push(format!("#AC with an error code of {:x}", exception.error));
    }
}

/// Checks the general registers. Where control branches, or the case ends early, the last write is not known.
fn check_registers(case: &Case, outcome: &Outcome, found: &mut Vec<String>) {
    let is_plain = |form| row(form, case.mode()) == Some(Row::Generated(Style::Plain));
    let is_straight =
        outcome.exception.is_none() && case.units.iter().all(|unit| is_plain(unit.form));
    let written = written(case);
    for (index, name) in register_names(case.mode()).iter().enumerate() {
        let (start, end) = (case.start.gpr[index], outcome.end.gpr[index]);
        let is_right = match written[index] {
            Written::Nothing => start == end,
            Written::Part => start >> 16 == end >> 16,
            Written::Half => !is_straight || end >> 32 == 0,
            Written::Any => true,
        };
        if !is_right {
            let written = written[index];
            found.push(format!(
                "{name}: {start:x}, then {end:x}; written: {written:?}"
            ));
        }
    }
}

/// The parts of the general registers that the instructions of the case write.
fn written(case: &Case) -> [Written; 16] {
    let mut factory = InstructionInfoFactory::new();
    let mut all = [Written::Nothing; 16];
    for piece in case.pieces() {
        for instruction in piece.instructions() {
            let info = factory.info(&instruction);
            for used in info.used_registers() {
                let is_written = !matches!(
                    used.access(),
                    OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                );
                if let Some(index) = gpr_index(used.register()).filter(|_| is_written) {
                    let accesses = [info.op0_access(), info.op1_access()];
                    all[index] = match (all[index], explicit(&instruction, accesses, index)) {
                        (Written::Nothing | Written::Part, Written::Part) => Written::Part,
                        (before, Written::Part) => before,
                        (_, now) => now,
                    };
                }
            }
        }
    }
    all
}

/// The part of register `index` that an instruction writes by its operands; `Any` if it may do so in another way, too.
fn explicit(instruction: &Instruction, accesses: [OpAccess; 2], index: usize) -> Written {
    // These may leave their destination as it was.
    let is_conditional = matches!(
        instruction.mnemonic(),
        Mnemonic::Bsf | Mnemonic::Bsr | Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Cmpxchg
    );
    let is_simple = !is_conditional && !instruction.is_string_instruction();
    let sizes = (0u32..).zip(accesses).filter_map(|(operand, access)| {
        let is_register = operand < instruction.op_count()
            && instruction.op_kind(operand) == OpKind::Register
            && gpr_index(instruction.op_register(operand)) == Some(index);
        let is_written = matches!(access, OpAccess::Write | OpAccess::ReadWrite);
        (is_register && is_written).then(|| instruction.op_register(operand).size())
    });
    match sizes.max().filter(|_| is_simple) {
        Some(1 | 2) => Written::Part,
        Some(4) => Written::Half,
        _ => Written::Any,
    }
}
