//! Reduces a failing case to the units that matter.
//!
//! A unit is dropped by turning it into NOPs, so that absolute addresses in the others stay right; code behind the last
//! unit that is left is cut.

use super::case::Case;
use super::flags;
use super::generate::exit_jump;
use super::layout::CODE_BYTES;
use super::wire::offset_in_place;

/// NOP.
const NOP: u8 = 0x90;

/// The smallest case met that still fails, by dropping one unit after the other as long as `fails` says so.
pub fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut smallest = case.clone();
    loop {
        let smaller = (0..smallest.units.len())
            .rev()
            .filter_map(|index| without(&smallest, index))
            .find(|candidate| {
                // Without the unit an undefined flag may reach a consumer: such a difference would mean nothing.
                consumes_nothing(candidate) && fails(candidate)
            });
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Whether no instruction reads a flag that is undefined.
fn consumes_nothing(case: &Case) -> bool {
    let pieces: Vec<_> = case.pieces().collect();
    flags::undefined(&pieces, 0).is_ok()
}

/// `case` without its unit `index`; `None` if that changes CS: what follows would run in another segment.
fn without(case: &Case, index: usize) -> Option<Case> {
    let mut smaller = case.clone();
    let unit = smaller.units.remove(index);
    let next = smaller
        .units
        .get(index)
        .map_or(case.last_code_segment, |next| next.code_segment);
    if next != unit.code_segment {
        return None;
    }
    let end = (unit.at + unit.len).min(smaller.code.len());
    let jump = exit_jump(
        case.is_local(),
        &case.template,
        next,
        case.at + unit.at as u64,
    );
    let room = (CODE_BYTES - offset_in_place(&smaller)) as usize;
    if index == smaller.units.len() && unit.at + jump.len() <= room {
        // It was the last: end the case where it began.
        smaller.code.truncate(unit.at);
        smaller.code.extend(jump);
    } else {
        smaller.code[unit.at..end].fill(NOP);
    }
    Some(smaller)
}

#[cfg(test)]
mod tests {
    use super::super::flags::STATUS;
    use super::super::forms::generated;
    use super::super::generate::Generator;
    use super::super::mode::Mode;
    use super::*;

    #[test]
    fn only_the_unit_that_fails_is_left() {
        let cases =
            Generator::new(Mode::Protected, generated(Mode::Protected), 0, true).batch(7, 0);
        let case = cases
            .iter()
            .find(|case| case.units.len() == 16)
            .expect("long cases are common");
        let culprit = case.units[9];
        let fails = |candidate: &Case| candidate.units.contains(&culprit);
        let smallest = shrink(case, fails);
        // Others stay only if an undefined flag would reach a consumer without them.
        assert!(smallest.units.contains(&culprit));
        assert!(smallest.units.len() < 4, "{} units", smallest.units.len());
        assert!(consumes_nothing(&smallest));
    }

    #[test]
    fn a_case_of_nothing_ends_at_once() {
        let cases =
            Generator::new(Mode::Protected, generated(Mode::Protected), 0, true).batch(7, 0);
        let smallest = shrink(&cases[0], |_| true);
        assert!(smallest.units.is_empty());
        let pieces: Vec<_> = smallest.pieces().collect();
        let flags = flags::undefined(&pieces, 0).expect("nothing is consumed");
        assert!(flags.values().all(|undefined| undefined & STATUS == 0));
    }
}
