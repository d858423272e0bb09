//! The clock on the bus: its index and data registers, its line, and its saved state.

use serde::{Deserialize, Serialize};

use super::{RAM, Rtc, SECOND, Time};
use crate::bus::{Device, DeviceContext, DeviceStateError, IoAccess, decode_state, encode_state};

/// Offset of the data register.
const DATA: u64 = 1;
/// The number of its line, IRQ 8.
const LINE: usize = 0;
/// The farthest that a restored time may lie from 1970, in seconds: 300,000 years.
const FARTHEST: i128 = 10_000_000_000_000;

/// The saved state of the clock. Times are nanoseconds, seconds and periods since 1970-01-01 00:00 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RtcState {
    index: u8,
    ram: Vec<u8>,
    time: TimeState,
    seen_second: i128,
    seen_period: i128,
}

/// The saved state of the divider chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TimeState {
    /// Time passes, from this time of day.
    Running { time_of_day: i128 },
    /// Time stands still, `phase` nanoseconds into a second.
    Stopped { phase: i128 },
}

impl Rtc {
    fn state(&self, now: u64) -> RtcState {
        RtcState {
            index: self.index,
            ram: self.ram.to_vec(),
            time: match self.time {
                Time::Running { epoch } => TimeState::Running {
                    time_of_day: epoch + i128::from(now),
                },
                Time::Stopped { phase } => TimeState::Stopped { phase },
            },
            seen_second: self.seen_second,
            seen_period: self.seen_period,
        }
    }

    fn from_state(state: RtcState, now: u64) -> Result<Self, DeviceStateError> {
        let impossible = DeviceStateError::Impossible;
        let near = |second: i128| (-FARTHEST..=FARTHEST).contains(&second);
        let time = match state.time {
            TimeState::Running { time_of_day } if near(time_of_day / SECOND) => Time::Running {
                epoch: time_of_day - i128::from(now),
            },
            TimeState::Stopped { phase } if (0..SECOND).contains(&phase) => Time::Stopped { phase },
            _ => return Err(impossible("the time")),
        };
        if usize::from(state.index) >= RAM || !near(state.seen_second) {
            return Err(impossible("the index, or the last second"));
        }
        Ok(Self {
            index: state.index,
            ram: <[u8; RAM]>::try_from(state.ram).map_err(|_| impossible("the size of RAM"))?,
            time,
            seen_second: state.seen_second,
            seen_period: state.seen_period,
            quiet_until: 0,
        })
    }
}

impl Device for Rtc {
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        if access.offset != DATA {
            return u64::MAX;
        }
        let value = Self::read(self, context.now());
        context.set_line(LINE, self.interrupt());
        value.into()
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        if access.offset != DATA {
            return self.select(value as u8);
        }
        Self::write(self, context.now(), value as u8);
        context.set_line(LINE, self.interrupt());
    }

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        Self::advance(self, context.now());
        context.set_line(LINE, self.interrupt());
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        Self::next_deadline(self, now)
    }

    fn save(&self, now: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&self.state(now))
    }

    fn restore(
        &mut self,
        state: &[u8],
        context: &mut DeviceContext<'_>,
    ) -> Result<(), DeviceStateError> {
        *self = Self::from_state(decode_state(state)?, context.now())?;
        Ok(())
    }
}
