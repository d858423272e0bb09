//! Exact conversion of nanoseconds to clock pulses and back.
//!
//! Pulse n happens at ceil(n · 10⁹ / f) ns. The functions are inverses: `pulses_until(time_of_pulse(n)) == n`, and one
//! nanosecond earlier it is n − 1.

/// The frequency of the counters' clock, in Hz: a third of the NTSC colour subcarrier's, rounded.
pub const FREQUENCY_HZ: u64 = 1_193_182;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The number of clock pulses from time 0 up to and including `now_ns`.
pub fn pulses_until(now_ns: u64) -> u64 {
    let pulses = u128::from(now_ns) * u128::from(FREQUENCY_HZ) / u128::from(NANOSECONDS_PER_SECOND);
    u64::try_from(pulses)
        .expect("the clock is slower than 1 GHz, so there are fewer pulses than nanoseconds")
}

/// The time of pulse number `pulse` in nanoseconds, or `None` if it does not fit.
pub fn time_of_pulse(pulse: u64) -> Option<u64> {
    let time =
        (u128::from(pulse) * u128::from(NANOSECONDS_PER_SECOND)).div_ceil(u128::from(FREQUENCY_HZ));
    u64::try_from(time).ok()
}
