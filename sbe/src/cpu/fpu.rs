//! x87, MMX and SSE state, kept in the format of FXSAVE (SDM Vol. 1, 10.5 "FXSAVE and FXRSTOR Instructions").
//!
//! ```text
//!   byte 0   2   4  5  6   8        12      16       20      24      28
//!        FCW FSW FTW 0 FOP FIP      FCS 0   FDP      FDS 0   MXCSR   MXCSR_MASK
//!   32   ST(0)/MMi, 10 bytes of every 16, eight times, in stack order
//!   160  XMM0 .. XMM7, 16 bytes each
//!   288  XMM8 .. XMM15, 16 bytes each, which 64-bit mode alone names, saves and restores
//!   416  zero
//!   464  FIP 63:32, FDP 63:32, which no instruction saves at this place
//! ```
//!
//! [`FxState`] keeps what every processor keeps: reserved bits of FCW and the reserved bytes hold their fixed values, and FSW.ES
//! says whether an unmasked x87 exception is pending. Registers are in stack order: moving TOP moves them.

/// x87 control word after FNINIT: all exceptions masked, 64-bit precision, round to nearest.
pub const FCW_INIT: u16 = 0x037f;
/// FCW bits that software can change: exception masks, precision, rounding and infinity control.
pub const FCW_WRITABLE: u16 = 0x1f3f;
/// FCW bit that always reads as one.
pub const FCW_FIXED: u16 = 1 << 6;

/// The six x87 exception flags of FSW, and their masks in FCW (SDM Vol. 1, 8.1.3.3 "x87 FPU Floating-Point Exception Flags").
pub const X87_EXCEPTIONS: u16 = 0x3f;
/// Invalid operation, in FSW and FCW.
pub const X87_IE: u16 = 1 << 0;
/// Overflow, in FSW and FCW.
pub const X87_OE: u16 = 1 << 3;
/// Underflow, in FSW and FCW.
pub const X87_UE: u16 = 1 << 4;
/// FSW: stack fault.
pub const FSW_SF: u16 = 1 << 6;
/// FSW: error summary, an unmasked exception is pending.
pub const FSW_ES: u16 = 1 << 7;
/// FSW: busy, a copy of ES.
pub const FSW_B: u16 = 1 << 15;
/// Position of TOP in FSW.
const FSW_TOP_SHIFT: u16 = 11;
/// TOP in FSW.
const FSW_TOP: u16 = 7 << FSW_TOP_SHIFT;

/// MXCSR after RESET: all exceptions masked, round to nearest.
pub const MXCSR_INIT: u32 = 0x1f80;
/// MXCSR bits that exist (bit 6, DAZ, included).
pub const MXCSR_MASK: u32 = 0xffff;
/// The six exception flags of MXCSR (SDM Vol. 1, 10.2.3 "MXCSR Control and Status Register").
pub const MXCSR_FLAGS: u32 = 0x3f;
/// The six exception masks of MXCSR.
pub const MXCSR_MASKS: u32 = MXCSR_FLAGS << MXCSR_MASKS_SHIFT;
/// Distance from an exception flag to its mask.
pub const MXCSR_MASKS_SHIFT: u32 = 7;
/// MXCSR.IE: invalid operation.
pub const MXCSR_IE: u32 = 1 << 0;
/// MXCSR.DE: denormal operand.
pub const MXCSR_DE: u32 = 1 << 1;
/// MXCSR.ZE: divide by zero.
pub const MXCSR_ZE: u32 = 1 << 2;
/// MXCSR.OE: overflow.
pub const MXCSR_OE: u32 = 1 << 3;
/// MXCSR.UE: underflow.
pub const MXCSR_UE: u32 = 1 << 4;
/// MXCSR.PE: precision.
pub const MXCSR_PE: u32 = 1 << 5;
/// MXCSR.DAZ: denormals are zeros.
pub const MXCSR_DAZ: u32 = 1 << 6;
/// MXCSR.FTZ: flush to zero.
pub const MXCSR_FTZ: u32 = 1 << 15;

/// Opcode bits that FOP holds.
pub const FOP_MASK: u16 = 0x07ff;

/// Bytes of the image that instructions outside of 64-bit mode save and restore.
pub const USED: usize = 288;
/// Bytes of the image that instructions of 64-bit mode save and restore.
pub const USED64: usize = 416;
/// Bytes of the whole image.
pub const SIZE: usize = 512;

const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FCS: usize = 12;
const FDP: usize = 16;
const FDS: usize = 20;
/// Offset of MXCSR.
pub(crate) const MXCSR: usize = 24;
const MASK: usize = 28;
const ST: usize = 32;
const FIP_HIGH: usize = 464;
const FDP_HIGH: usize = 468;
/// Offset of XMM0.
pub(crate) const XMM: usize = 160;
/// Distance from one register to the next.
const STRIDE: usize = 16;
/// Bytes of an x87 register.
const ST_BYTES: usize = 10;

/// The address, the opcode and the memory operand of the last x87 instruction that is no control instruction
/// (SDM Vol. 1, 8.1.8 "x87 FPU Instruction and Data (Operand) Pointers", 8.1.9 "Last Instruction Opcode").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pointers {
    /// Low three bits of the first opcode byte and the ModR/M byte.
    pub fop: u16,
    /// Instruction offset.
    pub fip: u64,
    /// Code selector.
    pub fcs: u16,
    /// Operand offset.
    pub fdp: u64,
    /// Operand selector.
    pub fds: u16,
}

/// The layout in which FXSAVE and FXRSTOR have the state (SDM Vol. 1, 10.5.1 "FXSAVE Area").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The layout of other modes than 64-bit mode: XMM0 to XMM7.
    Legacy,
    /// The layout of 64-bit mode without REX.W: all XMM registers, pointers with selectors.
    Extended,
    /// The layout of 64-bit mode with REX.W: all XMM registers, pointers of 64 bits without selectors.
    Promoted,
}

impl Layout {
    /// Bytes that are saved and restored.
    pub fn bytes(self) -> usize {
        match self {
            Self::Legacy => USED,
            Self::Extended | Self::Promoted => USED64,
        }
    }
}

/// The 512-byte FXSAVE image of the format without REX.W.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct FxState([u8; SIZE]);

impl Default for FxState {
    /// The state after RESET, except that FCW and FTW are as FNINIT sets them: so firmware leaves them.
    fn default() -> Self {
        let mut state = Self([0; SIZE]);
        state.set_fcw(FCW_INIT);
        state.set_mxcsr(MXCSR_INIT);
        state.reset_mxcsr_mask();
        state
    }
}

impl FxState {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }

    fn dword(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    /// The image, as FXSAVE without REX.W writes it, with what it keeps besides.
    pub fn as_bytes(&self) -> &[u8; SIZE] {
        &self.0
    }

    /// The image in `layout`, of which [`Layout::bytes`] are to be saved.
    pub fn image(&self, layout: Layout) -> [u8; USED64] {
        let mut image = [0; USED64];
        image.copy_from_slice(&self.0[..USED64]);
        if layout == Layout::Promoted {
            let Pointers { fip, fdp, .. } = self.pointers();
            image[FIP..FIP + 8].copy_from_slice(&fip.to_le_bytes());
            image[FDP..FDP + 8].copy_from_slice(&fdp.to_le_bytes());
        }
        image
    }

    /// The image, for the host's FXSAVE and FXRSTOR.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Takes over the first bytes of an image in `layout`, as many as are used, as FXRSTOR does: reserved fields and bits get their
    /// fixed values. Returns `false`, with nothing changed, if MXCSR has a reserved bit set.
    pub fn restore(&mut self, image: &[u8; USED64], layout: Layout) -> bool {
        let mut mxcsr = [0; 4];
        mxcsr.copy_from_slice(&image[MXCSR..MXCSR + 4]);
        if u32::from_le_bytes(mxcsr) & !MXCSR_MASK != 0 {
            return false;
        }
        self.0[..layout.bytes()].copy_from_slice(&image[..layout.bytes()]);
        self.reset_mxcsr_mask();
        self.0[FTW + 1] = 0;
        self.set_pointers(match layout {
            Layout::Promoted => Pointers {
                fop: self.word(FOP),
                fip: u64::from_le_bytes(self.get(FIP)),
                fcs: 0,
                fdp: u64::from_le_bytes(self.get(FDP)),
                fds: 0,
            },
            Layout::Legacy | Layout::Extended => Pointers {
                fip: self.dword(FIP).into(),
                fdp: self.dword(FDP).into(),
                ..self.pointers()
            },
        });
        for slot in self.0[ST..XMM].chunks_exact_mut(STRIDE) {
            slot[ST_BYTES..].fill(0);
        }
        self.set_fcw(self.fcw());
        true
    }

    /// The state that [`Self::restore`] makes of an image, whatever was before.
    #[cfg(test)]
    pub fn from_image(image: &[u8; USED]) -> Option<Self> {
        let mut state = Self::default();
        let mut whole = [0; USED64];
        whole[..USED].copy_from_slice(image);
        state.restore(&whole, Layout::Legacy).then_some(state)
    }

    /// Takes over the registers that the host's FXSAVE wrote, with the guest's last-instruction `pointers`: those in the image are
    /// the host's.
    pub fn take_registers(&mut self, image: &[u8; SIZE], pointers: Pointers) {
        self.0[..USED64].copy_from_slice(&image[..USED64]);
        self.reset_mxcsr_mask();
        self.set_pointers(pointers);
    }

    /// x87 control word.
    pub fn fcw(&self) -> u16 {
        self.word(FCW)
    }

    /// Sets the x87 control word, reserved bits forced; ES follows the masks.
    pub fn set_fcw(&mut self, value: u16) {
        self.put(FCW, (value & FCW_WRITABLE | FCW_FIXED).to_le_bytes());
        self.set_fsw(self.fsw());
    }

    /// x87 status word.
    pub fn fsw(&self) -> u16 {
        self.word(FSW)
    }

    /// Sets the x87 status word without moving registers; ES and B follow the exception flags and masks.
    pub fn set_fsw(&mut self, value: u16) {
        let pending = value & !self.fcw() & X87_EXCEPTIONS != 0;
        let summary = if pending { FSW_ES | FSW_B } else { 0 };
        self.put(FSW, (value & !(FSW_ES | FSW_B) | summary).to_le_bytes());
    }

    /// x87 exception flags that are set and not masked.
    pub fn unmasked_x87(&self) -> u16 {
        self.fsw() & !self.fcw() & X87_EXCEPTIONS
    }

    /// Whether the next waiting x87 instruction reports an error.
    pub fn has_pending_x87_error(&self) -> bool {
        self.fsw() & FSW_ES != 0
    }

    /// Number of the physical register that is ST(0), 0..=7.
    pub fn top(&self) -> u8 {
        (self.fsw() >> FSW_TOP_SHIFT & 7) as u8
    }

    /// Sets TOP. Physical registers keep their contents, so that every ST(i) becomes another one.
    pub fn move_top(&mut self, top: u8) {
        let steps = usize::from(top.wrapping_sub(self.top()) & 7);
        self.0[ST..XMM].rotate_left(steps * STRIDE);
        let top = u16::from(top & 7) << FSW_TOP_SHIFT;
        self.put(FSW, (self.fsw() & !FSW_TOP | top).to_le_bytes());
    }

    /// The abridged tag word: bit i tells that physical register i is not empty.
    pub fn tags(&self) -> u8 {
        self.0[FTW]
    }

    /// Sets the abridged tag word.
    pub fn set_tags(&mut self, value: u8) {
        self.0[FTW] = value;
    }

    /// Last instruction and operand pointers.
    pub fn pointers(&self) -> Pointers {
        Pointers {
            fop: self.word(FOP),
            fip: u64::from(self.dword(FIP_HIGH)) << 32 | u64::from(self.dword(FIP)),
            fcs: self.word(FCS),
            fdp: u64::from(self.dword(FDP_HIGH)) << 32 | u64::from(self.dword(FDP)),
            fds: self.word(FDS),
        }
    }

    /// Sets the last instruction and operand pointers.
    pub fn set_pointers(&mut self, pointers: Pointers) {
        self.put(FOP, (pointers.fop & FOP_MASK).to_le_bytes());
        self.put(FIP, (pointers.fip as u32).to_le_bytes());
        self.put(FIP_HIGH, ((pointers.fip >> 32) as u32).to_le_bytes());
        self.put(FCS, u32::from(pointers.fcs).to_le_bytes());
        self.put(FDP, (pointers.fdp as u32).to_le_bytes());
        self.put(FDP_HIGH, ((pointers.fdp >> 32) as u32).to_le_bytes());
        self.put(FDS, u32::from(pointers.fds).to_le_bytes());
    }

    /// SSE control and status register.
    pub fn mxcsr(&self) -> u32 {
        self.dword(MXCSR)
    }

    /// Sets MXCSR; the caller has checked the reserved bits.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.put(MXCSR, value.to_le_bytes());
    }

    /// Sets MXCSR_MASK to this processor's value, after the host's FXSAVE has written its own.
    pub(crate) fn reset_mxcsr_mask(&mut self) {
        self.put(MASK, MXCSR_MASK.to_le_bytes());
    }

    /// The 80-bit register ST(`index`).
    pub fn st(&self, index: u8) -> [u8; ST_BYTES] {
        self.get(ST + STRIDE * usize::from(index & 7))
    }

    /// Sets ST(`index`); its tag is left alone.
    pub fn set_st(&mut self, index: u8, value: [u8; ST_BYTES]) {
        let mut slot = [0; STRIDE];
        slot[..ST_BYTES].copy_from_slice(&value);
        self.put(ST + STRIDE * usize::from(index & 7), slot);
    }

    /// The MMX register `index`: the significand of physical register `index`.
    pub fn mm(&self, index: u8) -> u64 {
        let slot = index.wrapping_sub(self.top()) & 7;
        u64::from_le_bytes(self.get(ST + STRIDE * usize::from(slot)))
    }

    /// The SSE register `index`, 0..=15.
    pub fn xmm(&self, index: u8) -> u128 {
        u128::from_le_bytes(self.get(XMM + STRIDE * usize::from(index & 15)))
    }

    /// Sets the SSE register `index`, 0..=15.
    pub fn set_xmm(&mut self, index: u8, value: u128) {
        self.put(XMM + STRIDE * usize::from(index & 15), value.to_le_bytes());
    }

    /// Takes over all XMM registers of `other`.
    pub fn copy_xmm(&mut self, other: &Self) {
        self.0[XMM..USED64].copy_from_slice(&other.0[XMM..USED64]);
    }

    /// Initializes the x87 unit as FNINIT does: default control word, no exceptions, TOP 0, empty stack, no pointers; registers
    /// keep their contents.
    pub fn init_x87(&mut self) {
        self.move_top(0);
        self.set_tags(0);
        self.set_pointers(Pointers::default());
        self.put(FSW, [0; 2]);
        self.set_fcw(FCW_INIT);
    }

    /// Switches the register file to MMX, as every MMX instruction but EMMS does first: TOP 0, all registers valid
    /// (SDM Vol. 3A, 12.2 "The MMX State and MMX Register Aliasing").
    pub fn enter_mmx(&mut self) {
        self.move_top(0);
        self.set_tags(0xff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_summary_follows_flags_and_masks() {
        let mut state = FxState::default();
        state.set_fsw(FSW_ES | X87_IE);
        assert_eq!(state.fsw(), X87_IE, "masked");
        state.set_fcw(FCW_INIT & !X87_IE);
        assert_eq!(state.fsw(), X87_IE | FSW_ES | FSW_B);
        state.set_fcw(FCW_INIT);
        assert!(!state.has_pending_x87_error());
    }

    #[test]
    fn moving_top_keeps_physical_registers() {
        let mut state = FxState::default();
        for index in 0..8 {
            state.set_st(index, [index; 10]);
        }
        state.move_top(6);
        assert_eq!(state.top(), 6);
        assert_eq!((state.st(0), state.st(2)), ([6; 10], [0; 10]));
        assert_eq!(
            state.mm(3),
            u64::from_le_bytes([3; 8]),
            "MMX registers do not move with TOP"
        );
        state.move_top(0);
        assert_eq!(state.st(5), [5; 10]);
    }

    #[test]
    fn an_image_loses_its_reserved_bits() {
        let mut image = [0xff; USED];
        image[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_INIT.to_le_bytes());
        let state = FxState::from_image(&image).expect("MXCSR is valid");
        assert_eq!(state.fcw(), 0x1f7f);
        assert_eq!(state.fsw(), 0x7f7f, "all flags set, all masked");
        assert_eq!(state.pointers().fop, 0x7ff);
        assert_eq!(
            (state.0[5], state.0[14], state.0[22], state.0[42]),
            (0, 0, 0, 0)
        );
        assert_eq!(state.0[USED..], [0; SIZE - USED]);
        let mut refused = [0xff; USED64];
        refused[ST] = 0;
        let mut same = state.clone();
        assert!(!same.restore(&refused, Layout::Legacy));
        assert_eq!(same, state, "nothing has changed");
    }

    #[test]
    fn each_layout_has_its_pointers_and_registers() {
        let pointers = Pointers {
            fop: 0x123,
            fip: 0xffff_8000_1234_5678,
            fcs: 0x10,
            fdp: 0x7fff_9abc_def0,
            fds: 0x18,
        };
        let mut state = FxState::default();
        state.set_pointers(pointers);
        state.set_xmm(0, 1);
        state.set_xmm(15, 2);
        let restored = |layout| {
            let mut other = FxState::default();
            other.set_pointers(Pointers {
                fip: u64::MAX,
                ..Pointers::default()
            });
            assert!(other.restore(&state.image(layout), layout));
            (other.pointers(), other.xmm(0), other.xmm(15))
        };
        let promoted = Pointers {
            fcs: 0,
            fds: 0,
            ..pointers
        };
        assert_eq!(restored(Layout::Promoted), (promoted, 1, 2));
        let cut = Pointers {
            fip: 0x1234_5678,
            fdp: 0x9abc_def0,
            ..pointers
        };
        assert_eq!(restored(Layout::Extended), (cut, 1, 2));
        assert_eq!(restored(Layout::Legacy), (cut, 1, 0));
    }
}
