//! Operands that make sense for a drawn instruction: addresses, counts, selectors, control words.

use super::address;
use super::address::is_open;
use super::encode::Encoded;
use super::flags::{AC, DF, ID, NT, STATUS, TF};
use super::prepare::{Conflict, ESP, Known, Needs, Reach, Value, gpr_index, segment_index};
use super::values::{control_word, integer, mxcsr, percent};
use fastrand::Rng;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// Numbers of general registers in encodings.
const EAX: usize = 0;
const ECX: usize = 1;
const EDX: usize = 2;
const EBX: usize = 3;
const EBP: usize = 5;
const ESI: usize = 6;
const EDI: usize = 7;

/// EFLAGS images for POPF and IRET set these; IF and IOPL come at random and have no effect at CPL 3.
const LOADABLE: u32 = STATUS | DF | 0x3200;

/// Offset and length of what FNSTENV and FNSAVE store with 16-bit operands about the last instruction (SDM Vol. 1,
/// Figure 8-11 "Protected Mode x87 FPU State Image in Memory, 16-Bit Format").
const POINTERS_16: (u32, u32) = (6, 8);
/// Offset and length of the pointers in 32-bit operands (Figure 8-9).
const POINTERS_32: (u32, u32) = (12, 16);
/// Offset and length of the pointers in the image of FXSAVE: FOP to FDS (SDM Vol. 1, 10.5.1 "FXSAVE Area").
const POINTERS_FX: (u32, u32) = (6, 18);
/// MXCSR_MASK in the image of FXSAVE: a property of the model.
const MXCSR_MASK: (u32, u32) = (28, 4);
/// Offset of MXCSR in the image of FXSAVE.
const MXCSR_AT: u32 = 24;

/// An instruction on its way to become a unit.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The instruction under test.
    pub encoded: Encoded,
    /// The conditions that must hold before it.
    pub needs: Needs,
    /// Bytes that follow it.
    pub after: Vec<u8>,
    /// Linear addresses of the words that are zeroed after it.
    pub wiped: Vec<u64>,
    /// The effective address that its RIP-relative operand is to have.
    pub relative: Option<u64>,
    /// The value of RSP after it, if it loads the register.
    pub loaded_stack: Option<u64>,
    /// The segment register it loads, as an index of [`super::case::State::segments`], and the selector.
    pub segment_load: Option<(usize, u16)>,
    /// Whether the pointers to the last x87 instruction stay where FNSTENV and FNSAVE store them.
    keeps_pointers: bool,
    /// The value of NT that it leaves, if it loads the flag.
    pub nested: Option<bool>,
}

impl Drawn {
    /// `encoded` with no demands yet. What FNSTENV and FNSAVE store about the last x87 instruction is wiped unless
    /// `keeps_pointers`.
    pub fn new(encoded: Encoded, keeps_pointers: bool) -> Self {
        Self {
            encoded,
            needs: Needs::default(),
            after: Vec::new(),
            wiped: Vec::new(),
            relative: None,
            loaded_stack: None,
            segment_load: None,
            keeps_pointers,
            nested: None,
        }
    }

    /// Chooses all operands of a [`super::forms::Style::Plain`] instruction.
    pub fn choose(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        match self.encoded.instruction.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv => self.dividend(known, rng)?,
            Mnemonic::Int => self.interrupt(rng),
            Mnemonic::Enter => self.frame(known, rng)?,
            Mnemonic::Leave => self.frame_pointer(known, rng)?,
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => self.pop_flags(rng),
            Mnemonic::Xlatb => return self.translate(known, rng),
            _ => {}
        }
        self.segment_operand(known, rng)?;
        let address = self.choose_address(known, rng);
        self.contents(address, known, rng)?;
        self.strings(known, rng)?;
        if has_memory_operand(&self.encoded.instruction) {
            self.place(address, known, rng)?;
        }
        if self.encoded.instruction.is_stack_instruction() {
            self.stack(known, rng)?;
        }
        Ok(())
    }

    /// A linear address for the memory operand, if there is one.
    fn choose_address(&self, known: &Known, rng: &mut Rng) -> u64 {
        let instruction = self.encoded.instruction;
        let size = instruction.memory_size().size() as u32;
        let reach = self.reach(known);
        if reach == Reach::Stored && known.is_64() && percent(rng, 5) {
            return address::strange(known.template.mode.places(), size, rng);
        }
        let writable = self.wiped_pointers().is_some() || percent(rng, 10);
        known.inside(instruction.memory_segment(), size, rng, |rng| {
            if writable {
                address::writable(known.places(reach, rng), size, rng)
            } else {
                known.any_address(reach, size, rng)
            }
        })
    }

    /// The places that the memory operand can reach.
    pub fn reach(&self, known: &Known) -> Reach {
        let instruction = &self.encoded.instruction;
        let registers = [instruction.memory_base(), instruction.memory_index()];
        let is_absolute = registers == [Register::None; 2];
        let reach = if instruction.is_ip_rel_memory_operand() {
            Reach::Own
        } else if is_absolute && self.encoded.offsets.displacement_size() == 4 {
            Reach::First
        } else if known.is_64() && address_bytes(instruction) == 4 {
            Reach::Low
        } else {
            Reach::Any
        };
        if self.wiped_pointers().is_some() || wants_contents(instruction) {
            reach.stored()
        } else {
            reach
        }
    }

    /// A dividend that mostly gives a quotient that fits.
    fn dividend(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        if percent(rng, 30) {
            return Ok(());
        }
        let signed = self.encoded.instruction.mnemonic() == Mnemonic::Idiv;
        let high = if signed && percent(rng, 40) {
            u64::MAX >> (64 - known.bits().max(32))
        } else {
            u64::from(rng.u32(0..3))
        };
        let byte = matches!(
            self.encoded.instruction.code(),
            Code::Div_rm8 | Code::Idiv_rm8
        );
        if byte {
            self.needs.set(
                EAX,
                Value::Const(u64::from(
                    integer(rng) << 16 | (high as u32 & 0xff) << 8 | rng.u32(0..256),
                )),
            )
        } else {
            self.needs.set(EDX, Value::Const(high))
        }
    }

    /// Chooses the vector of INT n. All gates but those of #BP and #OF are closed to ring 3; vector 0x80 would enter the host
    /// kernel.
    fn interrupt(&mut self, rng: &mut Rng) {
        const VECTORS: [u64; 10] = [0, 1, 2, 3, 4, 5, 13, 14, 0x20, 0xff];
        self.encoded
            .set_immediate(VECTORS[rng.usize(..VECTORS.len())]);
    }

    /// Chooses the operands of ENTER: modest frames, any nesting level.
    fn frame(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        self.encoded.set_immediate(rng.u32(0..0x60).into());
        self.frame_pointer(known, rng)
    }

    /// Points EBP, or BP, into the stack.
    fn frame_pointer(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let frame = stack_address(known, rng)?;
        self.needs.set(EBP, Value::Const(frame))
    }

    fn pop_flags(&mut self, rng: &mut Rng) {
        let mut image = flags_image(rng);
        let nested = percent(rng, 3);
        if nested {
            image |= NT;
        }
        self.nested = Some(nested);
        if percent(rng, 4) {
            // The trap comes after the instruction that follows.
            image |= TF;
            self.after.push(NOP);
        }
        let bytes = self.encoded.instruction.stack_pointer_increment() as usize;
        self.needs.push(Value::Const(image.into()), bytes);
    }

    /// Chooses the table of XLAT: any 256 bytes.
    fn translate(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let segment = self.encoded.instruction.memory_segment();
        let reach = self.reach(known);
        let table = known.inside(segment, 1, rng, |rng| known.any_address(reach, 1, rng));
        // AL may have any value.
        if (0..256).any(|index| is_open(table.wrapping_add(index), known.base(segment))) {
            return Err(Conflict);
        }
        let offset = offset_in(known, segment, table);
        let bytes = self.encoded.instruction.memory_base().size();
        self.set_offset(EBX, offset, bytes, known, rng)
    }

    /// Sets `register` to the effective address `offset`; the bits that the address size leaves out are noise. With 16-bit
    /// addresses one that does not fit stays what it is: what can be reached with 16 bits is mapped on all sides or on none.
    fn set_offset(
        &mut self,
        register: usize,
        offset: u64,
        address_bytes: usize,
        known: &Known,
        rng: &mut Rng,
    ) -> Result<(), Conflict> {
        if address_bytes < 8 && offset >> (8 * address_bytes) != 0 {
            return if address_bytes == 2 {
                Ok(())
            } else {
                Err(Conflict)
            };
        }
        let value = known.with_noise(offset, address_bytes, rng);
        self.needs.set(register, Value::Const(value))
    }

    /// Chooses the selector in a register or on the stack that the instruction loads or inspects; one in memory is left to
    /// [`Self::contents`].
    fn segment_operand(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        if instruction.mnemonic() == Mnemonic::Pop
            && segment_index(instruction.op0_register()).is_some()
        {
            let selector = self.load_segment(instruction.op0_register(), known, rng);
            let image = u64::from(rng.u32(..) & !0xffff | u32::from(selector));
            let bytes = instruction.stack_pointer_increment() as usize;
            self.needs.push(Value::Const(image), bytes);
            return self.stack(known, rng);
        }
        let Some(operand) = selector_operand(&instruction) else {
            return Ok(());
        };
        if instruction.op_kind(operand) != OpKind::Register {
            return Ok(());
        }
        let register = gpr_index(instruction.op_register(operand))
            .expect("selectors come in general registers");
        let selector = self.selector(known, rng);
        let value = known.with_noise(selector.into(), 2, rng);
        self.needs.set(register, Value::Const(value))
    }

    /// A selector for the instruction at hand, which loads a segment register or inspects a descriptor.
    fn selector(&mut self, known: &Known, rng: &mut Rng) -> u16 {
        let instruction = self.encoded.instruction;
        let loaded = match instruction.mnemonic() {
            Mnemonic::Lds => Register::DS,
            Mnemonic::Les => Register::ES,
            Mnemonic::Lfs => Register::FS,
            Mnemonic::Lgs => Register::GS,
            Mnemonic::Lss => Register::SS,
            Mnemonic::Mov => instruction.op0_register(),
            _ => return known.selectors().inspected(rng),
        };
        self.load_segment(loaded, known, rng)
    }

    fn load_segment(&mut self, register: Register, known: &Known, rng: &mut Rng) -> u16 {
        let selector = if register == Register::SS {
            known.selectors().stack(rng)
        } else {
            known.selectors().data(rng)
        };
        self.segment_load = segment_index(register).map(|index| (index, selector));
        selector
    }

    /// Chooses the contents of the memory operand at `at`, for instructions that make something of particular values.
    fn contents(&mut self, at: u64, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let places = known.template.mode.places();
        if !has_memory_operand(&instruction) || !address::is_in_sandbox(places, at) {
            return Ok(());
        }
        if let Some((offset, length)) = self.wiped_pointers() {
            self.wipe(at, offset, length);
            if let Mnemonic::Fxsave | Mnemonic::Fxsave64 = instruction.mnemonic() {
                self.wipe(at, MXCSR_MASK.0, MXCSR_MASK.1);
            }
            return Ok(());
        }
        let stored = match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw
                if selector_operand(&instruction).is_some() =>
            {
                u32::from(self.selector(known, rng))
            }
            Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
                return self.far_pointer(at, known, rng);
            }
            Mnemonic::Fldcw | Mnemonic::Fldenv | Mnemonic::Frstor => u32::from(control_word(rng)),
            Mnemonic::Ldmxcsr => loaded_mxcsr(rng),
            Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
                self.store(at, MXCSR_AT, loaded_mxcsr(rng));
                u32::from(control_word(rng))
            }
            Mnemonic::Bound if percent(rng, 60) => {
                self.store(at, 4, 0x7fff_ffff);
                if instruction.code() == Code::Bound_r16_m1616 {
                    0x7fff_8000
                } else {
                    0x8000_0000
                }
            }
            Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if percent(rng, 40) => {
                return self.expected(at, known, rng);
            }
            _ => return Ok(()),
        };
        self.store(at, 0, stored);
        Ok(())
    }

    /// Makes CMPXCHG and its kin find what they expect: the same in both registers, if there are two.
    fn expected(&mut self, at: u64, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let is_pair = instruction.mnemonic() != Mnemonic::Cmpxchg;
        let bytes = instruction.memory_size().size() as u32;
        let half = if is_pair { bytes / 2 } else { bytes };
        let value = if half == 8 {
            known.integer(rng)
        } else {
            integer(rng).into()
        };
        self.needs.set(EAX, Value::Const(value))?;
        if is_pair {
            self.needs.set(EDX, Value::Const(value))?;
        }
        let halves = if is_pair { &[half, 0][..] } else { &[0] };
        for offset in halves {
            if half == 8 {
                self.store(at, offset + 4, (value >> 32) as u32);
            }
            self.store(at, *offset, value as u32);
        }
        Ok(())
    }

    fn far_pointer(&mut self, at: u64, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let selector = u32::from(self.selector(known, rng));
        if self.encoded.instruction.op0_register().size() == 2 {
            self.store(at, 0, selector << 16 | rng.u32(0..0x10000));
        } else {
            self.store(at, 0, integer(rng));
            self.store(at, 4, selector);
        }
        Ok(())
    }

    /// Demands `value` at `at + offset`, where that can be written.
    pub fn store(&mut self, at: u64, offset: u32, value: u32) {
        let at = at.wrapping_add(offset.into());
        self.needs.store(at, Value::Const(value.into()));
    }

    /// Offset and length of the pointers that the instruction stores, if they have to be wiped: those of FXSAVE always.
    fn wiped_pointers(&self) -> Option<(u32, u32)> {
        let form = self.encoded.instruction.code();
        let kept = self.keeps_pointers && form.mnemonic() != Mnemonic::Fxsave;
        stores_pointers(form).filter(|_| !kept)
    }

    /// Zeroes `length` bytes at `at + offset` after the instruction, word by word.
    fn wipe(&mut self, at: u64, offset: u32, length: u32) {
        let at = at + u64::from(offset);
        self.wiped.extend((at..at + u64::from(length)).step_by(2));
    }

    /// Chooses the pointers and the count of a string instruction, and the pointer of MASKMOVQ and MASKMOVDQU.
    fn strings(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let size = instruction.memory_size().size() as u32;
        for kind in instruction.op_kinds() {
            let (register, segment, address_bytes) = match kind {
                OpKind::MemorySegSI => (ESI, instruction.memory_segment(), 2),
                OpKind::MemorySegESI => (ESI, instruction.memory_segment(), 4),
                OpKind::MemorySegRSI => (ESI, instruction.memory_segment(), 8),
                OpKind::MemorySegDI => (EDI, instruction.memory_segment(), 2),
                OpKind::MemorySegEDI => (EDI, instruction.memory_segment(), 4),
                OpKind::MemorySegRDI => (EDI, instruction.memory_segment(), 8),
                OpKind::MemoryESDI => (EDI, Register::ES, 2),
                OpKind::MemoryESEDI => (EDI, Register::ES, 4),
                OpKind::MemoryESRDI => (EDI, Register::ES, 8),
                _ => continue,
            };
            let reach = if known.is_64() && address_bytes == 4 {
                Reach::Low
            } else {
                Reach::Any
            };
            let linear = known.inside(segment, size, rng, |rng| {
                known.any_address(reach, size, rng)
            });
            if is_open(linear, known.base(segment)) {
                return Err(Conflict);
            }
            let offset = offset_in(known, segment, linear);
            self.set_offset(register, offset, address_bytes, known, rng)?;
            if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
                let count = repeat_count(address_bytes, rng);
                let count = known.with_noise(count, address_bytes, rng);
                if !self.needs.demands(ECX) {
                    self.needs.set(ECX, Value::Const(count))?;
                }
            }
        }
        Ok(())
    }

    /// Chooses a stack pointer, mostly with room for the pushes of the preparation and of the instruction.
    pub fn stack(&mut self, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let usable = self.needs.value(ESP, known).is_some_and(|rsp| {
            address::is_stack(known.template.mode.places(), known.stack_linear(rsp))
        });
        if !self.needs.pushes_nothing() {
            return if usable {
                Ok(())
            } else {
                self.needs
                    .set(ESP, Value::Const(stack_address(known, rng)?))
            };
        }
        if percent(rng, 4) {
            let linear = known.inside(Register::SS, 4, rng, |rng| {
                known.any_address(Reach::Any, 4, rng)
            });
            let esp = known.stack_offset(linear, rng)?;
            self.needs.set(ESP, Value::Const(esp))
        } else if usable {
            Ok(())
        } else {
            self.needs
                .set(ESP, Value::Const(stack_address(known, rng)?))
        }
    }
}

/// NOP.
const NOP: u8 = 0x90;

/// A value of RSP or RBP with room on both sides.
fn stack_address(known: &Known, rng: &mut Rng) -> Result<u64, Conflict> {
    let linear = known.inside(Register::SS, 1, rng, |rng| {
        address::stack(known.places(Reach::Any, rng), rng)
    });
    known.stack_offset(linear, rng)
}

/// The offset of the linear address `linear` in the segment in `register`.
fn offset_in(known: &Known, register: Register, linear: u64) -> u64 {
    let offset = linear.wrapping_sub(known.base(register));
    if known.is_64() {
        offset
    } else {
        offset & u64::from(u32::MAX)
    }
}

/// Bytes of the addresses that the memory operand is computed with.
pub fn address_bytes(instruction: &Instruction) -> usize {
    let registers = [instruction.memory_base(), instruction.memory_index()];
    match registers
        .into_iter()
        .find(|&register| register != Register::None)
    {
        Some(register) => register.size(),
        None => instruction.memory_displ_size() as usize,
    }
}

/// Whether the contents of the memory operand are chosen.
fn wants_contents(instruction: &Instruction) -> bool {
    selector_operand(instruction).is_some()
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Lds
                | Mnemonic::Les
                | Mnemonic::Lfs
                | Mnemonic::Lgs
                | Mnemonic::Lss
                | Mnemonic::Fldcw
                | Mnemonic::Fldenv
                | Mnemonic::Frstor
                | Mnemonic::Ldmxcsr
                | Mnemonic::Fxrstor
                | Mnemonic::Fxrstor64
                | Mnemonic::Bound
                | Mnemonic::Cmpxchg
                | Mnemonic::Cmpxchg8b
                | Mnemonic::Cmpxchg16b
        )
}

/// An EFLAGS image for POPF and IRET with NT clear.
pub fn flags_image(rng: &mut Rng) -> u32 {
    let extra = match rng.u32(0..20) {
        0 => AC,
        1 => ID,
        _ => 0,
    };
    rng.u32(..) & LOADABLE | extra
}

/// An MXCSR image, sometimes with a reserved bit, which raises #GP. Bit 17 is spared: AMD hosts have it (misaligned SSE).
fn loaded_mxcsr(rng: &mut Rng) -> u32 {
    let reserved = if percent(rng, 5) {
        1 << rng.u32(18..32)
    } else {
        0
    };
    mxcsr(rng) | reserved
}

/// A repeat count: mostly small, sometimes enough to leave the page. One of 64 bits may have nothing in its low half.
fn repeat_count(bytes: usize, rng: &mut Rng) -> u64 {
    let count = match rng.u32(0..20) {
        0..=15 => rng.u32(0..8),
        16..=18 => rng.u32(0..64),
        _ => rng.u32(0..1500),
    };
    let beyond = if bytes == 8 && percent(rng, 2) {
        1 << rng.u32(32..64)
    } else {
        0
    };
    beyond | u64::from(count)
}

/// Whether the instruction computes an address from a ModRM operand and uses the memory there.
pub fn has_memory_operand(instruction: &Instruction) -> bool {
    instruction.op_kinds().any(|kind| kind == OpKind::Memory)
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::Lea | Mnemonic::Nop | Mnemonic::Reservednop
        )
}

/// The operand that is a selector, for instructions that load or inspect one.
fn selector_operand(instruction: &Instruction) -> Option<u32> {
    match instruction.mnemonic() {
        Mnemonic::Mov if segment_index(instruction.op0_register()).is_some() => Some(1),
        Mnemonic::Lar | Mnemonic::Lsl => Some(1),
        Mnemonic::Verr | Mnemonic::Verw => Some(0),
        _ => None,
    }
}

/// Returns offset and length, in the memory operand of this form, of the stored pointers to the last x87 instruction.
pub fn stores_pointers(form: Code) -> Option<(u32, u32)> {
    match form {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => Some(POINTERS_16),
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => Some(POINTERS_32),
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => Some(POINTERS_FX),
        _ => None,
    }
}
