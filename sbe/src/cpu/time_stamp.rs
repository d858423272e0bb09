//! The time-stamp counter: the guest's is the host's plus an offset (SDM Vol. 3B, 17.17 "Time-Stamp Counter").

use super::Cpu;

/// The host's time-stamp counter.
pub fn host_time_stamp() -> u64 {
    // SAFETY: RDTSC reads a counter; every x86-64 processor has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

impl Cpu {
    /// The guest's time-stamp counter when the host's is `host`.
    pub fn time_stamp(&self, host: u64) -> u64 {
        host.wrapping_add(self.tsc_offset)
    }

    /// Sets the guest's time-stamp counter to `value`, which it has when the host's is `host`.
    pub fn set_time_stamp(&mut self, value: u64, host: u64) {
        self.tsc_offset = value.wrapping_sub(host);
    }
}
