//! [`StubMemory`]: the executable memory of stubs, and the host code that runs one.
//!
//! ```text
//!   x87, MMX                                           XMM registers only
//!   save the host's MXCSR and FCW                      save the host's MXCSR
//!   fxrstor image, load the status flags               load MXCSR and XMM0 to XMM7
//!   stub: one instruction                              stub: one instruction
//!   store the status flags, fxsave image               store the status flags, XMM0 to XMM7 and MXCSR
//!   fninit, restore the host's FCW and MXCSR           restore the host's MXCSR
//! ```
//!
//! All unsafe code of the emulator is here, except for reading the time-stamp counter and for integer instructions that leave
//! something undefined (`emulate/host_alu.rs`).
//!
//! Guarantees:
//! * No stub raises a signal. SIMD exceptions are masked here whatever the image says. An x87 instruction reports an error
//!   only when a *later* waiting instruction executes. An image with an error pending is refused; after the stub come FXSAVE and
//!   FNINIT, which do not wait, and FNINIT clears the error before FLDCW, which does.
//! * Nothing of the host stays in an image: after the stub has run, FIP, FCS, FDP, FDS and FOP are put back, and MXCSR_MASK is
//!   the guest's.
//! * Memory for stubs is bounded. It is a memfd with two mappings, one to be written and one to be executed, which never change: a
//!   thread that runs guests needs no right to make memory executable.

use super::frame::StubFrame;
use super::stub::{Facts, STUB_BYTES, Stub};
use crate::cpu::eflags;
use crate::cpu::fpu::{MXCSR, MXCSR_MASK, MXCSR_MASKS, SIZE, XMM};
use crate::serialize::serialize;
use mmu::{Mapping, Protection, memfd};
use std::arch::asm;
use std::io;

/// Number of stubs that fit.
pub const SLOTS: usize = 1 << 14;
/// Bytes of executable memory: 256 KiB.
const MEMORY_BYTES: usize = SLOTS * STUB_BYTES;

/// Number of a published stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubId(u16);

/// The stubs. Bytes beyond the published ones are never executed.
pub struct StubMemory {
    writable: Mapping,
    executable: Mapping,
    /// The facts about the published stubs.
    facts: Vec<Facts>,
}

impl StubMemory {
    /// Memory without stubs.
    pub fn new() -> io::Result<Self> {
        let file = memfd::create(c"replex-fpu-stubs", MEMORY_BYTES as u64)?;
        Ok(Self {
            writable: Mapping::of_file(&file, MEMORY_BYTES, Protection::ReadWrite)?,
            executable: Mapping::of_file(&file, MEMORY_BYTES, Protection::ReadExecute)?,
            facts: Vec::new(),
        })
    }

    /// Whether no further stub fits.
    pub fn is_full(&self) -> bool {
        self.facts.len() == SLOTS
    }

    /// Forgets all stubs.
    pub fn clear(&mut self) {
        self.facts.clear();
    }

    /// Adds a stub. `None` when the memory is full.
    pub fn publish(&mut self, stub: &Stub) -> Option<StubId> {
        if self.is_full() {
            return None;
        }
        let slot = self.facts.len();
        // SAFETY: `slot < SLOTS`, so the STUB_BYTES bytes lie inside the mapping, which is writable, and `&mut self` keeps
        // anyone from executing them meanwhile. What follows serializes before this thread executes them. If the processor moves
        // to another thread, the hand-over does that.
        unsafe {
            let target = self.writable.start().add(slot * STUB_BYTES).as_ptr();
            target.copy_from_nonoverlapping(stub.code().as_ptr(), STUB_BYTES);
        }
        serialize();
        self.facts.push(stub.facts());
        Some(StubId(slot as u16))
    }

    /// Executes the stub in `slot` on `frame`. The image keeps its pointers; SIMD exceptions are masked during execution.
    ///
    /// Returns whether it ran: not if `slot` is unknown, or if the stub might report an x87 error that the image has pending.
    pub fn run(&self, slot: StubId, frame: &mut StubFrame) -> bool {
        let slot = usize::from(slot.0);
        let Some(&Facts {
            class,
            names_upper_xmm,
            ..
        }) = self.facts.get(slot)
        else {
            return false;
        };
        if !class.uses_stack() && names_upper_xmm {
            // It runs on the whole image, of which the x87 part is of no interest to anybody.
            frame.image.init_x87();
        }
        let pending = class.uses_stack() && frame.image.has_pending_x87_error();
        if pending {
            return false;
        }
        let mxcsr = frame.image.mxcsr();
        frame.image.set_mxcsr(mxcsr & MXCSR_MASK | MXCSR_MASKS);
        // SAFETY: `slot` was published, so there is the code of a `Stub` of class `class`, which names one of XMM8 to XMM15 only if
        // `names_upper_xmm`, and the image has no reserved MXCSR bit and all SIMD exceptions masked.
        unsafe {
            let stub = self.executable.start().add(slot * STUB_BYTES).as_ptr();
            if class.uses_stack() || names_upper_xmm {
                run_with_stack(stub, frame);
            } else {
                run_with_xmm(stub, frame);
            }
        }
        true
    }
}

/// Runs `stub` on the whole image.
///
/// # Safety
/// `stub` is the code of a published [`Stub`]. The image has no reserved MXCSR bit set, all SIMD exceptions masked and no
/// x87 error pending.
unsafe fn run_with_stack(stub: *const u8, frame: &mut StubFrame) {
    let pointers = frame.image.pointers();
    let mut control = HostControl::default();
    let mut flags = u64::from(frame.flags & eflags::STATUS | eflags::FIXED | eflags::IF);
    let StubFrame {
        mut general,
        mut index,
        length,
        ..
    } = *frame;
    // SAFETY:
    // * A `Stub` reads RDX, reads and writes the FPU, RAX, RCX, the status flags and at most OPERAND_BYTES at
    //   RDI = `frame.operand`, and then returns (see `stub::Stub`).
    // * FXRSTOR gets 512 bytes, 16-aligned by the type `FxState`, with no reserved MXCSR bit set: it cannot fault.
    //   FXSAVE writes the same 512 bytes. The forms without REX.W move 32-bit pointers.
    // * POPF at CPL 3 changes the status flags only: the other bits of `flags` are those of every process (IF is ignored;
    //   TF, DF, NT and AC are clear, as the ABI wants).
    // * All FPU registers are declared clobbered; the x87 stack is left empty, FCW and MXCSR are put back.
    // * The stack is balanced; without `options(nostack)` the compiler keeps nothing below RSP.
    unsafe {
        asm!(
            "stmxcsr [{control}]",
            "fnstcw [{control} + 4]",
            "fxrstor [{image}]",
            "push {flags}",
            "popfq",
            "call {stub}",
            "pushfq",
            "pop {flags}",
            "fxsave [{image}]",
            "fninit",
            "fldcw [{control} + 4]",
            "ldmxcsr [{control}]",
            control = in(reg) &raw mut control,
            image = in(reg) frame.image.as_mut_ptr(),
            flags = inout(reg) flags,
            stub = in(reg) stub,
            inout("rax") general,
            inout("rcx") index,
            in("rdx") length,
            in("rdi") frame.operand.as_mut_ptr(),
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
            out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    frame.image.set_pointers(pointers);
    frame.image.reset_mxcsr_mask();
    frame.general = general;
    frame.index = index;
    frame.flags = flags as u32 & eflags::STATUS;
}

/// Runs `stub` on XMM registers and MXCSR only, which costs a fraction of FXRSTOR and FXSAVE.
///
/// # Safety
/// `stub` is the code of a published [`Stub`] of class [`Class::Sse`](super::stub::Class::Sse) that names XMM0 to XMM7 alone. The
/// image has no reserved MXCSR bit set and all SIMD exceptions masked.
unsafe fn run_with_xmm(stub: *const u8, frame: &mut StubFrame) {
    let mut control = HostControl::default();
    let mut flags: u64;
    let StubFrame {
        mut general,
        mut index,
        length,
        ..
    } = *frame;
    // SAFETY:
    // * As in `run_with_stack`; a stub of this class leaves x87 and MMX registers alone, and the x87 stack empty as the
    //   compiler keeps it (see `stub::Stub`).
    // * XMM0 to XMM7 lie inside the image and are 16-aligned in it, as the assertions below say.
    unsafe {
        asm!(
            "stmxcsr [{control}]",
            "ldmxcsr [{image} + {MXCSR}]",
            "movaps xmm0, [{image} + {XMM}]",
            "movaps xmm1, [{image} + {XMM} + 16]",
            "movaps xmm2, [{image} + {XMM} + 32]",
            "movaps xmm3, [{image} + {XMM} + 48]",
            "movaps xmm4, [{image} + {XMM} + 64]",
            "movaps xmm5, [{image} + {XMM} + 80]",
            "movaps xmm6, [{image} + {XMM} + 96]",
            "movaps xmm7, [{image} + {XMM} + 112]",
            "call {stub}",
            "pushfq",
            "pop {flags}",
            "movaps [{image} + {XMM}], xmm0",
            "movaps [{image} + {XMM} + 16], xmm1",
            "movaps [{image} + {XMM} + 32], xmm2",
            "movaps [{image} + {XMM} + 48], xmm3",
            "movaps [{image} + {XMM} + 64], xmm4",
            "movaps [{image} + {XMM} + 80], xmm5",
            "movaps [{image} + {XMM} + 96], xmm6",
            "movaps [{image} + {XMM} + 112], xmm7",
            "stmxcsr [{image} + {MXCSR}]",
            "ldmxcsr [{control}]",
            control = in(reg) &raw mut control,
            image = in(reg) frame.image.as_mut_ptr(),
            flags = out(reg) flags,
            stub = in(reg) stub,
            MXCSR = const MXCSR,
            XMM = const XMM,
            inout("rax") general,
            inout("rcx") index,
            in("rdx") length,
            in("rdi") frame.operand.as_mut_ptr(),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
        );
    }
    frame.general = general;
    frame.index = index;
    frame.flags = flags as u32 & eflags::STATUS;
}

const _: () = assert!(XMM.is_multiple_of(16) && XMM + 8 * 16 <= SIZE && MXCSR + 4 <= SIZE);

/// The host's own control words while a stub runs.
#[derive(Default)]
#[repr(C)]
struct HostControl {
    mxcsr: u32,
    fcw: u16,
}
