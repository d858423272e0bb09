//! The generator: from a seed to cases.
//!
//! A case is one to sixteen units. Each takes a form of the table at random, draws bytes for it, prepares what its
//! operands need, and is appended if it consumes no undefined flag; if it does, a `cmp` goes in front, which defines all.
//! Everything follows from the seed of the campaign and the index of the batch.

use super::address;
use super::case::{Case, FS, GS, Piece, SS, State, Template, Unit, place_of_code};
use super::encode::{self, Encoded};
use super::flags::{self, AC, DF, STATUS};
use super::forms::{Row, Style, always_faults, cuts_rip, row, undefined};
use super::layout::{
    BATCH, CODE, CODE_BYTES, EXIT, EXIT_FAR, FLAT_CODE, MAX_CODE, PAGE, SANDBOX, TASK_END,
};
use super::mode::Mode;
use super::operands::{Drawn, stores_pointers};
use super::prepare::{Conflict, ESP, Known, store};
use super::segments::Segment;
use super::selectors::Selectors;
use super::transfer::Transfer;
use super::values::{self, percent, register};
use fastrand::Rng;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, Register};
use std::sync::Arc;

/// Most bytes of code of a case of 32-bit code. 64-bit code has all the room.
const MAX_CODE_32: usize = 448;
/// Most units of a case.
const MAX_UNITS: usize = 16;
/// Most bytes of the jump to the exit.
const EXIT_JUMP: usize = 8;
/// Attempts to build a unit for one form before another is drawn.
const ATTEMPTS: usize = 8;
/// The EFLAGS bits that are always set: the fixed bit and IF.
const EFLAGS_SET: u32 = 0x202;
/// Chance, in percent, that a form which ends most cases is taken when drawn: sequences should not end too early.
const ENDING_CHANCE: u32 = 15;

/// A generator of cases.
pub struct Generator {
    mode: Mode,
    forms: Vec<Code>,
    local_share: u32,
    factory: InstructionInfoFactory,
    keeps_pointers: bool,
}

/// A case under construction.
struct Sequence {
    at: u64,
    limit: usize,
    code: Vec<u8>,
    units: Vec<Unit>,
    known: Known,
    undefined: u32,
}

impl Sequence {
    /// Whether the next `length` bytes of code lie inside the code segment.
    fn is_inside_code_segment(&self, length: usize) -> bool {
        let linear = (self.at + self.code.len() as u64) as u32;
        let segment = self.known.segment(Register::CS);
        self.known.is_64()
            || segment.is_some_and(|segment| {
                segment.contains(linear.wrapping_sub(segment.base), length as u32)
            })
    }
}

impl Generator {
    /// A generator of cases of `mode` that draws from `forms`, of which there is at least one; `local_share` percent of the cases
    /// use segments of the LDT. The pointers to the last x87 instruction that FNSTENV and FNSAVE store are kept in memory, to be
    /// compared, if `keeps_pointers`.
    pub fn new(mode: Mode, forms: Vec<Code>, local_share: u32, keeps_pointers: bool) -> Self {
        Self {
            mode,
            forms,
            local_share,
            keeps_pointers,
            factory: InstructionInfoFactory::new(),
        }
    }

    /// The `index`th batch of the campaign with this seed: [`BATCH`] cases that share a template.
    pub fn batch(&mut self, seed: u64, index: u64) -> Vec<Case> {
        let mut rng = Rng::with_seed(seed);
        let mut rng = Rng::with_seed(rng.u64(..) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let template = Arc::new(values::template(self.mode, &mut rng));
        (0..BATCH).map(|_| self.case(&template, &mut rng)).collect()
    }

    fn case(&mut self, template: &Arc<Template>, rng: &mut Rng) -> Case {
        let place = place(self.mode, rng);
        let at = place + u64::from(code_address(rng));
        let local = percent(rng, self.local_share);
        let selectors = Selectors {
            mode: self.mode,
            segments: &template.segments,
            local,
        };
        let start = start_state(at, selectors, rng);
        let room = (place + u64::from(CODE + CODE_BYTES) - at) as usize;
        let most = if self.mode.is_64() {
            MAX_CODE
        } else {
            MAX_CODE_32
        };
        let mut sequence = Sequence {
            at,
            limit: most - EXIT_JUMP,
            code: Vec::new(),
            units: Vec::new(),
            known: Known {
                gpr: start.gpr.map(Some),
                segments: start.segments.map(Some),
                bases: start.bases,
                at,
                code_segment: start.cs,
                nested: false,
                template: Arc::clone(template),
                local,
            },
            undefined: 0,
        };
        let units = if percent(rng, 25) {
            1
        } else {
            rng.usize(1..=MAX_UNITS)
        };
        for _ in 0..units {
            self.append_unit(&mut sequence, rng);
        }
        let Sequence {
            mut code,
            mut units,
            known,
            ..
        } = sequence;
        let end = at + code.len() as u64;
        code.extend(exit_jump(local, template, known.code_segment, end));
        // Code at the end of the second page is cut there: the last instruction runs into an unmapped page.
        code.truncate(room);
        units.retain(|unit| unit.at < room);
        if let Some(cut) = units.pop_if(|unit| unit.at + unit.len >= room && !can_be_cut(unit.form))
        {
            code.truncate(cut.at);
        }
        Case {
            start,
            at,
            code,
            units,
            last_code_segment: known.code_segment,
            template: Arc::clone(template),
        }
    }

    fn append_unit(&mut self, sequence: &mut Sequence, rng: &mut Rng) {
        if rng.u32(0..200) == 0 {
            let undefined = undefined(self.mode);
            let bytes = undefined[rng.usize(..undefined.len())];
            self.try_append(sequence, &[], bytes, 0, Code::INVALID);
            return;
        }
        let form = self.forms[rng.usize(..self.forms.len())];
        let ends = always_faults(form)
            || cuts_rip(form, self.mode) && sequence.known.code_segment == self.mode.flat_code();
        if ends && !percent(rng, ENDING_CHANCE) {
            return self.append_unit(sequence, rng);
        }
        for _ in 0..ATTEMPTS {
            let encoded = if percent(rng, 10) {
                encode::noise(sequence.known.bits(), rng)
            } else {
                encode::random(form, sequence.known.bits(), rng)
            };
            if encoded.is_some_and(|encoded| self.unit(sequence, encoded, rng).is_ok()) {
                return;
            }
        }
    }

    /// Appends a unit for `encoded`.
    fn unit(
        &mut self,
        sequence: &mut Sequence,
        encoded: Encoded,
        rng: &mut Rng,
    ) -> Result<(), Conflict> {
        let form = encoded.instruction.code();
        let Some(Row::Generated(style)) = row(form, self.mode) else {
            return Err(Conflict);
        };
        if self.mode.is_64() && has_shortened_branch(&encoded.instruction, &encoded.bytes) {
            return Err(Conflict);
        }
        let drawn = Drawn::new(encoded, self.keeps_pointers);
        let transfer = match style {
            Style::Plain => {
                let mut drawn = drawn;
                drawn.choose(&sequence.known, rng)?;
                Transfer {
                    drawn,
                    before: Vec::new(),
                    direct_far: false,
                    code_segment: None,
                }
            }
            Style::Relative => Transfer::relative(drawn, &sequence.known, rng)?,
            Style::Transfer => Transfer::other(drawn, &sequence.known, rng)?,
        };
        // Once as it is; if it consumes an undefined flag, once more with an instruction in front that defines all.
        let define = [0x39, 0xc0 | rng.u8(..)];
        for front in [&[][..], &define] {
            if self.assemble(sequence, transfer.clone(), front, form) {
                return Ok(());
            }
        }
        Err(Conflict)
    }

    fn assemble(
        &mut self,
        sequence: &mut Sequence,
        transfer: Transfer,
        front: &[u8],
        form: Code,
    ) -> bool {
        let Transfer {
            mut drawn,
            before,
            direct_far,
            code_segment,
        } = transfer;
        let start = sequence.at + (sequence.code.len() + front.len()) as u64;
        let Ok(needs) = drawn.needs.encode(&sequence.known, 0, start) else {
            return false;
        };
        let behind = start + (needs.len() + before.len() + drawn.encoded.bytes.len()) as u64;
        let target = behind + drawn.after.len() as u64;
        if drawn.set_relative(behind).is_err() {
            return false;
        }
        if let Some(selector) = code_segment.filter(|_| direct_far) {
            let (at, size) = (
                drawn.encoded.offsets.immediate_offset(),
                drawn.encoded.offsets.immediate_size(),
            );
            let offset = sequence.known.target_in(selector).resolve(target);
            drawn.encoded.patch(at, size, offset);
            drawn.encoded.patch(
                drawn.encoded.offsets.immediate_offset2(),
                2,
                selector.into(),
            );
        }
        let Ok(needs) = drawn.needs.encode(&sequence.known, target, start) else {
            return false;
        };
        let mut bytes = front.to_vec();
        bytes.extend(needs);
        bytes.extend(before);
        let main = bytes.len();
        bytes.extend(&drawn.encoded.bytes);
        bytes.extend(&drawn.after);
        for word in drawn.wiped {
            let at = sequence.at + (sequence.code.len() + bytes.len()) as u64;
            let Ok(wiping) = store(&sequence.known, word, &[0; 2], at) else {
                return false;
            };
            bytes.extend(wiping);
        }
        if !self.try_append(sequence, &bytes, &[], main, form) {
            return false;
        }
        if let Some((index, selector)) = drawn.segment_load {
            sequence.known.load_segment(index, selector);
        }
        if let Some(stack) = drawn.loaded_stack {
            sequence.known.gpr[ESP] = Some(stack);
        }
        if let Some(nested) = drawn.nested {
            sequence.known.nested = nested;
        }
        let segment_of = |&selector: &u16| sequence.known.template.segments.segment(selector);
        let entered = code_segment.filter(|selector| {
            // Other selectors fault, which ends the case.
            segment_of(selector).is_some_and(|segment| segment.is_code())
        });
        if let Some(selector) = entered {
            sequence.known.code_segment = selector;
        }
        true
    }

    /// Appends the bytes of a unit, whose main instruction is at `main`, unless they do not fit or consume a flag that is
    /// undefined.
    fn try_append(
        &mut self,
        sequence: &mut Sequence,
        prepared: &[u8],
        rest: &[u8],
        main: usize,
        form: Code,
    ) -> bool {
        let bytes = [prepared, rest].concat();
        if sequence.code.len() + bytes.len() > sequence.limit {
            return false;
        }
        let at = sequence.code.len();
        if stores_pointers(form).is_some() && !sequence.is_inside_code_segment(bytes.len()) {
            return false;
        }
        let piece = Piece {
            at: at as u32,
            bits: sequence.known.bits(),
            bytes: &bytes,
        };
        let Ok(undefined) = flags::undefined(&[piece], sequence.undefined) else {
            return false;
        };
        let end = (at + bytes.len()) as u32;
        sequence.undefined = undefined.get(&end).copied().unwrap_or(0);
        for instruction in piece.instructions() {
            sequence.known.execute(&instruction, &mut self.factory);
        }
        sequence.units.push(Unit {
            at,
            main: at + main,
            len: bytes.len(),
            code_segment: sequence.known.code_segment,
            form,
        });
        sequence.code.extend(bytes);
        true
    }
}

/// The jump at the end of a case, at the linear address `at` in the code segment `code_segment`. Cases that use the LDT leave it
/// by a far JMP.
pub fn exit_jump(local: bool, template: &Template, code_segment: u16, at: u64) -> Vec<u8> {
    /// Bytes of a near JMP.
    const NEAR: u64 = 5;
    let mode = template.mode;
    if !local || mode.is_64() {
        let exit = mode.places()[place_of_code(mode, at)] + u64::from(EXIT);
        let mut bytes = vec![0xe9];
        bytes.extend((exit.wrapping_sub(at + NEAR) as u32).to_le_bytes());
        return bytes;
    }
    let is_16 = template
        .segments
        .segment(code_segment)
        .is_some_and(|segment| !segment.big);
    let mut bytes = if is_16 { vec![0x66] } else { Vec::new() };
    bytes.push(0xea);
    bytes.extend(EXIT_FAR.to_le_bytes());
    bytes.extend(FLAT_CODE.to_le_bytes());
    bytes
}

/// Whether a unit may run into the unmapped page behind the code. What wipes the pointers that FXSAVE and its kin store must
/// not be lost, and to AMD processors UD1 has no ModRM byte, so it ends earlier.
fn can_be_cut(form: Code) -> bool {
    form.mnemonic() != Mnemonic::Ud1 && stores_pointers(form).is_none()
}

/// Whether the instruction is a near branch with an operand-size prefix: Intel's processors ignore it in 64-bit mode, AMD's cut
/// RIP.
fn has_shortened_branch(instruction: &Instruction, bytes: &[u8]) -> bool {
    let is_near = instruction.is_jmp_short_or_near()
        || instruction.is_jmp_near_indirect()
        || instruction.is_call_near()
        || instruction.is_call_near_indirect()
        || instruction.is_jcc_short_or_near()
        || instruction.is_jcx_short()
        || instruction.is_loop()
        || instruction.is_loopcc()
        || instruction.mnemonic() == Mnemonic::Ret;
    is_near && bytes.contains(&0x66)
}

/// Draws the place of a case.
fn place(mode: Mode, rng: &mut Rng) -> u64 {
    match mode.places() {
        [only] => *only,
        places => places[rng.usize(..places.len())],
    }
}

/// Draws the address of a case's code in its place: mostly at the start of the first page, sometimes across the page boundary, or
/// at the end of the second page.
fn code_address(rng: &mut Rng) -> u32 {
    match rng.u32(0..20) {
        0..=16 => CODE + rng.u32(0..0x100),
        17 | 18 => CODE + PAGE - rng.u32(1..0x80),
        _ => CODE + CODE_BYTES - rng.u32(1..0x80),
    }
}

/// Any status flags. Translated repetitions run with DF clear only, so that is more common.
fn start_flags(rng: &mut Rng) -> u32 {
    let direction = if percent(rng, 25) { DF } else { 0 };
    let alignment = if percent(rng, 2) { AC } else { 0 };
    EFLAGS_SET | rng.u32(..) & STATUS | direction | alignment
}

/// Draws the base of FS or GS, which holds null: zero, near a sandbox, or anywhere in the lower half of the canonical addresses.
fn base(mode: Mode, rng: &mut Rng) -> u64 {
    match rng.u32(0..4) {
        0 => 0,
        1 | 2 => {
            let sandbox = place(mode, rng) + u64::from(SANDBOX);
            sandbox - u64::from(rng.u32(0..0x1000_0000) & !0xf)
        }
        _ => rng.u64(..TASK_END),
    }
}

fn start_state(at: u64, selectors: Selectors<'_>, rng: &mut Rng) -> State {
    let mode = selectors.mode;
    let reaches = |segment: &Segment| {
        let offset = (at as u32).wrapping_sub(segment.base);
        segment.contains(offset, 1) && (segment.big || offset + MAX_CODE_32 as u32 <= 0x1_0000)
    };
    let cs = selectors.initial_code(rng, reaches);
    let code_base = selectors
        .segments
        .segment(cs)
        .map_or(0, |segment| segment.base);
    let segments = selectors.initial(rng);
    let mut gpr = [0; 16];
    gpr[..mode.registers()].fill_with(|| register(mode.bits(), rng));
    gpr[ESP] = address::stack(mode.places(), rng);
    let stack = selectors.segments.segment(segments[SS]);
    if let Some(stack) = stack.filter(|_| !mode.is_64()) {
        let noise = if stack.big { 0 } else { rng.u32(..) & !0xffff };
        gpr[ESP] = u64::from(noise | (gpr[ESP] as u32).wrapping_sub(stack.base));
    }
    let bases = [FS, GS].map(|index| match segments[index] {
        _ if !mode.is_64() => 0,
        0 => base(mode, rng),
        selector => selectors
            .segments
            .segment(selector)
            .map_or(0, |segment| segment.base.into()),
    });
    let rip = match mode.is_64() {
        true => at,
        false => (at as u32).wrapping_sub(code_base).into(),
    };
    State {
        gpr,
        cs,
        rip,
        eflags: start_flags(rng),
        segments,
        bases,
        fx: values::fx_state(mode, rng),
    }
}
