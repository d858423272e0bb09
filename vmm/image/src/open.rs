//! The way from a reference to a root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::image::Arch;

use crate::cache::{self, chain_id};
use crate::config::ImageConfig;
use crate::error::{Fault, ImageError, file_fault};
use crate::layer::Root;
use crate::limits::Limits;
use crate::memo::{Memo, Note};
use crate::progress::{Meter, Progress, Report, Step};
use crate::reference::Reference;
use crate::select::{Layer, select};
use crate::source::{self, Source};
use crate::spool::Spool;
use crate::squashfs;

/// An image that a guest can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The root as a squashfs image, a whole number of 4 KiB blocks. It is shared; nobody may write to it.
    pub squashfs: PathBuf,
    /// The architecture of its programs.
    pub architecture: Arch,
    /// The command to run.
    pub config: ImageConfig,
}

/// Makes a root of the image that `reference` names, for Linux on one of `architectures`, in the folder `cache`, unless it is there
/// already. If there are images for several of them, it is that for the first.
///
/// `report` is called now and then, at least once for each step that may take longer than a second. A layer is read only if the
/// root is not in the cache, and an archive that is compressed as a whole only if it is another one, or has been changed, since
/// then.
///
/// # Errors
/// [`ImageError`], which names the image and what is wrong with it; the cache then has nothing new.
pub fn open(
    reference: &Reference,
    architectures: &[Arch],
    cache: &Path,
    limits: &Limits,
    report: &mut dyn FnMut(&Progress),
) -> Result<Image, ImageError> {
    let wanted = Wanted {
        reference,
        architectures,
    };
    let image = open_image(wanted, cache, limits, report, SystemTime::now());
    image.map_err(|fault| ImageError {
        path: reference.path.clone(),
        fault,
    })
}

/// The image that is wanted.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    reference: &'a Reference,
    /// The architectures of which it may be, the preferred one first.
    architectures: &'a [Arch],
}

fn open_image(
    wanted: Wanted<'_>,
    folder: &Path,
    limits: &Limits,
    report: Report<'_>,
    now: SystemTime,
) -> Result<Image, Fault> {
    let Wanted {
        reference,
        architectures,
    } = wanted;
    fs::create_dir_all(folder).map_err(file_fault("create", folder))?;
    let (file, metadata) = source::open(&reference.path)?;
    let name = reference.name.as_deref();
    let memo = Memo::of(&metadata, (name, architectures), folder, now);
    if let Some(note) = memo.recall()
        && let Some(squashfs) = cache::find(folder, &note.key)
    {
        return Ok(Image {
            squashfs,
            architecture: note.architecture,
            config: note.config,
        });
    }
    let opened = (file.clone(), &metadata);
    let source = Source::new(opened, &reference.path, folder, limits, report)?;
    let selected = select(&source, name, architectures)?;
    let diff_ids: Vec<_> = selected.layers.iter().map(|layer| layer.diff_id).collect();
    let key = chain_id(&diff_ids);
    let squashfs = cache::get(folder, &key, report, |file, path, report| {
        let root = read(&source, &selected.layers, folder, limits, report)?;
        root.lost.warn();
        squashfs::write(&root.tree, &root.spool, file, path, limits, report)
    })?;
    let note = Note {
        key,
        architecture: selected.architecture,
        config: selected.config,
    };
    if source.is_uncompressed() {
        memo.keep(&file, &note);
    }
    Ok(Image {
        squashfs,
        architecture: note.architecture,
        config: note.config,
    })
}

/// Reads all layers.
fn read(
    source: &Source,
    layers: &[Layer],
    folder: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<Root, Fault> {
    let mut root = Root::new(Spool::new(folder)?, *limits);
    for (index, layer) in layers.iter().enumerate() {
        let step = Step::Reading {
            layer: index + 1,
            layers: layers.len(),
        };
        let total = source.get(&layer.blob.name)?.len;
        root.apply(source, layer, &mut Meter::start(step, total, report))?;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::Duration;

    use super::*;
    use crate::digest::Digest;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// An image of one file, `command` its command, saved and compressed.
    fn saved(command: &str) -> Vec<u8> {
        let layer = tar(&[(command, b"")]);
        let config = serde_json::json!({
            "architecture": "386",
            "os": "linux",
            "config": {"Cmd": [command]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
        });
        let config = config.to_string();
        let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        let manifest = serde_json::json!([{"Config": config_name, "Layers": ["layer.tar"]}]);
        let archive = tar(&[
            (&config_name, config.as_bytes()),
            ("layer.tar", &layer),
            ("manifest.json", manifest.to_string().as_bytes()),
        ]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    }

    /// A folder with an archive and a cache.
    struct Place(tempfile::TempDir);

    impl Place {
        fn archive(&self) -> PathBuf {
            self.0.path().join("image.tar.gz")
        }

        /// When the archive was changed last.
        fn changed(&self) -> SystemTime {
            let metadata = fs::metadata(self.archive()).unwrap();
            let seconds = metadata.ctime().try_into().unwrap();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        }

        /// Opens the image some time after the archive was changed. Returns its command and whether the archive was uncompressed.
        fn open(&self, later: Duration) -> (String, bool) {
            let reference = Reference {
                path: self.archive(),
                name: None,
            };
            let mut uncompressed = false;
            let mut report =
                |progress: &Progress| uncompressed |= progress.step == Step::Uncompressing;
            let (cache, now) = (self.0.path().join("cache"), self.changed() + later);
            let wanted = Wanted {
                reference: &reference,
                architectures: &[Arch::i386],
            };
            let image = open_image(wanted, &cache, &Limits::default(), &mut report, now);
            (image.unwrap().config.cmd.concat(), uncompressed)
        }
    }

    const SOON: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(10);

    #[test]
    fn a_compressed_archive_is_uncompressed_once() {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.archive(), saved("a")).unwrap();
        assert_eq!(place.open(LATER), ("a".to_owned(), true));
        assert_eq!(place.open(LATER), ("a".to_owned(), false));
        // Without the root, or with a damaged memo, it is not enough.
        for extension in ["squashfs", "memo"] {
            let files = fs::read_dir(place.0.path().join("cache")).unwrap();
            let mut paths = files.map(|file| file.unwrap().path());
            let path = paths.find(|path| path.extension().is_some_and(|own| own == extension));
            fs::write(path.unwrap(), "{").unwrap();
            assert_eq!(place.open(LATER), ("a".to_owned(), true), "{extension}");
            assert_eq!(place.open(LATER), ("a".to_owned(), false), "{extension}");
        }
    }

    #[test]
    fn a_changed_archive_is_uncompressed_again() {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.archive(), saved("a")).unwrap();
        assert_eq!(place.open(LATER), ("a".to_owned(), true));
        let before = fs::metadata(place.archive()).unwrap();
        let ctime = |metadata: &fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
        // The same file, size and mtime; the host may take its time until ctime is another.
        loop {
            fs::write(place.archive(), saved("b")).unwrap();
            let file = File::options().write(true).open(place.archive()).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
            let after = file.metadata().unwrap();
            assert_eq!((after.ino(), after.len()), (before.ino(), before.len()));
            if ctime(&after) != ctime(&before) {
                break;
            }
        }
        assert_eq!(place.open(LATER), ("b".to_owned(), true));
        assert_eq!(place.open(LATER), ("b".to_owned(), false));
    }

    #[test]
    fn an_archive_that_was_just_changed_is_not_remembered() {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.archive(), saved("a")).unwrap();
        for _ in 0..2 {
            assert_eq!(place.open(SOON), ("a".to_owned(), true));
        }
    }
}
