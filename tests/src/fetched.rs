//! [`fetched`]: what comes from Debian's archive, if it can be had.

use std::{env, fmt};

use guest_kernels::{FetchError, Progress, Stage};

use crate::report::report;

/// Environment variable that says, by the value 1, that nothing can be fetched that the cache lacks.
const OFFLINE: &str = "REPLEX_OFFLINE";

/// What `fetch` has fetched, whose stages are reported. None if `what` cannot be had and that is known; the reason is then
/// reported.
///
/// # Panics
/// If `what` cannot be had and that is not known.
pub fn fetched<T>(
    what: impl fmt::Display,
    fetch: impl FnOnce(&mut dyn Progress) -> Result<T, FetchError>,
) -> Option<T> {
    match fetch(&mut |stage: &Stage| report(&stage.to_string())) {
        Ok(files) => Some(files),
        Err(error) if env::var_os(OFFLINE).is_some_and(|value| value == "1") => {
            report(&format!("skipped, {OFFLINE} is set: {what}: {error}"));
            None
        }
        Err(error) => panic!("{what}: {error}\n({OFFLINE}=1 skips this test)"),
    }
}
