//! The RAM, in which the time registers count.
//!
//! A register keeps what is written to it, proper or not, until it is counted: seconds at each update, the others when the
//! one before them wraps.

use super::registers::{
    B, B_24_HOURS, B_DM_BINARY, B_DSE, CENTURY, DAY, DONT_CARE, HOURS, HOURS_ALARM, MINUTES,
    MINUTES_ALARM, MONTH, PM, RAM, SECONDS, SECONDS_ALARM, WEEKDAY, YEAR,
};
use crate::devices::calendar::{Date, date_from_days, days_from_date};

/// The RAM with its time registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    pub ram: [u8; RAM],
    /// The hour before two o'clock that comes twice in autumn has come once.
    pub fell_back: bool,
}

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY_SECONDS: i64 = 86_400;
/// 1970-01-01 was a Thursday; Sunday is 0.
const FIRST_WEEKDAY: i64 = 4;

/// The changes of daylight saving: at two o'clock on the last Sunday of the month, which has so many days, the hour changes
/// (datasheet, "Daylight Saving Enable").
const CHANGES: [(u8, u8, i64); 2] = [(4, 30, HOUR), (10, 31, -HOUR)];

impl Counters {
    /// Shows the time `seconds` after 1970-01-01 00:00.
    pub fn set_time(&mut self, seconds: i64) {
        let second = seconds.rem_euclid(DAY_SECONDS);
        let days = seconds.div_euclid(DAY_SECONDS);
        self.ram[SECONDS] = self.encode(second % MINUTE);
        self.ram[MINUTES] = self.encode(second / MINUTE % 60);
        self.ram[HOURS] = self.encode_hour(second / HOUR);
        self.ram[WEEKDAY] = self.encode((days + FIRST_WEEKDAY).rem_euclid(7) + 1);
        self.show_date(days);
    }

    /// Makes `updates`, one a second. Returns whether the alarm matched after one of them.
    pub fn update(&mut self, mut updates: i64) -> bool {
        let mut alarm = false;
        while let Some((until, by)) = self.next_change().filter(|&(until, _)| until <= updates) {
            alarm |= self.pass(until - 1);
            self.count(1 + by);
            self.fell_back = by < 0;
            alarm |= self.matches_alarm();
            updates -= until;
        }
        alarm | self.pass(updates)
    }

    /// Makes updates between changes of daylight saving. The alarm comes every day at the latest, so it is enough to look for
    /// it on the last one.
    fn pass(&mut self, updates: i64) -> bool {
        let looked_at = updates.min(DAY_SECONDS);
        self.count(updates - looked_at);
        let mut alarm = false;
        for _ in 0..looked_at {
            self.count(1);
            alarm |= self.matches_alarm();
        }
        alarm
    }

    fn matches_alarm(&self) -> bool {
        [
            (HOURS_ALARM, HOURS),
            (MINUTES_ALARM, MINUTES),
            (SECONDS_ALARM, SECONDS),
        ]
        .into_iter()
        .all(|(alarm, time)| self.ram[alarm] >= DONT_CARE || self.ram[alarm] == self.ram[time])
    }

    /// Counts seconds, backwards if negative.
    fn count(&mut self, seconds: i64) {
        let minutes = self.count_register(SECONDS, seconds);
        let hours = self.count_register(MINUTES, minutes);
        if hours == 0 {
            return;
        }
        let hour = self.hour() + hours;
        self.ram[HOURS] = self.encode_hour(hour.rem_euclid(24));
        let days = hour.div_euclid(24);
        if days == 0 {
            return;
        }
        let weekday = self.decode(WEEKDAY) - 1 + days;
        self.ram[WEEKDAY] = self.encode(weekday.rem_euclid(7) + 1);
        self.show_date(days_from_date(self.date()) + days);
    }

    /// Counts a register of 60. Returns how often it wraps.
    fn count_register(&mut self, at: usize, by: i64) -> i64 {
        if by == 0 {
            return 0;
        }
        let sum = self.decode(at) + by;
        self.ram[at] = self.encode(sum.rem_euclid(60));
        sum.div_euclid(60)
    }

    /// The number of updates to the next change of daylight saving, and the seconds that it adds; none if there is no
    /// daylight saving.
    fn next_change(&self) -> Option<(i64, i64)> {
        if self.ram[B] & B_DSE == 0 {
            return None;
        }
        let date = self.date();
        let time = days_from_date(date) * DAY_SECONDS
            + self.hour() * HOUR
            + self.decode(MINUTES) * MINUTE
            + self.decode(SECONDS);
        [date.year, date.year + 1]
            .into_iter()
            .flat_map(|year| CHANGES.map(|change| (year, change)))
            .map(|(year, (month, day, by))| {
                let last = days_from_date(Date { year, month, day });
                let sunday = last - (last + FIRST_WEEKDAY).rem_euclid(7);
                (sunday * DAY_SECONDS + 2 * HOUR - time, by)
            })
            .find(|&(until, by)| until > 0 && !(self.fell_back && by < 0 && until <= HOUR))
    }

    fn date(&self) -> Date {
        Date {
            year: self.decode(CENTURY) * 100 + self.decode(YEAR),
            month: self.decode(MONTH) as u8,
            day: self.decode(DAY) as u8,
        }
    }

    fn show_date(&mut self, days: i64) {
        let date = date_from_days(days);
        self.ram[DAY] = self.encode(date.day.into());
        self.ram[MONTH] = self.encode(date.month.into());
        self.ram[YEAR] = self.encode(date.year.rem_euclid(100));
        self.ram[CENTURY] = self.encode(date.year.div_euclid(100).rem_euclid(100));
    }

    /// The hour that the hours register shows.
    fn hour(&self) -> i64 {
        if self.ram[B] & B_24_HOURS != 0 {
            return self.decode(HOURS);
        }
        let after_noon = if self.ram[HOURS] & PM != 0 { 12 } else { 0 };
        self.decode_value(self.ram[HOURS] & !PM) % 12 + after_noon
    }

    /// The hours register for `hour`, 0 to 23.
    fn encode_hour(&self, hour: i64) -> u8 {
        if self.ram[B] & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let after_noon = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | after_noon
    }

    /// The value of a register in the data mode of register B, 0 to 255.
    fn decode(&self, at: usize) -> i64 {
        self.decode_value(self.ram[at])
    }

    fn decode_value(&self, value: u8) -> i64 {
        let value = i64::from(value);
        if self.ram[B] & B_DM_BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 0xf)
        }
    }

    /// A value below 100 in the data mode of register B.
    fn encode(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.ram[B] & B_DM_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }
}
