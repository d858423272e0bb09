//! An image as users name it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A folder or an archive and, optionally, the name of one of the images in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The folder or archive.
    pub path: PathBuf,
    /// The image's name or tag.
    pub name: Option<String>,
}

impl Reference {
    /// Reads `PATH` or `PATH:NAME`. The longest beginning of `text`, up to a colon, that is a file or folder is the path; so a
    /// name may have colons, as in `saved.tar:busybox:latest`, and a path may, too.
    ///
    /// Returns `None` if no beginning exists or the name is not UTF-8.
    pub fn parse(text: &OsStr) -> Option<Self> {
        if Path::new(text).exists() {
            return Some(Self {
                path: text.into(),
                name: None,
            });
        }
        let bytes = text.as_bytes();
        let mut colons = (0..bytes.len()).rev().filter(|&at| bytes[at] == b':');
        let colon = colons.find(|&at| Path::new(OsStr::from_bytes(&bytes[..at])).exists())?;
        Some(Self {
            path: OsStr::from_bytes(&bytes[..colon]).into(),
            name: Some(str::from_utf8(&bytes[colon + 1..]).ok()?.to_owned()),
        })
    }

    /// Whether the path looks like an image: a file, or a folder with `oci-layout`, `index.json` or `manifest.json`.
    pub fn is_image(&self) -> bool {
        self.path.is_file()
            || ["oci-layout", "index.json", "manifest.json"]
                .iter()
                .any(|name| self.path.join(name).is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_longest_path_that_exists_is_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a:b");
        fs::create_dir(&path).unwrap();
        let parse = |suffix: &str| {
            let mut text = path.clone().into_os_string();
            text.push(suffix);
            Reference::parse(&text).map(|reference| (reference.path, reference.name))
        };
        assert_eq!(parse(""), Some((path.clone(), None)));
        assert_eq!(parse(":x"), Some((path.clone(), Some("x".into()))));
        assert_eq!(
            parse(":x:latest"),
            Some((path.clone(), Some("x:latest".into())))
        );
        assert_eq!(Reference::parse(OsStr::new("/nowhere/at:all")), None);
    }

    #[test]
    fn a_folder_is_an_image_by_its_index() {
        let folder = tempfile::tempdir().unwrap();
        let reference = Reference {
            path: folder.path().into(),
            name: None,
        };
        assert!(!reference.is_image());
        fs::write(folder.path().join("index.json"), "{}").unwrap();
        assert!(reference.is_image());
    }
}
