//! Images of containers: their roots, and what they say about their commands.

use anyhow::{Result, anyhow};
use guest_kernels::Architecture;
use oci_root::{Arch, Fault, Image, Limits, Progress, Reference, Step};

use crate::{message::report_progress, progress::Pace};

/// The folder of images in the user's cache.
const FOLDER: &str = "images";

/// Returns the root of an image for the first possible one of `architectures` as a squashfs in the user's cache, and what the image
/// says.
///
/// # Errors
/// If there is no such image, it cannot be used, or there is no cache.
pub fn open(reference: &Reference, architectures: &[Architecture]) -> Result<Image> {
    let cache = guest_kernels::cache_folder()?.join(FOLDER);
    let mut pace = Pace::new();
    let mut report = |progress: &Progress| {
        // Of a wait there is only one report.
        if pace.is_due(progress.step == Step::Waiting) {
            report_progress(&format!("image {}: {progress}", reference.path.display()));
        }
    };
    let architectures: Vec<Arch> = architectures.iter().copied().map(arch).collect();
    oci_root::open(
        reference,
        &architectures,
        &cache,
        &Limits::default(),
        &mut report,
    )
    .map_err(|error| anyhow!("image {error}{}", hint(&error.fault)))
}

/// Returns the name of an architecture in images.
const fn arch(architecture: Architecture) -> Arch {
    match architecture {
        Architecture::I386 => Arch::i386,
        Architecture::Amd64 => Arch::Amd64,
    }
}

/// Returns the architecture of an image's programs.
pub fn architecture(image: &Image) -> Option<Architecture> {
    let mut all = Architecture::ALL.into_iter();
    all.find(|&architecture| arch(architecture) == image.architecture)
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
