//! The clock on the bus: its index and data registers, its line, and its saved state.

use serde::{Deserialize, Serialize};

use super::{
    Rtc,
    counters::Counters,
    divider::{Divider, SECOND},
    registers::{A, A_DIVIDER, A_DIVIDER_32KHZ, A_UIP, D, D_VRT, RAM},
};
use crate::bus::{Device, DeviceContext, DeviceStateError, IoAccess, decode_state, encode_state};

/// Offset of the data register.
const DATA: u64 = 1;
/// The number of its line, IRQ 8.
const LINE: usize = 0;
/// The farthest that the divider's time may lie from 0, in seconds: 300,000 years.
const FARTHEST: i128 = 10_000_000_000_000;

/// The saved state of the clock, which was up to date when it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RtcState {
    index: u8,
    ram: Vec<u8>,
    fell_back: bool,
    /// The divider's time, in nanoseconds.
    time: i128,
}

impl Rtc {
    pub(super) fn state(&self, now: u64) -> RtcState {
        let mut present = self.clone();
        present.advance(now);
        RtcState {
            index: present.index,
            ram: present.counters.ram.to_vec(),
            fell_back: present.counters.fell_back,
            time: present.divider.time(now),
        }
    }

    pub(super) fn from_state(state: RtcState, now: u64) -> Result<Self, DeviceStateError> {
        let impossible = DeviceStateError::Impossible;
        let ram = <[u8; RAM]>::try_from(state.ram).map_err(|_| impossible("the size of RAM"))?;
        if usize::from(state.index) >= RAM {
            return Err(impossible("the index"));
        }
        if ram[A] & A_UIP != 0 || ram[D] != D_VRT {
            return Err(impossible("register A or D"));
        }
        if !(-FARTHEST..=FARTHEST).contains(&(state.time / SECOND)) {
            return Err(impossible("the time"));
        }
        let divider = if ram[A] & A_DIVIDER == A_DIVIDER_32KHZ {
            Divider::Running {
                offset: state.time - i128::from(now),
            }
        } else {
            Divider::Held { time: state.time }
        };
        let counters = Counters {
            ram,
            fell_back: state.fell_back,
        };
        Ok(Self::with(state.index, counters, divider, now))
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
