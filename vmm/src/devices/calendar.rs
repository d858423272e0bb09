//! Days and dates of the proleptic Gregorian calendar.

/// A date. Any `month` and `day` are accepted where dates are read; those given out are proper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// The year of the common era.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
}

/// The calendar repeats after 400 years of this many days.
const CYCLE_DAYS: i64 = 146_097;
const CYCLE_YEARS: i64 = 400;
/// Days from 0000-03-01, where the counting below starts, to 1970-01-01.
const UNIX_EPOCH: i64 = 719_468;

/// Days in the months before the one that is `n` months after March: 31, 30, 31, 30, 31 repeats, which a line of slope
/// 153/5 through 2/5 rounds down to.
fn days_before_month(n: i64) -> i64 {
    (153 * n + 2) / 5
}

/// Days since 1970-01-01. A month outside 1 to 12 counts as the nearest; days beyond the month's end run on.
pub fn days_from_date(date: Date) -> i64 {
    let month = i64::from(date.month.clamp(1, 12));
    // Years that begin in March have their leap day at the end.
    let (year, month) = match month {
        1 | 2 => (date.year - 1, month + 9),
        _ => (date.year, month - 3),
    };
    let (cycle, year) = (year.div_euclid(CYCLE_YEARS), year.rem_euclid(CYCLE_YEARS));
    let day = days_before_month(month) + i64::from(date.day) - 1;
    cycle * CYCLE_DAYS + year * 365 + year / 4 - year / 100 + day - UNIX_EPOCH
}

/// The date that is `days` after 1970-01-01.
pub fn date_from_days(days: i64) -> Date {
    let days = days + UNIX_EPOCH;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    // Take out the leap days before this one: every 4 years, not every 100, but the cycle's last day.
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE_DAYS - 1)) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let year = cycle * CYCLE_YEARS + year;
    let day = (day - days_before_month(month) + 1) as u8;
    match month {
        0..=9 => Date {
            year,
            month: month as u8 + 3,
            day,
        },
        _ => Date {
            year: year + 1,
            month: month as u8 - 9,
            day,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (1999, 12, 31, 10_956),
            (2000, 2, 29, 11_016),
            (2000, 3, 1, 11_017),
            (2038, 1, 19, 24_855),
            (1900, 1, 1, -25_567),
            (1600, 1, 1, -135_140),
        ] {
            let date = Date { year, month, day };
            assert_eq!(days_from_date(date), days, "{date:?}");
            assert_eq!(date_from_days(days), date);
        }
    }

    #[test]
    fn consecutive_days_have_consecutive_dates() {
        let mut expected = Date {
            year: 1895,
            month: 1,
            day: 1,
        };
        for days in days_from_date(expected)..days_from_date(Date {
            year: 2405,
            ..expected
        }) {
            assert_eq!(date_from_days(days), expected);
            assert_eq!(days_from_date(expected), days);
            let leap =
                expected.year % 4 == 0 && (expected.year % 100 != 0 || expected.year % 400 == 0);
            let length = match expected.month {
                2 => 28 + u8::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected.day += 1;
            if expected.day > length {
                expected.day = 1;
                expected.month += 1;
            }
            if expected.month > 12 {
                expected.month = 1;
                expected.year += 1;
            }
        }
    }

    #[test]
    fn improper_dates_are_read_without_panic() {
        for month in [0, 13, 255] {
            for day in [0, 32, 255] {
                days_from_date(Date {
                    year: 16_599,
                    month,
                    day,
                });
            }
        }
    }
}
