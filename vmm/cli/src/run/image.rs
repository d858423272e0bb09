//! Images of containers: their roots, and what they say about their commands.

use anyhow::{Result, anyhow};
use oci_root::{Fault, Image, Limits, Progress, Reference, Step};

use crate::{message::report_progress, progress::Pace};

/// The folder of images in the user's cache.
const FOLDER: &str = "images";

/// Returns the root of an image as a squashfs in the user's cache, and what the image says.
///
/// # Errors
/// If there is no such image, it cannot be used, or there is no cache.
pub fn open(reference: &Reference) -> Result<Image> {
    let cache = guest_kernels::cache_folder()?.join(FOLDER);
    let mut pace = Pace::new();
    let mut report = |progress: &Progress| {
        // Of a wait there is only one report.
        if pace.is_due(progress.step == Step::Waiting) {
            report_progress(&format!("image {}: {progress}", reference.path.display()));
        }
    };
    oci_root::open(reference, &cache, &Limits::default(), &mut report)
        .map_err(|error| anyhow!("image {error}{}", hint(&error.fault)))
}

/// How another cache is chosen, if this one cannot be made, and what else could be used.
fn hint(fault: &Fault) -> &'static str {
    match fault {
        Fault::File {
            action: "create", ..
        } => " (REPLEX_CACHE chooses another folder)",
        Fault::NotAnImage => ", nor a squashfs",
        _ => "",
    }
}
