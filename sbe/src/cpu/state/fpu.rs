//! [`FpuState`]: x87, MMX and SSE registers as they are saved.

use super::error::CpuStateError;
use crate::cpu::fpu::{FCW_FIXED, FCW_WRITABLE, FOP_MASK, FxState, MXCSR_MASK, Pointers};
use serde::{Deserialize, Serialize};

/// The registers of the x87, MMX and SSE units (SDM Vol. 1, 10.5 "FXSAVE and FXRSTOR Instructions"). FSW.ES and FSW.B follow
/// from the exception flags and masks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FpuState {
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word.
    pub fsw: u16,
    /// Abridged tag word: bit i tells that physical register i is not empty.
    pub ftw: u8,
    /// Last opcode.
    pub fop: u16,
    /// Offset of the last instruction.
    pub fip: u64,
    /// Code selector of the last instruction.
    pub fcs: u16,
    /// Offset of the last operand.
    pub fdp: u64,
    /// Selector of the last operand.
    pub fds: u16,
    /// ST(0) to ST(7), and with them the MMX registers.
    pub st: [[u8; 10]; 8],
    /// SSE control and status register.
    pub mxcsr: u32,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
}

impl FpuState {
    /// Saves `fpu`.
    pub(super) fn save(fpu: &FxState) -> Self {
        let Pointers {
            fop,
            fip,
            fcs,
            fdp,
            fds,
        } = fpu.pointers();
        Self {
            fcw: fpu.fcw(),
            fsw: fpu.fsw(),
            ftw: fpu.tags(),
            fop,
            fip,
            fcs,
            fdp,
            fds,
            st: std::array::from_fn(|index| fpu.st(index as u8)),
            mxcsr: fpu.mxcsr(),
            xmm: std::array::from_fn(|index| fpu.xmm(index as u8)),
        }
    }

    /// Makes the image that the host loads by FXRSTOR, which would fault on a reserved bit of MXCSR.
    pub(super) fn restore(&self) -> Result<FxState, CpuStateError> {
        let fcw_is_valid = self.fcw & !FCW_WRITABLE == FCW_FIXED;
        CpuStateError::unless(fcw_is_valid, "FCW", self.fcw)?;
        CpuStateError::unless(self.fop & !FOP_MASK == 0, "FOP", self.fop)?;
        CpuStateError::unless(self.mxcsr & !MXCSR_MASK == 0, "MXCSR", self.mxcsr)?;
        let mut fpu = FxState::default();
        fpu.set_fcw(self.fcw);
        fpu.set_fsw(self.fsw);
        fpu.set_tags(self.ftw);
        fpu.set_pointers(Pointers {
            fop: self.fop,
            fip: self.fip,
            fcs: self.fcs,
            fdp: self.fdp,
            fds: self.fds,
        });
        fpu.set_mxcsr(self.mxcsr);
        for (index, &st) in (0..).zip(&self.st) {
            fpu.set_st(index, st);
        }
        for (index, &xmm) in (0..).zip(&self.xmm) {
            fpu.set_xmm(index, xmm);
        }
        Ok(fpu)
    }
}
