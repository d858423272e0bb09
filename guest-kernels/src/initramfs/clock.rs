//! The archive that tells /init the host's time.
//!
//! | file | meaning |
//! |---|---|
//! | `/replex/clock` | "TSC SECONDS NANOSECONDS KHZ": the TSC at some time since 1970, and its frequency |
//!
//! The CMOS clock counts whole seconds, so Linux, which adds half of one, is wrong by up to that. /init sets the clock by this file
//! and the TSC before it does anything else, so that files of the host's are not of the guest's future.

use std::time::Duration;

use super::archive::Archive;

const FOLDER: &str = "replex";
const CLOCK_FILE: &str = "replex/clock";

/// Makes the archive that has /init set the clock: when the guest's TSC, which runs at `khz` kHz, was `tsc`, the time since
/// 1970-01-01 00:00 UTC was `unix`. It belongs after the base archive, at a multiple of [`ALIGNMENT`](super::ALIGNMENT).
pub fn clock_archive(tsc: u64, unix: Duration, khz: u64) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder(FOLDER, 0o755);
    let (seconds, nanoseconds) = (unix.as_secs(), unix.subsec_nanos());
    let line = format!("{tsc} {seconds} {nanoseconds} {khz}\n");
    archive.file(CLOCK_FILE, 0o644, line.as_bytes());
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::super::archive::read_back::members;
    use super::*;

    #[test]
    fn the_line_has_all_numbers_in_full() {
        let unix = Duration::new(1_767_225_600, 7_000_001);
        let members = members(&clock_archive(u64::MAX, unix, 2_400_000));
        let names: Vec<_> = members.iter().map(|member| &*member.name).collect();
        assert_eq!(names, [FOLDER, CLOCK_FILE]);
        let line = b"18446744073709551615 1767225600 7000001 2400000\n";
        assert_eq!(members[1].content, line);
    }
}
