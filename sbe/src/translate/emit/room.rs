//! [`Room`]: how much host code a guest instruction may become, so that islands stay in reach (`misses`).

use super::{Home, home};
use crate::emulate::fpu::sets_pointers;
use crate::translate::classify::{Rewrite, Verdict};
use crate::translate::operands::{high_byte_operand, memory_operand};
use iced_x86::{Instruction, OpKind, Register};
use mmu::LinearWidth;

/// The most host bytes of an instruction without memory access.
const PLAIN_BYTES: usize = 24;
/// The most host bytes of one memory access.
const ACCESS_BYTES: usize = 48;
/// The most host bytes that registers in the context add to an instruction.
const HOMES_BYTES: usize = 4 * 7;
/// The most host bytes that a probe of a table for 48-bit linear addresses takes more.
const WIDE_BYTES: usize = 24;
/// The most host bytes of the note of an x87 instruction.
const NOTE_BYTES: usize = 40;
/// The most checks of an instruction that may fail.
const CHECKS: usize = 4;

// With 48-bit linear addresses:
/// The host bytes of a load or store of a register that has its place in the context.
const HOME_BYTES: usize = 4;
/// The most host bytes of a probe: LEA, RORX, PEXT, two loads, JRCXZ.
const PROBE_BYTES: usize = 8 + 6 + 6 + 4 + 4 + 2;
/// The most host bytes that the base of a segment adds to an address: two loads, JRCXZ and LEA twice.
const BASE_BYTES: usize = 7 + 7 + 2 + 5 + 5;
/// The most bytes by which an instruction on the host's registers is longer: REX, SIB, a displacement of 8 bits, ModRM.
const LONGER: usize = 4;
/// The most host bytes of moves of guest RCX to RCX and back.
const COUNTER_BYTES: usize = 6;
/// The most host bytes of PUSH or POP of a register and of RET, beside the probe.
const STACK_BYTES: usize = 20;
/// The most host bytes of LEA, and of a direct branch and its poll.
const SHORT_BYTES: usize = 24;

/// The most host code of an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of the code.
    pub(super) bytes: usize,
    /// Checks that may fail.
    pub(super) checks: usize,
}

impl Room {
    /// The room for an instruction without memory access.
    pub(super) const PLAIN: Self = Self::any(PLAIN_BYTES);
    /// The room for one more memory access within an instruction, with 48-bit linear addresses.
    pub(super) const WIDE_ACCESS: Self = Self::any(PLAIN_BYTES + ACCESS_BYTES + WIDE_BYTES);

    const fn any(bytes: usize) -> Self {
        Self {
            bytes,
            checks: CHECKS,
        }
    }

    /// The room for `raw`, classified as `verdict`, with linear addresses of this width.
    pub(super) fn of(raw: &Instruction, verdict: Verdict, width: LinearWidth) -> Self {
        let any = most_bytes(raw, verdict);
        match (width, verdict) {
            (LinearWidth::Bits32, _) => Self::any(any),
            (_, Verdict::Copy) if high_byte_operand(raw).is_none() => copied(raw),
            (_, Verdict::Rewrite(Rewrite::Push | Rewrite::Pop | Rewrite::Return))
                if memory_operand(raw).is_none() =>
            {
                Self {
                    bytes: STACK_BYTES + PROBE_BYTES,
                    checks: 1,
                }
            }
            (_, Verdict::Rewrite(Rewrite::Branch | Rewrite::Jump)) => Self {
                bytes: SHORT_BYTES,
                checks: 1,
            },
            (_, Verdict::Rewrite(Rewrite::Lea)) => Self {
                bytes: SHORT_BYTES,
                checks: 0,
            },
            _ => {
                let operand = usize::from(memory_operand(raw).is_some());
                Self::any(any + HOMES_BYTES + WIDE_BYTES * operand)
            }
        }
    }
}

/// The most host bytes that `raw` takes, without what a wide processor adds.
fn most_bytes(raw: &Instruction, verdict: Verdict) -> usize {
    let operand = usize::from(memory_operand(raw).is_some());
    let more = match verdict {
        Verdict::Rewrite(
            Rewrite::String
            | Rewrite::RepeatedString
            | Rewrite::Pushf
            | Rewrite::Popf
            | Rewrite::Call
            | Rewrite::CallIndirect,
        ) => 2,
        Verdict::Rewrite(_) => 1,
        _ => 0,
    };
    let note = match verdict {
        Verdict::CopyFpu if sets_pointers(raw) => NOTE_BYTES,
        _ => 0,
    };
    PLAIN_BYTES + ACCESS_BYTES * (operand + more) + note
}

/// The room for `raw`, which is copied, with 48-bit linear addresses.
fn copied(raw: &Instruction) -> Room {
    let in_context = |register| matches!(home(register), Some(Home::Context(_)));
    let operands = (0..raw.op_count())
        .filter(|&at| raw.op_kind(at) == OpKind::Register && in_context(raw.op_register(at)))
        .count();
    let bytes = raw.len() + LONGER + 2 * HOME_BYTES * operands;
    if memory_operand(raw).is_none() {
        return Room {
            bytes: bytes + COUNTER_BYTES,
            checks: 0,
        };
    }
    let address = [raw.memory_base(), raw.memory_index()]
        .into_iter()
        .filter(|&register| register == Register::RIP || in_context(register))
        .count();
    let based = usize::from(matches!(raw.memory_segment(), Register::FS | Register::GS));
    Room {
        bytes: bytes + HOME_BYTES * address + BASE_BYTES * based + PROBE_BYTES,
        checks: 1 + based,
    }
}
