//! [`DiskConfig`]: the choices that make a disk, and how they are written in one argument.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;

/// The choices that make a disk. As text: `FILE[,ro][,snapshot][,format=raw|qcow2]`.
///
/// ```
/// use vmm::devices::virtio::{DiskConfig, DiskFormat};
///
/// let config: DiskConfig = "a,b.img,ro,format=qcow2".parse()?;
/// assert_eq!(config.path, std::path::Path::new("a,b.img"));
/// assert!(config.read_only && !config.snapshot);
/// assert_eq!(config.format, Some(DiskFormat::Qcow2));
/// # Ok::<(), vmm::devices::virtio::DiskConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image file, or a block device.
    pub path: PathBuf,
    /// The format. Without one the name says it: that of a qcow2 image ends in `.qcow2`.
    pub format: Option<DiskFormat>,
    /// Whether the guest can only read.
    pub read_only: bool,
    /// Whether what the guest writes is lost with the machine, in a temporary file.
    pub snapshot: bool,
}

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// The error of a disk's description.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiskConfigError {
    /// There is no file name.
    #[error("no file")]
    NoFile,
    /// The format is unknown.
    #[error("unknown format {0:?}; known formats: raw, qcow2")]
    Format(String),
    /// What looks like an option is none.
    #[error(
        "no file {file:?}, and unknown option {option:?}; known options: ro, snapshot, format=raw, format=qcow2"
    )]
    Option {
        /// The whole, as the name of a file.
        file: String,
        /// The last part.
        option: String,
    },
    /// Two options exclude each other.
    #[error("a disk that is read-only has no use for a snapshot")]
    ReadOnlySnapshot,
}

impl DiskConfig {
    /// A writable disk in a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: None,
            read_only: false,
            snapshot: false,
        }
    }
}

impl FromStr for DiskConfig {
    type Err = DiskConfigError;

    fn from_str(text: &str) -> Result<Self, DiskConfigError> {
        let mut config = Self::new("");
        let mut file = text;
        // Options are at the end; other commas belong to the name.
        while let Some((rest, option)) = file.rsplit_once(',') {
            match option {
                "ro" => config.read_only = true,
                "snapshot" => config.snapshot = true,
                _ => match option.strip_prefix("format=") {
                    Some("raw") => config.format = Some(DiskFormat::Raw),
                    Some("qcow2") => config.format = Some(DiskFormat::Qcow2),
                    Some(other) => return Err(DiskConfigError::Format(other.into())),
                    None if is_mistaken(file, option) => {
                        return Err(DiskConfigError::Option {
                            file: file.into(),
                            option: option.into(),
                        });
                    }
                    None => break,
                },
            }
            file = rest;
        }
        if file.is_empty() {
            return Err(DiskConfigError::NoFile);
        }
        if config.read_only && config.snapshot {
            return Err(DiskConfigError::ReadOnlySnapshot);
        }
        config.path = file.into();
        Ok(config)
    }
}

/// Whether `option`, the end of the name `file`, was meant as an option: it is a word, and there is no file of this name.
fn is_mistaken(file: &str, option: &str) -> bool {
    let is_word = !option.is_empty() && option.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word && !Path::new(file).exists()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_follow_the_file() {
        let disk = DiskConfig::new;
        for (text, expected) in [
            ("d.img", disk("d.img")),
            ("/a/b,c.img", disk("/a/b,c.img")),
            ("/a,b/c", disk("/a,b/c")),
            (
                "d,snapshot",
                DiskConfig {
                    snapshot: true,
                    ..disk("d")
                },
            ),
            (
                "d,format=raw,ro",
                DiskConfig {
                    format: Some(DiskFormat::Raw),
                    read_only: true,
                    ..disk("d")
                },
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for (text, error) in [
            ("", DiskConfigError::NoFile),
            (",ro", DiskConfigError::NoFile),
            ("d,format=vmdk", DiskConfigError::Format("vmdk".into())),
            ("d,ro,snapshot", DiskConfigError::ReadOnlySnapshot),
        ] {
            assert_eq!(text.parse::<DiskConfig>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_option_is_refused_unless_it_belongs_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d.raw,readonly");
        let name = file.to_str().unwrap();
        let error = name.parse::<DiskConfig>().unwrap_err().to_string();
        assert!(error.contains("unknown option \"readonly\""), "{error}");
        std::fs::write(&file, "").unwrap();
        assert_eq!(name.parse(), Ok(DiskConfig::new(name)));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = text.parse::<DiskConfig>();
        }
    }
}
