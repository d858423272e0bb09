//! Images of containers: their roots, and what they say about their commands.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use oci_root::{Limits, Progress, Reference, Step};

use crate::message::report_progress;

/// The folder of images in the user's cache.
const FOLDER: &str = "images";
/// Time before the first report of progress, and between two.
const INTERVAL: Duration = Duration::from_secs(1);

/// What an image says about its command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<OsString>,
    /// Further arguments, if the user gives none.
    pub cmd: Vec<OsString>,
    /// The environment, as `NAME=VALUE`.
    pub env: Vec<OsString>,
    /// The working directory.
    pub workdir: Option<PathBuf>,
    /// The user, as `USER[:GROUP]`.
    pub user: Option<String>,
}

impl From<oci_root::ImageConfig> for ImageConfig {
    fn from(config: oci_root::ImageConfig) -> Self {
        let strings = |list: Vec<String>| list.into_iter().map(OsString::from).collect();
        Self {
            entrypoint: strings(config.entrypoint),
            cmd: strings(config.cmd),
            env: strings(config.env),
            workdir: Some(config.working_dir.into()),
            user: (!config.user.is_empty()).then_some(config.user),
        }
    }
}

/// Returns the root of an image as a squashfs in the user's cache, and what the image says.
///
/// # Errors
/// If there is no such image, it cannot be used, or there is no cache.
pub fn open(reference: &Reference) -> Result<(PathBuf, ImageConfig)> {
    let cache = guest_kernels::cache_folder()?.join(FOLDER);
    let mut next = Instant::now() + INTERVAL;
    let mut report = |progress: &Progress| {
        let now = Instant::now();
        // Of a wait there is only one report.
        if now >= next || progress.step == Step::Waiting {
            next = now + INTERVAL;
            report_progress(&format!("image {}: {progress}", reference.path.display()));
        }
    };
    let image = oci_root::open(reference, &cache, &Limits::default(), &mut report)
        .map_err(|error| anyhow!("image {error}"))?;
    Ok((image.squashfs, image.config.into()))
}
