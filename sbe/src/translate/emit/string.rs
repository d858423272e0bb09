//! String instructions. With a repeat prefix they run upwards only: where DF is set, the emulator executes them.

use super::memory::Probed;
use super::misses::Cause;
use super::transfer::{EQUAL, NOT_EQUAL};
use super::{Emitted, Emitter, PAGE, Result};
use crate::cpu::eflags::DF;
use crate::translate::asm::*;
use crate::translate::context::field;
use crate::translate::operands::{HostOperand, point_at};
use crate::translate::sequences::context;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register, RepPrefixKind};

impl Emitter {
    /// Emits a check that DF is clear, where that is not known; else the emulator executes `raw`.
    fn check_upward(&mut self, raw: &Instruction) {
        if self.upward {
            return;
        }
        let clear = self.asm.label();
        let set = self.refused(raw);
        self.asm.load32(RCX, context(field::DIRECTION_FLAG));
        self.asm.jrcxz(clear);
        self.asm.jmp(set);
        self.asm.bind(clear);
        self.upward = true;
    }

    /// Emits LODS, STOS, SCAS or MOVS without a repeat prefix.
    pub(super) fn string(&mut self, raw: &Instruction) -> Result<Emitted> {
        let size = raw.memory_size().size() as u32;
        let scans = is_scan(raw);
        let reads_source = has_source(raw);
        let has_destination = has_destination(raw);
        if reads_source && has_destination {
            let source = self.probe(raw, RSI, size, false);
            self.load(size, source);
            let target = self.keeping(R9, |emitter| emitter.probe(raw, RDI, size, true));
            self.store(size, target, R9);
        } else if reads_source {
            let source = self.probe(raw, RSI, size, false);
            self.on_accumulator(size, LODS, source.operand())?;
        } else {
            let target = self.probe(raw, RDI, size, !scans);
            if scans {
                self.on_accumulator(size, SCAS, target.operand())?;
            } else {
                self.store(size, target, RAX);
            }
        }
        let source = reads_source.then_some(RSI);
        let destination = has_destination.then_some(RDI);
        self.advance(size, [source, destination].into_iter().flatten());
        Ok(Emitted::Inline)
    }

    /// Emits the advance of pointers by an element of `size` bytes: upwards, or downwards if DF is set.
    fn advance(&mut self, size: u32, pointers: impl Iterator<Item = Reg>) {
        let step = size as i32;
        if self.upward {
            pointers.for_each(|pointer| self.lea(pointer, at(pointer, step)));
            return;
        }
        // Twice the size if DF is set, else 0; and that inverted.
        let twice = (2 * size).trailing_zeros();
        self.asm.load32(RCX, context(field::DIRECTION_FLAG));
        self.asm.mov_imm32(R9, DF.trailing_zeros() - twice);
        self.asm.shrx32(RCX, RCX, R9);
        self.asm.not64(RCX);
        pointers.for_each(|pointer| self.lea(pointer, indexed(pointer, RCX, 0, step + 1)));
    }

    /// Emits MOVS, STOS, CMPS or SCAS with a repeat prefix, on the host's memory. Elements that all lie in one page, at ESI and at
    /// EDI, are done at once; else first those up to the end of the page, then the others. Elements beyond the next page are left
    /// to the emulator, and so is one that lies in two pages. SCAS, which often has no bound but the element that it looks for,
    /// goes page by page.
    pub(super) fn repeated_string(&mut self, raw: &Instruction) -> Result<Emitted> {
        self.check_upward(raw);
        if is_scan(raw) {
            return self.scan(raw);
        }
        let done = self.asm.label();
        self.unless_count_is_zero(done);
        let crosses = [self.asm.label(), self.asm.label()];
        self.repeat(raw, R11, crosses)?;
        self.asm.bind(done);
        self.asm.switch_to(Section::Cold);
        self.repeat_split(raw, crosses, done)?;
        self.begin_instruction(None);
        self.asm.switch_to(Section::Hot);
        Ok(Emitted::Inline)
    }

    /// Emits a jump to `done` if ECX is 0.
    fn unless_count_is_zero(&mut self, done: Label) {
        let (none, some) = (self.asm.label(), self.asm.label());
        self.mov(RCX, R11);
        self.asm.jrcxz(none);
        self.asm.jmp_short(some);
        self.asm.bind(none);
        self.asm.jmp(done);
        self.asm.bind(some);
    }

    /// Emits the case that the elements at RSI, or at RDI, lie in two pages: those of the first page, then the others.
    fn repeat_split(&mut self, raw: &Instruction, crosses: [Label; 2], done: Label) -> Result<()> {
        let log = (raw.memory_size().size() as u32).trailing_zeros();
        let first = self.asm.label();
        if has_source(raw) {
            self.asm.bind(crosses[0]);
            self.asm.mov64(R9, RSI);
            self.asm.jmp_short(first);
        }
        self.asm.bind(crosses[1]);
        self.asm.mov64(R9, RDI);
        self.asm.bind(first);
        self.begin_rest(raw);
        self.rest_of_page(raw, log);
        self.islands(true);
        let refused = self.refused(raw);
        self.repeat(raw, R10, [refused; 2])?;
        if compares(raw) {
            self.asm.jcc(end_condition(raw), done);
        }
        // What is left can begin anew.
        self.begin_instruction(Some(raw.ip32() as u16));
        self.repeat(raw, R11, [refused; 2])?;
        self.asm.jmp(done);
        Ok(())
    }

    /// Emits up to `count` repetitions of `raw`, R11 or fewer in R10, which count R11 down. If they may touch more than one page at
    /// RSI or RDI, nothing is done and control goes to the label for that pointer.
    fn repeat(&mut self, raw: &Instruction, count: Reg, crosses: [Label; 2]) -> Result<()> {
        let (source, destination) = ((RSI, crosses[0]), (RDI, crosses[1]));
        // Of CMPS the destination faults first, as in the emulator.
        let (before, (last, last_crosses)) = match (has_source(raw), compares(raw)) {
            (false, _) => (None, destination),
            (true, false) => (Some(source), destination),
            (true, true) => (Some(destination), source),
        };
        if let Some((pointer, crosses)) = before {
            self.range(raw, pointer, count, crosses);
            self.asm.store64(context(field::SCRATCH), R8);
            self.islands(true);
        }
        self.range(raw, last, count, last_crosses);
        self.guest_minus_host(R9, last);
        self.asm.mov64(last, R8);
        self.asm.mov32(RCX, count);
        if count != R11 {
            self.asm.mov64(R8, RCX);
            self.asm.not64(R8);
            self.lea(R11, indexed(R11, R8, 0, 1));
        }
        if let Some((pointer, _)) = before {
            self.asm.load64(R8, context(field::SCRATCH));
            self.guest_minus_host(R10, pointer);
            self.asm.mov64(pointer, R8);
        }
        self.asm.guest(&on_host(raw)?)?;
        self.lea(last, indexed(last, R9, 0, 0));
        if let Some((pointer, _)) = before {
            self.lea(pointer, indexed(pointer, R10, 0, 0));
        }
        if count == R11 {
            self.asm.mov32(R11, RCX);
        } else {
            self.lea(R11, indexed(R11, RCX, 0, 0));
        }
        self.islands(true);
        Ok(())
    }

    /// Emits SCAS with a repeat prefix, as far as the page of EDI extends:
    ///
    /// ```text
    ///   r10 = minimum of ecx and the elements from edi to the end of the page; none: emulate
    ///   r8 = host address of edi ; repeat on the host's memory, r10 times
    ///   ecx -= r10 - elements left ; edi = behind the last one
    ///   if it has not found its element, and ecx is not 0: once more from the start
    /// ```
    fn scan(&mut self, raw: &Instruction) -> Result<Emitted> {
        let log = (raw.memory_size().size() as u32).trailing_zeros();
        let (done, more) = (self.asm.label(), self.asm.label());
        self.unless_count_is_zero(done);
        self.elements_in_page(raw, log);
        let refused = self.refused(raw);
        self.range(raw, RDI, R10, refused);
        self.islands(true);
        self.guest_minus_host(R9, RDI);
        self.asm.mov64(RDI, R8);
        self.asm.mov32(RCX, R10);
        self.asm.guest(&on_host(raw)?)?;
        self.lea(RDI, indexed(RDI, R9, 0, 0));
        // ECX less what was scanned: r11 - r10 + rcx.
        self.asm.not64(R10);
        self.lea(R11, indexed(R11, R10, 0, 1));
        self.lea(R11, indexed(R11, RCX, 0, 0));
        self.asm.jcc(end_condition(raw), done);
        self.mov(RCX, R11);
        self.asm.jrcxz(more);
        self.poll(raw);
        self.go_to(raw.ip32());
        self.islands(false);
        self.asm.bind(more);
        self.asm.bind(done);
        Ok(Emitted::Inline)
    }

    /// Emits R10D = the minimum of ECX and of the elements, of 2^`log` bytes, from EDI to the end of its page.
    fn elements_in_page(&mut self, raw: &Instruction, log: u32) {
        let (inside, crosses, known) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.unless_count_is_small(crosses);
        self.asm.mov32(R10, R11);
        self.asm.lea64(R8, indexed(RDI, R11, log as u8, -1));
        let shift = self.page_shift(R9);
        self.asm.shrx64(R8, R8, shift);
        self.asm.shrx64(R9, RDI, shift);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(R8, R9, 0, 1));
        self.asm.jrcxz(inside);
        self.asm.jmp_short(crosses);
        self.asm.bind(inside);
        self.asm.jmp_short(known);
        self.asm.bind(crosses);
        self.asm.mov64(R9, RDI);
        self.rest_of_page(raw, log);
        self.asm.bind(known);
        self.islands(true);
    }

    /// Emits R10D = elements of 2^`log` bytes from the address in R9 to the end of its page. If there are none, the emulator
    /// executes `raw`.
    fn rest_of_page(&mut self, raw: &Instruction, log: u32) {
        // The complement of the offset in the page is how many bytes come behind the first.
        self.asm.not64(R9);
        self.asm.mov_imm32(R10, PAGE - 1);
        self.asm.pext32(R9, R9, R10);
        self.asm.lea32(R9, at(R9, 1));
        self.asm.mov_imm32(RCX, log);
        self.asm.shrx32(R10, R9, RCX);
        self.asm.mov32(RCX, R10);
        let refused = self.miss(raw.ip32(), Cause::Refused);
        self.asm.jrcxz(refused);
    }

    /// Emits R8 = host address of `pointer`, if `count` elements from there lie in one page; else a jump to `crosses`.
    fn range(&mut self, raw: &Instruction, pointer: Reg, count: Reg, crosses: Label) {
        if count == R11 {
            self.unless_count_is_small(crosses);
        }
        let inside = self.asm.label();
        let scale = raw.memory_size().size().trailing_zeros() as u8;
        self.asm.lea64(R8, indexed(pointer, count, scale, -1));
        let shift = self.page_shift(R9);
        self.asm.shrx64(R8, R8, shift);
        self.asm.shrx64(R9, pointer, shift);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(R8, R9, 0, 1));
        self.asm.jrcxz(inside);
        self.asm.jmp(crosses);
        self.asm.bind(inside);
        let writes = pointer == RDI && !compares(raw);
        let probed = self.probe(raw, pointer, 1, writes);
        self.asm.lea64(R8, probed.mem());
        self.touch_r8();
    }

    /// Emits a jump to `many` if RCX, of 64-bit code, is 2^32 or more, so that sums of pointers and counts do not wrap around.
    fn unless_count_is_small(&mut self, many: Label) {
        if !self.mode.is_64() {
            return;
        }
        let small = self.asm.label();
        self.asm.rorx64(RCX, R11, u32::BITS as u8);
        self.asm.mov32(RCX, RCX);
        self.asm.jrcxz(small);
        self.asm.jmp(many);
        self.asm.bind(small);
    }

    /// Emits `target` = `pointer` - R8.
    fn guest_minus_host(&mut self, target: Reg, pointer: Reg) {
        self.asm.mov64(target, R8);
        self.asm.not64(target);
        self.asm.lea64(target, indexed(pointer, target, 0, 1));
    }

    /// Emits R9D = the probed memory, zero-extended.
    fn load(&mut self, size: u32, from: Probed) {
        match size {
            1 => self.asm.load8(R9, from.mem()),
            2 => self.asm.load16(R9, from.mem()),
            4 => self.asm.load32(R9, from.mem()),
            _ => self.asm.load64(R9, from.mem()),
        }
    }

    /// Emits the probed memory = the low `size` bytes of `from`.
    fn store(&mut self, size: u32, to: Probed, from: Reg) {
        match size {
            1 => self.asm.store8(to.mem(), from),
            2 => self.asm.store16(to.mem(), from),
            4 => self.asm.store32(to.mem(), from),
            _ => self.asm.store64(to.mem(), from),
        }
    }

    /// Emits an instruction of AL, AX, EAX or RAX and memory, chosen by size.
    fn on_accumulator(&mut self, size: u32, codes: [Code; 4], place: HostOperand) -> Result<()> {
        let index = size.trailing_zeros() as usize;
        let register = [Register::AL, Register::AX, Register::EAX, Register::RAX][index];
        let memory = iced_x86::MemoryOperand::with_base(place.base);
        let mut instruction = Instruction::with2(codes[index], register, memory)?;
        point_at(&mut instruction, place);
        self.asm.guest(&instruction)
    }
}

/// Whether `raw` is SCAS.
fn is_scan(raw: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(raw.mnemonic(), Scasb | Scasw | Scasd | Scasq)
}

/// Whether a string instruction reads memory at ESI.
fn has_source(raw: &Instruction) -> bool {
    has_operand(raw, [OpKind::MemorySegESI, OpKind::MemorySegRSI])
}

/// Whether a string instruction has memory at EDI.
fn has_destination(raw: &Instruction) -> bool {
    has_operand(raw, [OpKind::MemoryESEDI, OpKind::MemoryESRDI])
}

/// Whether an operand is of one of two kinds.
fn has_operand(raw: &Instruction, kinds: [OpKind; 2]) -> bool {
    [raw.op0_kind(), raw.op1_kind()]
        .iter()
        .any(|kind| kinds.contains(kind))
}

/// Whether `raw` is CMPS or SCAS, which may end early under a repeat prefix.
fn compares(raw: &Instruction) -> bool {
    use Mnemonic::*;
    is_scan(raw) || matches!(raw.mnemonic(), Cmpsb | Cmpsw | Cmpsd | Cmpsq)
}

/// The condition under which CMPS or SCAS ends early.
fn end_condition(raw: &Instruction) -> u8 {
    if raw.has_repne_prefix() {
        EQUAL
    } else {
        NOT_EQUAL
    }
}

/// The forms of LODS on the accumulator, by size.
const LODS: [Code; 4] = [
    Code::Mov_r8_rm8,
    Code::Mov_r16_rm16,
    Code::Mov_r32_rm32,
    Code::Mov_r64_rm64,
];
/// The forms of SCAS on the accumulator, by size.
const SCAS: [Code; 4] = [
    Code::Cmp_r8_rm8,
    Code::Cmp_r16_rm16,
    Code::Cmp_r32_rm32,
    Code::Cmp_r64_rm64,
];

/// The form of a repeated string instruction with 64-bit addresses: RCX, RSI and RDI.
fn on_host(raw: &Instruction) -> Result<Instruction> {
    use Mnemonic::*;
    let prefix = if raw.has_repne_prefix() {
        RepPrefixKind::Repne
    } else {
        RepPrefixKind::Repe
    };
    let ds = Register::None;
    let host = match raw.mnemonic() {
        Movsb => Instruction::with_movsb(64, ds, prefix),
        Movsw => Instruction::with_movsw(64, ds, prefix),
        Movsd => Instruction::with_movsd(64, ds, prefix),
        Movsq => Instruction::with_movsq(64, ds, prefix),
        Stosb => Instruction::with_stosb(64, prefix),
        Stosw => Instruction::with_stosw(64, prefix),
        Stosd => Instruction::with_stosd(64, prefix),
        Stosq => Instruction::with_stosq(64, prefix),
        Cmpsb => Instruction::with_cmpsb(64, ds, prefix),
        Cmpsw => Instruction::with_cmpsw(64, ds, prefix),
        Cmpsd => Instruction::with_cmpsd(64, ds, prefix),
        Cmpsq => Instruction::with_cmpsq(64, ds, prefix),
        Scasb => Instruction::with_scasb(64, prefix),
        Scasw => Instruction::with_scasw(64, prefix),
        Scasq => Instruction::with_scasq(64, prefix),
        _ => Instruction::with_scasd(64, prefix),
    };
    Ok(host?)
}
