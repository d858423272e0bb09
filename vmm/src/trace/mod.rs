//! The event log: what the processor does, reported with the time as it happens.
//!
//! ```text
//!   processor ─► board: observation ─► filter ─► event: time and observation ─► sink
//! ```
//!
//! Nothing is stored here, so nothing grows with what the guest does. Without a sink the processor reports nothing.

mod filter;

use std::fmt;

use sbe::{EventSource, Observation};

use crate::stop::StopReason;

pub use filter::{Filter, Selection, SelectionError};

/// Something that happened, and when.
///
/// The `Display` form is a line of the log without its end: seconds since the machine was switched on, kind, observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the machine was switched on.
    pub time: u64,
    /// The observation: what happened.
    pub what: Observation,
}

/// The end of a machine, and when it came.
///
/// The `Display` form is a line of the log without its end, as that of [`Event`] is.
#[derive(Clone, Copy, Debug)]
pub struct End<'s> {
    /// Nanoseconds since the machine was switched on.
    pub time: u64,
    /// The reason why it ended.
    pub stop: &'s StopReason,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An interrupt of the interrupt controllers, or NMI.
    Interrupt,
    /// INT n, INT3 or INTO.
    Software,
    /// An exception.
    Exception,
    /// A write of a control register.
    Control,
    /// An access to an I/O port.
    Port,
}

/// A receiver of events.
pub trait Sink: Send {
    /// Receives `event`. The guest waits meanwhile.
    fn event(&mut self, event: &Event);

    /// Takes notice of the end of the machine, unless the log is to contain only some events.
    fn end(&mut self, _end: &End<'_>) {}

    /// Takes notice of a pause of the processor: about every 250 µs, when it waits in HLT, and before [`crate::Vm::run`] and
    /// [`crate::Vm::step`] return. This is the time to hand on what was collected.
    fn pause(&mut self) {}
}

impl<F: FnMut(&Event) + Send> Sink for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// A sink, and the filter for what reaches it.
pub struct Trace {
    filter: Filter,
    sink: Box<dyn Sink>,
}

const NS_PER_S: u64 = 1_000_000_000;

impl Event {
    /// The kind of the event.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.what)
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Interrupt,
        Self::Software,
        Self::Exception,
        Self::Control,
        Self::Port,
    ];

    /// The name of the kind in filters and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Software => "software",
            Self::Exception => "exception",
            Self::Control => "control",
            Self::Port => "port",
        }
    }

    /// The kind of `observation`.
    pub fn of(observation: &Observation) -> Self {
        match observation {
            Observation::Event(event) => match event.source {
                EventSource::External => Self::Interrupt,
                EventSource::Software => Self::Software,
                EventSource::Exception => Self::Exception,
            },
            Observation::Control(_) => Self::Control,
            Observation::Port(_) => Self::Port,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, self.time, self.kind().name(), &self.what)
    }
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, self.time, "end", self.stop)
    }
}

/// Writes a line of the log: the time in seconds, the kind, and what happened.
fn write_line(
    f: &mut fmt::Formatter<'_>,
    time: u64,
    kind: &str,
    what: &dyn fmt::Display,
) -> fmt::Result {
    let (seconds, ns) = (time / NS_PER_S, time % NS_PER_S);
    write!(f, "{seconds:6}.{ns:09} {kind:<9}  {what}")
}

impl Trace {
    /// A trace that passes to `sink` what `filter` admits.
    pub fn new(filter: Filter, sink: Box<dyn Sink>) -> Self {
        Self { filter, sink }
    }

    /// Passes on `observation`, with the time that `now` returns, if the filter admits it.
    pub fn observe(&mut self, observation: &Observation, now: impl FnOnce() -> u64) {
        if self.filter.admits(observation) {
            let (time, what) = (now(), *observation);
            self.sink.event(&Event { time, what });
        }
    }

    /// Passes on the end of the machine, if the filter admits everything.
    pub fn end(&mut self, time: u64, stop: &StopReason) {
        if self.filter.admits_all() {
            self.sink.end(&End { time, stop });
            self.sink.pause();
        }
    }

    /// Calls [`Sink::pause`].
    pub fn pause(&mut self) {
        self.sink.pause();
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use sbe::{ControlWrite, GuestEvent, cpu::control::ControlRegister};

    use super::*;

    const CONTROL: Observation = Observation::Control(ControlWrite {
        register: ControlRegister::Cr3,
        old: 0x10_2000,
        new: 0x3fff_d000,
        cs: 0x60,
        eip: 0xc101_2345,
    });

    fn interrupt(source: EventSource) -> Observation {
        Observation::Event(GuestEvent {
            vector: 0x30,
            source,
            error_code: None,
            cr2: None,
            cs: 0x60,
            eip: 0xc100_0000,
        })
    }

    #[test]
    fn lines_have_columns() {
        for (time, what, line) in [
            (
                12_360_000,
                CONTROL,
                "     0.012360000 control    CR3 00102000 -> 3fffd000, at 0060:c1012345",
            ),
            (
                86_400 * NS_PER_S + 1,
                interrupt(EventSource::External),
                " 86400.000000001 interrupt  vector 0x30, at 0060:c1000000",
            ),
        ] {
            assert_eq!(Event { time, what }.to_string(), line);
        }
    }

    #[test]
    fn sources_are_kinds() {
        for (source, kind) in [
            (EventSource::External, Kind::Interrupt),
            (EventSource::Software, Kind::Software),
            (EventSource::Exception, Kind::Exception),
        ] {
            assert_eq!(Kind::of(&interrupt(source)), kind);
        }
    }

    #[test]
    fn a_sink_gets_what_the_filter_admits() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let filter = Filter::new(vec!["control".parse().unwrap()]);
        let sink = move |event: &Event| sink.lock().push(*event);
        let mut trace = Trace::new(filter, Box::new(sink));
        trace.observe(&interrupt(EventSource::External), || panic!("nobody asked"));
        trace.observe(&CONTROL, || 7);
        let (time, what) = (7, CONTROL);
        assert_eq!(*seen.lock(), [Event { time, what }]);
    }
}
