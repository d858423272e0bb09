//! The outcome of an exception that is raised while another is being delivered (SDM Vol. 3A, 6.15, Interrupt 8, Table 6-5
//! "Conditions for Generating a Double Fault").

use crate::fault::Vector;

/// The outcome of two exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The second exception is delivered in place of the first.
    Serial,
    /// #DF is delivered.
    DoubleFault,
    /// The processor shuts down.
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

const CONTRIBUTORY: [Vector; 5] = [
    Vector::DivideError,
    Vector::InvalidTss,
    Vector::SegmentNotPresent,
    Vector::StackFault,
    Vector::GeneralProtection,
];

fn class(vector: u8) -> Class {
    let is = |known: Vector| known as u8 == vector;
    if CONTRIBUTORY.into_iter().any(is) {
        Class::Contributory
    } else if is(Vector::PageFault) {
        Class::PageFault
    } else if is(Vector::DoubleFault) {
        Class::DoubleFault
    } else {
        Class::Benign
    }
}

/// The outcome when `second` is raised during the delivery of the exception of vector `first`.
pub fn verdict(first: u8, second: Vector) -> Verdict {
    match (class(first), class(second as u8)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault | Class::DoubleFault) => {
            Verdict::Shutdown
        }
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => Verdict::DoubleFault,
        _ => Verdict::Serial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_contributory_exceptions_and_page_faults_are_double() {
        use Vector::{
            DivideError as De, GeneralProtection as Gp, InvalidOpcode as Ud, PageFault as Pf,
        };
        let cases = [
            (Ud, Gp, Verdict::Serial),
            (Ud, Pf, Verdict::Serial),
            (De, Ud, Verdict::Serial),
            (De, Gp, Verdict::DoubleFault),
            (Gp, Pf, Verdict::Serial),
            (Pf, Gp, Verdict::DoubleFault),
            (Pf, Pf, Verdict::DoubleFault),
            (Pf, Ud, Verdict::Serial),
            (Vector::DoubleFault, Gp, Verdict::Shutdown),
            (Vector::DoubleFault, Pf, Verdict::Shutdown),
        ];
        for (first, next, verdict) in cases {
            assert_eq!(
                super::verdict(first as u8, next),
                verdict,
                "{first:?} then {next:?}"
            );
        }
    }
}
