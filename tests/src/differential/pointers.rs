//! The pointers to the last x87 instruction (FOP, FIP, FCS, FDP and FDS) as the real CPU has them.
//!
//! Not every processor records all of them: some record FDP and FOP only with unmasked exceptions, and no FCS and FDS at all
//! (SDM Vol. 1, 8.1.8 "x87 FPU Instruction and Data (Operand) Pointers", 8.1.9.1 "Fopcode Compatibility Sub-mode"). So the real
//! CPU is asked first ([`probes`]). Where it records and restores all, FNSTENV and FNSAVE of a case are compared as they are, and
//! so is the end of a case. FXSAVE never is: AMD processors store zeros in it unless an exception is pending. Nor is the end by
//! an exception or at [`EXIT_FAR`](super::layout::EXIT_FAR), which is left by one: Linux saves the state for a signal by XSAVE,
//! which does the same. With an x87 exception pending, FIP and FDP are compared there; the rest is not in the signal frame.
//!
//! For the same reason the pointers are lost where Linux switches tasks in the middle of a case. Such a case agrees when it is
//! asked again.

use super::case::{Case, FX_SIZE, Outcome, Pointers, SANDBOX_BYTES, State, Template};
use super::layout::{CODE, EXIT, FLAT_CODE, FLAT_DATA, SANDBOX};
use super::mode::Mode;
use super::segments::LocalTable;
use std::ops::Range;
use std::sync::Arc;

/// The pointers in the FXSAVE image (SDM Vol. 1, 10.5.1 "FXSAVE Area").
const PLACE: Range<usize> = 6..24;
/// The bytes of them that are reserved.
const RESERVED: [Range<usize>; 2] = [14..16, 22..24];
/// Offset of FSW in the FXSAVE image.
const FSW: usize = 2;
/// FSW.ES: an unmasked exception is pending.
const SUMMARY: u16 = 1 << 7;
/// Linear address of a probe's operand.
const OPERAND: u32 = SANDBOX + 0x1000;

/// Cases, and the pointers after them on a processor that records all: after `fld dword ptr [OPERAND]; fld1`, and after nothing
/// but the loading of the state.
pub fn probes() -> [(Case, [u8; 18]); 2] {
    let loaded = image(0x123, [0x1234_5678, 0x1b, 0x9abc_def0, 0x2b]);
    let mut code = vec![0xd9, 0x05];
    code.extend(OPERAND.to_le_bytes());
    code.extend([0xd9, 0xe8]);
    let [fcs, fds] = [FLAT_CODE, FLAT_DATA].map(u32::from);
    let recorded = image(0x1e8, [CODE + 6, fcs, OPERAND, fds]);
    [
        (probe(code, loaded), recorded),
        (probe(Vec::new(), loaded), loaded),
    ]
}

/// FOP, and FIP, FCS, FDP and FDS as they are in the FXSAVE image.
fn image(fop: u16, rest: [u32; 4]) -> [u8; 18] {
    let mut image = [0; 18];
    image[..2].copy_from_slice(&fop.to_le_bytes());
    for (field, value) in image[2..].chunks_exact_mut(4).zip(rest) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    image
}

/// A case of `code` that starts with `pointers`.
fn probe(mut code: Vec<u8>, pointers: [u8; 18]) -> Case {
    let mut fx = [0; FX_SIZE];
    fx[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    fx[PLACE].copy_from_slice(&pointers);
    fx[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    code.push(0xe9);
    let next = CODE + code.len() as u32 + 4;
    code.extend(EXIT.wrapping_sub(next).to_le_bytes());
    Case {
        start: State {
            gpr: [0; 16],
            cs: FLAT_CODE,
            rip: CODE.into(),
            eflags: 0x202,
            segments: [FLAT_DATA, FLAT_DATA, 0, 0, FLAT_DATA],
            bases: [0; 2],
            fx,
        },
        at: CODE.into(),
        code,
        units: Vec::new(),
        last_code_segment: FLAT_CODE,
        template: Arc::new(Template::new(
            Mode::Protected,
            vec![0; SANDBOX_BYTES],
            LocalTable::default(),
        )),
    }
}

/// Whether the end of a case has these pointers.
pub fn are(outcome: &Outcome, expected: [u8; 18]) -> bool {
    let mut fx = outcome.end.fx;
    for reserved in RESERVED {
        fx[reserved].fill(0);
    }
    fx[PLACE] == expected
}

/// The known pointers of `outcome`, of a real CPU that records all of them.
pub fn known(outcome: &Outcome) -> Pointers {
    let fx = &outcome.end.fx;
    let fsw = u16::from_le_bytes([fx[FSW], fx[FSW + 1]]);
    if outcome.end.rip == u64::from(EXIT) && outcome.exception.is_none() {
        Pointers::All
    } else if fsw & SUMMARY != 0 {
        Pointers::Addresses
    } else {
        Pointers::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Kernel, Machine, Side};
    use super::*;

    #[test]
    fn the_engines_record_all_pointers() {
        let kernel = Kernel::build(Mode::Protected).expect("the ring-0 program");
        for side in [Side::Emulator, Side::Tables, Side::Windows] {
            let mut machine = Machine::boot(&kernel, side).expect("a machine");
            for (case, expected) in probes() {
                let ran = machine.run(&case).expect("the case ends");
                assert!(are(&ran.outcome, expected), "{side:?}: {:x?}", case.code);
            }
        }
    }
}
