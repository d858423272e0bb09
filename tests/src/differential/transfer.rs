//! Control transfers. Whatever way they go, they end up just after their unit, or fault.
//!
//! ```text
//!   prepare (push return address, point register at target …)
//!   transfer ───────────┐
//!   body, skipped       │     body of a branch that may fall through: LEA, which leaves flags alone
//!   target: next unit <─┘     body of one that cannot: INT3
//! ```
//! Forms with 16-bit operands cut EIP to 16 bits. In the flat code segment nothing is mapped there, so these end in a page
//! fault; segments of the LDT mostly lie so that nothing is lost.

use super::address;
use super::case::SS;
use super::layout::FILLER;
use super::mode::Mode;
use super::operands::{Drawn, flags_image, has_memory_operand};
use super::prepare::{Conflict, ESP, Known, Reach, Value, gpr_index, is_iret};
use super::values::percent;
use fastrand::Rng;
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind};

/// Number of ECX in encodings.
const ECX: usize = 1;

/// A drawn transfer with what its target decides.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The instruction and its demands; `after` holds the body.
    pub drawn: Drawn,
    /// Bytes of a loop body in front of the instruction.
    pub before: Vec<u8>,
    /// The target is an operand of the instruction itself: a far pointer.
    pub direct_far: bool,
    /// The selector for CS, if the transfer is far.
    pub code_segment: Option<u16>,
}

impl Transfer {
    /// Chooses operands of a [`super::forms::Style::Relative`] instruction.
    pub fn relative(mut drawn: Drawn, known: &Known, rng: &mut Rng) -> Result<Self, Conflict> {
        let instruction = drawn.encoded.instruction;
        let conditional = instruction.flow_control() == FlowControl::ConditionalBranch;
        if instruction.is_stack_instruction() {
            drawn.stack(known, rng)?;
        }
        let body = if conditional {
            flagless_body(rng)
        } else {
            skipped_body(rng)
        };
        if instruction.is_loop() || instruction.is_loopcc() {
            // A shorter address size counts in a part of the register: the rest is noise.
            let count = rng.u32(1..5);
            let noise = if percent(rng, 20) {
                5 << upper(known)
            } else {
                0
            };
            drawn
                .needs
                .set(ECX, Value::Const(u64::from(count) | noise))?;
            let address_size_prefixed = drawn.encoded.bytes.contains(&0x67);
            let falls_back = percent(rng, 50) && !body.contains(&ECX_LEA) && !address_size_prefixed;
            if falls_back && drawn.needs.value(ECX, known).is_some_and(|count| count < 5) {
                let distance = body.len() + drawn.encoded.bytes.len();
                drawn
                    .encoded
                    .set_immediate((distance as u64).wrapping_neg());
                return Ok(Self {
                    drawn,
                    before: body,
                    direct_far: false,
                    code_segment: None,
                });
            }
        } else if instruction.is_jcx_short() && percent(rng, 50) {
            let noise = u64::from(rng.u32(0..2)) << upper(known);
            drawn.needs.set(ECX, Value::Const(noise))?;
        }
        drawn.encoded.set_immediate(body.len() as u64);
        drawn.after = body;
        Ok(Self {
            drawn,
            before: Vec::new(),
            direct_far: false,
            code_segment: None,
        })
    }

    /// Chooses operands of a [`super::forms::Style::Transfer`] instruction.
    pub fn other(mut drawn: Drawn, known: &Known, rng: &mut Rng) -> Result<Self, Conflict> {
        let instruction = drawn.encoded.instruction;
        let code_segment = is_far(&instruction).then(|| known.selectors().code(rng));
        let mut direct_far = false;
        match instruction.mnemonic() {
            // The engines would return from a nested task, a 64-bit host raises #GP.
            _ if is_iret(&instruction)
                && known.nested
                && known.template.mode == Mode::Protected =>
            {
                return Err(Conflict);
            }
            Mnemonic::Ret | Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
                return_frame(&mut drawn, code_segment, known, rng)?
            }
            Mnemonic::Jmp | Mnemonic::Call => {
                direct_far = target(&mut drawn, code_segment, known, rng)?;
            }
            _ => return Err(Conflict),
        }
        if instruction.is_stack_instruction() {
            drawn.stack(known, rng)?;
        }
        drawn.after = skipped_body(rng);
        Ok(Self {
            drawn,
            before: Vec::new(),
            direct_far,
            code_segment,
        })
    }
}

/// Whether the transfer loads CS.
fn is_far(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => true,
        _ => {
            instruction.is_jmp_far()
                || instruction.is_call_far()
                || instruction.is_jmp_far_indirect()
                || instruction.is_call_far_indirect()
        }
    }
}

/// The number of the bit above those in which a shorter address size counts.
fn upper(known: &Known) -> u32 {
    if known.is_64() { 32 } else { 16 }
}

/// Bytes of each slot of the frame that RET, RETF or IRET pops.
fn slot_bytes(form: Code) -> usize {
    match form {
        Code::Retnq | Code::Retnq_imm16 | Code::Retfq | Code::Retfq_imm16 | Code::Iretq => 8,
        Code::Retnd | Code::Retnd_imm16 | Code::Retfd | Code::Retfd_imm16 | Code::Iretd => 4,
        _ => 2,
    }
}

/// Prepares the stack frame that RET, RETF and IRET pop.
fn return_frame(
    drawn: &mut Drawn,
    code_segment: Option<u16>,
    known: &Known,
    rng: &mut Rng,
) -> Result<(), Conflict> {
    let instruction = drawn.encoded.instruction;
    if drawn.encoded.offsets.has_immediate() {
        // Where a bad CS and a misaligned outer stack fault, the order is the processor's own.
        let alignment = if known.is_64() { 8 } else { 4 };
        let count = u64::from(rng.u32(0..0x10));
        drawn.encoded.set_immediate(count * alignment);
    }
    let bytes = slot_bytes(instruction.code());
    if is_iret(&instruction) {
        if known.is_64() {
            outer_stack(drawn, bytes, known, rng)?;
        }
        let flags = Value::Const(flags_image(rng).into());
        drawn.needs.push(flags, bytes);
    }
    if let Some(selector) = code_segment {
        drawn.needs.push(Value::Const(selector.into()), bytes);
    }
    let target = offset_of_target(code_segment, known, rng);
    drawn.needs.push(target, bytes);
    Ok(())
}

/// Pushes SS and RSP, which IRET in 64-bit mode loads whatever the privilege level.
fn outer_stack(
    drawn: &mut Drawn,
    bytes: usize,
    known: &Known,
    rng: &mut Rng,
) -> Result<(), Conflict> {
    let selector = known.selectors().stack(rng);
    let reach = if bytes == 8 { Reach::Any } else { Reach::Low };
    let stack = match reach == Reach::Any && percent(rng, 5) {
        true => address::strange(known.places(reach, rng), 8, rng),
        false => address::stack(known.places(reach, rng), rng),
    };
    let kept = u64::MAX >> (64 - 8 * bytes);
    drawn.needs.push(Value::Const(selector.into()), bytes);
    drawn.needs.push(Value::Const(stack & kept), bytes);
    drawn.segment_load = Some((SS, selector));
    drawn.loaded_stack = Some(stack & kept);
    Ok(())
}

/// The place after the unit as an offset in the code segment in which execution goes on. Of 64-bit targets few lie where no code
/// can be.
fn offset_of_target(code_segment: Option<u16>, known: &Known, rng: &mut Rng) -> Value {
    if known.is_64() && percent(rng, 3) {
        // Cut to 32 bits, the alias of a lower address would lead back to the start of the case.
        let has_alias = known.at > u32::MAX.into();
        return Value::Const(match has_alias && percent(rng, 50) {
            true => address::alias(known.at, rng),
            false => address::strange(known.places(Reach::Any, rng), 1, rng),
        });
    }
    code_segment.map_or_else(|| known.target(), |selector| known.target_in(selector))
}

/// Prepares the target of an indirect or far JMP or CALL. Returns whether it is a far pointer in the instruction.
fn target(
    drawn: &mut Drawn,
    code_segment: Option<u16>,
    known: &Known,
    rng: &mut Rng,
) -> Result<bool, Conflict> {
    let offset = offset_of_target(code_segment, known, rng);
    let instruction = drawn.encoded.instruction;
    match instruction.code() {
        Code::Jmp_ptr1616 | Code::Jmp_ptr1632 | Code::Call_ptr1616 | Code::Call_ptr1632 => {
            return Ok(true);
        }
        _ => {}
    }
    if instruction.op0_kind() == OpKind::Register {
        let register =
            gpr_index(instruction.op0_register()).expect("targets come in general registers");
        if register == ESP {
            return Err(Conflict);
        }
        drawn.needs.set(register, offset)?;
    }
    if !has_memory_operand(&instruction) {
        return Ok(false);
    }
    let size = instruction.memory_size().size() as u32;
    let at = known.inside(instruction.memory_segment(), size, rng, |rng| {
        known.any_address(drawn.reach(known).stored(), size, rng)
    });
    let selector = u64::from(code_segment.unwrap_or(0));
    match instruction.code() {
        Code::Jmp_m1632 | Code::Call_m1632 => {
            drawn.needs.store(at, offset);
            drawn.store(at, 4, selector as u32);
        }
        Code::Jmp_m1616 | Code::Call_m1616 => {
            // The selector overwrites the upper half of the offset.
            drawn.needs.store(at, offset);
            drawn.store(at, 2, selector as u32);
        }
        Code::Jmp_rm64 | Code::Call_rm64 => drawn.needs.store_wide(at, offset),
        _ => drawn.needs.store(at, offset),
    }
    drawn.place(at, known, rng)?;
    Ok(false)
}

/// Second byte of [`flagless_body`] for ECX.
const ECX_LEA: u8 = 0x49;

/// `lea r32, [r32 + disp8]` for one of the first four registers; never more than one.
fn flagless_body(rng: &mut Rng) -> Vec<u8> {
    // ModRM of mod 1 with the same register twice: 0x40, 0x49, 0x52, 0x5b.
    let register = rng.u8(0..4);
    vec![0x8d, 0x40 | register << 3 | register, rng.u8(..)]
}

/// Bytes that are not executed unless something is wrong.
fn skipped_body(rng: &mut Rng) -> Vec<u8> {
    vec![FILLER; rng.usize(0..3)]
}
