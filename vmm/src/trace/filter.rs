//! [`Filter`]: which events the log contains.

use std::{ops::RangeInclusive, str::FromStr};

use sbe::{Observation, cpu::control::ControlRegister};
use thiserror::Error;

use super::Kind;
use crate::parse;

/// A choice of events: those that any of its [`Selection`]s names, or all if it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Selection>);

/// The events of one kind, or those of them with a number in a range: a vector, a control register or a port.
///
/// The text form is a kind, optionally followed by a colon and a number, or two with a hyphen between: `port`, `exception:14`,
/// `port:3f8-3ff`. Vectors are decimal, or hexadecimal after `0x`; ports are hexadecimal, with `0x` or without.
///
/// ```
/// use vmm::trace::Selection;
///
/// assert!("interrupt:0x30-0x3f".parse::<Selection>().is_ok());
/// assert!("port:3ff-3f8".parse::<Selection>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    kind: Kind,
    numbers: RangeInclusive<u16>,
}

/// The reason why a text is not a selection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SelectionError {
    /// The kind does not exist.
    #[error("no such kind: kinds are interrupt, software, exception, control and port")]
    Kind,
    /// The number is not a vector.
    #[error("not a vector: 0 to 255, or 0x0 to 0xff")]
    Vector,
    /// The number is not that of a control register.
    #[error("not a control register: 0, 2, 3 or 4")]
    Control,
    /// The number is not that of a port.
    #[error("not a port: 0 to ffff, hexadecimal")]
    Port,
    /// The range ends before it begins.
    #[error("the second number is below the first")]
    Backwards,
}

impl Filter {
    /// A filter that admits what any of `selections` names, or everything if there are none.
    pub fn new(selections: Vec<Selection>) -> Self {
        Self(selections)
    }

    /// Whether the log contains everything.
    pub fn admits_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the log contains `observation`.
    pub fn admits(&self, observation: &Observation) -> bool {
        self.admits_all() || self.0.iter().any(|one| one.admits(observation))
    }
}

impl Selection {
    /// Whether the selection names `observation`. An access to several ports counts as one to each of them.
    fn admits(&self, observation: &Observation) -> bool {
        let numbers = numbers(observation);
        self.kind == Kind::of(observation)
            && numbers.start() <= self.numbers.end()
            && self.numbers.start() <= numbers.end()
    }
}

/// The numbers of an observation: its vector, its control register, or its ports.
fn numbers(observation: &Observation) -> RangeInclusive<u16> {
    let (first, count) = match observation {
        Observation::Event(event) => (event.vector.into(), 1),
        Observation::Control(write) => (write.register.number().into(), 1),
        Observation::Port(access) => (access.port, access.width.bytes() as u16),
    };
    first..=first.saturating_add(count - 1)
}

impl FromStr for Selection {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, range) = match text.split_once(':') {
            Some((name, range)) => (name, Some(range)),
            None => (text, None),
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or(SelectionError::Kind)?;
        let numbers = match range {
            None => 0..=u16::MAX,
            Some(range) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                number(kind, first)?..=number(kind, last)?
            }
        };
        if numbers.is_empty() {
            return Err(SelectionError::Backwards);
        }
        Ok(Self { kind, numbers })
    }
}

/// Parses a number of `kind`.
fn number(kind: Kind, text: &str) -> Result<u16, SelectionError> {
    let parsed = |radix| parse::number(text, radix).and_then(|number| u16::try_from(number).ok());
    match kind {
        Kind::Interrupt | Kind::Software | Kind::Exception => parsed(10)
            .filter(|&number| number <= u8::MAX.into())
            .ok_or(SelectionError::Vector),
        Kind::Control => parsed(10)
            .filter(|&number| {
                u8::try_from(number).is_ok_and(|n| ControlRegister::from_number(n).is_some())
            })
            .ok_or(SelectionError::Control),
        Kind::Port => parsed(16).ok_or(SelectionError::Port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sbe::{ControlWrite, Direction, EventSource, GuestEvent, PortAccess, Width};

    use super::*;

    fn event(source: EventSource, vector: u8) -> Observation {
        Observation::Event(GuestEvent {
            vector,
            source,
            error_code: None,
            cr2: None,
            cs: 0,
            eip: 0,
        })
    }

    fn access(port: u16, width: Width) -> Observation {
        Observation::Port(PortAccess {
            direction: Direction::In,
            port,
            width,
            value: 0,
            cs: 0,
            eip: 0,
        })
    }

    fn control(register: ControlRegister) -> Observation {
        Observation::Control(ControlWrite {
            register,
            old: 0,
            new: 0,
            cs: 0,
            eip: 0,
        })
    }

    fn one_of_each() -> [Observation; 5] {
        [
            event(EventSource::External, u8::MAX),
            event(EventSource::Software, 0),
            event(EventSource::Exception, 14),
            control(ControlRegister::Cr4),
            access(u16::MAX, Width::Dword),
        ]
    }

    fn filter(selections: &[&str]) -> Filter {
        let selections = selections.iter().map(|text| text.parse().unwrap());
        Filter::new(selections.collect())
    }

    #[test]
    fn without_selections_everything_is_admitted() {
        for observation in one_of_each() {
            assert!(Filter::default().admits(&observation));
        }
    }

    #[test]
    fn a_kind_admits_all_of_its_own_and_nothing_else() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            let filter = filter(&[kind.name()]);
            let admitted = one_of_each().map(|observation| filter.admits(&observation));
            let expected: [bool; 5] = std::array::from_fn(|at| at == index);
            assert_eq!(admitted, expected, "{}", kind.name());
        }
    }

    #[test]
    fn selections_add_up() {
        let filter = filter(&["control:3", "port:0x60-64"]);
        for (observation, admitted) in [
            (control(ControlRegister::Cr0), false),
            (control(ControlRegister::Cr3), true),
            (access(0x5f, Width::Byte), false),
            (access(0x5f, Width::Word), true),
            (access(0x5d, Width::Dword), true),
            (access(0x5c, Width::Dword), false),
            (access(0x64, Width::Dword), true),
            (access(0x65, Width::Dword), false),
            (event(EventSource::Exception, 3), false),
        ] {
            assert_eq!(filter.admits(&observation), admitted, "{observation}");
        }
    }

    #[test]
    fn bad_selections_are_refused() {
        for (text, error) in [
            ("", SelectionError::Kind),
            ("ports", SelectionError::Kind),
            ("Port", SelectionError::Kind),
            (":14", SelectionError::Kind),
            ("exception:", SelectionError::Vector),
            ("exception:256", SelectionError::Vector),
            ("interrupt:0x100", SelectionError::Vector),
            ("software:80h", SelectionError::Vector),
            ("software:+1", SelectionError::Vector),
            ("exception:1-", SelectionError::Vector),
            ("exception:1-2-3", SelectionError::Vector),
            ("control:1", SelectionError::Control),
            ("control:5", SelectionError::Control),
            ("control:cr3", SelectionError::Control),
            ("control:256", SelectionError::Control),
            ("port:10000", SelectionError::Port),
            ("port:-60", SelectionError::Port),
            ("port:0x+60", SelectionError::Port),
            ("port:64-60", SelectionError::Backwards),
        ] {
            assert_eq!(text.parse::<Selection>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn vectors_of_a_range_are_admitted(first: u8, last: u8, hexadecimal: bool) {
            let (first, last) = (first.min(last), first.max(last));
            let filter = if hexadecimal {
                filter(&[&format!("exception:{first:#x}-{last:#x}")])
            } else {
                filter(&[&format!("exception:{first}-{last}")])
            };
            for vector in 0..=u8::MAX {
                let admitted = filter.admits(&event(EventSource::Exception, vector));
                prop_assert_eq!(admitted, (first..=last).contains(&vector));
                prop_assert!(!filter.admits(&event(EventSource::Software, vector)));
            }
        }

        #[test]
        fn ports_of_a_range_are_admitted(first: u16, last: u16, port: u16) {
            let (first, last) = (first.min(last), first.max(last));
            let filter = filter(&[&format!("port:{first:x}-{last:x}")]);
            for port in [port, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                let admitted = filter.admits(&access(port, Width::Byte));
                prop_assert_eq!(admitted, (first..=last).contains(&port));
            }
        }

        #[test]
        fn whatever_is_parsed_admits_its_kind_only(
            text in "(interrupt|software|exception|control|port|[a-z]*)(:[0-9a-fx+-]{0,9})?",
        ) {
            if let Ok(selection) = text.parse::<Selection>() {
                prop_assert!(text.starts_with(selection.kind.name()), "{}", text);
                let filter = Filter::new(vec![selection.clone()]);
                for observation in one_of_each() {
                    let admitted = filter.admits(&observation);
                    prop_assert!(!admitted || Kind::of(&observation) == selection.kind);
                }
            }
        }
    }
}
