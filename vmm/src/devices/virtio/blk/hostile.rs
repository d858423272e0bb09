//! qcow2 images whose headers and tables anybody may have written, opened and then read and written as a guest does.
//!
//! A fixed seed by default; `REPLEX_FUZZ_SECONDS=600` goes on for that long, with new seeds, and `REPLEX_FUZZ_SEED=0x…` repeats one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use imago::{FormatCreateBuilder as _, StorageOpenOptions, file::File, qcow2::Qcow2};

use super::{
    config::{DiskConfig, DiskFormat},
    image::Image,
    refcounts,
};
use crate::devices::virtio::tests::fuzz::more_seeds;

/// The size of the disks.
const SIZE: u64 = 1 << 20;
/// The images of a seed, and the accesses to each.
const IMAGES: usize = 400;
const ACCESSES: usize = 40;
/// The longest access.
const LONGEST: u64 = 64 << 10;

/// Cluster sizes and widths of refcounts.
const FORMS: [(usize, usize); 5] = [(512, 16), (512, 1), (4096, 16), (512, 64), (65536, 8)];

/// The bits of an entry that say what it leads to.
const FLAGS: [u64; 4] = [1 << 63, 1 << 62, 1, 0];

/// The outcomes of a seed.
#[derive(Debug, Default)]
struct Outcomes {
    refused: usize,
    opened: usize,
    written: usize,
    failed: usize,
}

/// An image to begin with, and where in it a change is likely to matter.
struct Model {
    bytes: Vec<u8>,
    cluster: usize,
    places: Vec<usize>,
}

fn config(path: &Path) -> DiskConfig {
    let mut config = DiskConfig::new(path);
    config.format = Some(DiskFormat::Qcow2);
    config
}

/// Creates an image with these sizes of clusters and refcounts, over the file `below` if that is named.
fn create(path: &Path, (cluster, width): (usize, usize), below: Option<&str>) {
    let _ = fs::remove_file(path);
    let options = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let file = File::from_open_file(options.unwrap(), StorageOpenOptions::new().write(true));
    let mut builder = Qcow2::<File>::create_builder(file.unwrap())
        .size(SIZE)
        .cluster_size(cluster)
        .refcount_width(width);
    if let Some(below) = below {
        builder = builder.backing(below.into(), "raw".into());
    }
    builder.create().unwrap();
}

/// Makes one access to `image`, and to `mirror`. Returns whether it succeeded.
fn access(random: &mut Rng, image: &mut Image, mirror: &mut [u8]) -> bool {
    let size = image.size().min(SIZE);
    let len = random.u64(1..=LONGEST.min(size));
    let offset = random.u64(..=size - len);
    let range = offset as usize..(offset + len) as usize;
    let done = match random.u8(..10) {
        0..4 => image.read(&mut vec![0; len as usize], offset),
        4..7 => {
            let bytes = vec![random.u8(..); len as usize];
            mirror[range].copy_from_slice(&bytes);
            image.write(&bytes, offset)
        }
        7 => {
            mirror[range].fill(0);
            image.write_zeroes(offset, len)
        }
        8 => {
            mirror[range].fill(0);
            image.discard(offset, len)
        }
        _ => image.flush(),
    };
    done.is_ok()
}

fn models(random: &mut Rng, path: &Path) -> Vec<Model> {
    let model = |form: (usize, usize)| {
        create(path, form, random.bool().then_some("below"));
        let mut image = Image::open(&config(path)).unwrap();
        let mut mirror = vec![0; SIZE as usize];
        for _ in 0..12 {
            access(random, &mut image, &mut mirror);
        }
        drop(image);
        let bytes = fs::read(path).unwrap();
        let (cluster, len) = (form.0, bytes.len());
        // Data that the guest has written consists of one byte again and again.
        let tables = (0..len / cluster).filter(|at| {
            let bytes = &bytes[at * cluster..(at + 1) * cluster];
            bytes.iter().any(|byte| *byte != bytes[0])
        });
        let places = tables.flat_map(|at| at * cluster..(at + 1) * cluster);
        let places = places.filter(|at| bytes[*at] != 0 || *at < 112).collect();
        Model {
            bytes,
            cluster,
            places,
        }
    };
    FORMS.into_iter().map(model).collect()
}

/// Changes a few numbers in the header or the tables.
fn spoil(random: &mut Rng, model: &Model) -> Vec<u8> {
    let mut bytes = model.bytes.clone();
    for _ in 0..random.usize(1..4) {
        let at = model.places[random.usize(..model.places.len())];
        if random.bool() {
            bytes[at] = match random.u8(..3) {
                0 => random.u8(..),
                1 => u8::MAX,
                _ => bytes[at] ^ 1 << random.u8(..8),
            };
            continue;
        }
        // An entry that leads nowhere, to another cluster, or beyond the file.
        let cluster = match random.u8(..5) {
            0 => 0,
            1 => random.u64(..1 << 40),
            _ => random.u64(..2 * (bytes.len() / model.cluster) as u64),
        };
        let flags = FLAGS[random.usize(..FLAGS.len())];
        let entry = (cluster * model.cluster as u64) & !(0xff << 56) | flags;
        let at = at & !7;
        bytes[at..at + 8].copy_from_slice(&entry.to_be_bytes());
    }
    bytes
}

/// Opens spoilt images, and reads and writes those that are not refused.
fn fuzz(seed: u64, folder: &Path) -> Outcomes {
    let mut random = Rng::with_seed(seed);
    let path = folder.join("image");
    let models = models(&mut random, &path);
    let mut outcomes = Outcomes::default();
    for _ in 0..IMAGES {
        let model = &models[random.usize(..models.len())];
        fs::write(&path, spoil(&mut random, model)).unwrap();
        let mut config = config(&path);
        match random.u8(..8) {
            0 => config.read_only = true,
            1 => config.snapshot = true,
            _ => {}
        }
        let Ok(mut image) = Image::open(&config) else {
            outcomes.refused += 1;
            continue;
        };
        outcomes.opened += 1;
        if image.size() == 0 {
            continue;
        }
        let mut mirror = vec![0; SIZE as usize];
        for _ in 0..ACCESSES {
            match access(&mut random, &mut image, &mut mirror) {
                true => outcomes.written += 1,
                false => outcomes.failed += 1,
            }
        }
    }
    outcomes
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("below"), vec![7; SIZE as usize]).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn hostile_images_are_refused_or_written() {
    let (_folder, path) = folder();
    let outcomes = fuzz(13, &path);
    println!("{outcomes:?}");
    assert!(outcomes.refused > 50 && outcomes.opened > 50 && outcomes.written > 50);
    more_seeds(|seed| {
        fuzz(seed, &path);
    });
}

/// An allocator that finds no refcount block for cluster 0 puts one there, where an entry of 0 leads: to nowhere.
#[test]
fn an_image_without_its_first_refcount_block_is_only_read() {
    let (_folder, folder) = folder();
    let path = folder.join("image");
    create(&path, FORMS[0], None);
    let mut bytes = fs::read(&path).unwrap();
    // The offset of the refcount table in the header.
    let table = bytes[48..56]
        .iter()
        .fold(0, |value, byte| value << 8 | usize::from(*byte));
    bytes[table..table + 8].fill(0);
    fs::write(&path, bytes).unwrap();
    let mut config = config(&path);
    let error = Image::open(&config).err().unwrap().to_string();
    assert!(
        error.contains("the refcount of cluster 0 is wrong"),
        "{error}"
    );
    config.read_only = true;
    Image::open(&config).unwrap().read(&mut [0], 0).unwrap();
}

/// imago would look behind the end of the part of an entry.
#[test]
fn a_table_of_feature_names_that_ends_within_an_entry_is_refused() {
    let (_folder, folder) = folder();
    let path = folder.join("image");
    create(&path, FORMS[0], None);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes[100..104]
        .iter()
        .fold(0, |value, byte| value << 8 | usize::from(*byte));
    let table = [0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 49];
    bytes[end..end + 8].copy_from_slice(&table);
    fs::write(&path, bytes).unwrap();
    for read_only in [false, true] {
        let mut config = config(&path);
        config.read_only = read_only;
        let error = Image::open(&config).err().unwrap().to_string();
        assert!(error.contains("table of feature names"), "{error}");
    }
}

/// What a guest writes is there, also for the next machine, whatever the sizes of clusters and refcounts; and had the process been
/// killed after any of the accesses, the image could be written again.
#[test]
fn images_hold_what_is_written() {
    let (_folder, folder) = folder();
    let path = folder.join("image");
    let mut random = Rng::with_seed(5);
    for form in FORMS.into_iter().cycle().take(20) {
        create(&path, form, None);
        let mut mirror = vec![0; SIZE as usize];
        for _ in 0..4 {
            let mut image = Image::open(&config(&path)).unwrap();
            for _ in 0..ACCESSES {
                assert!(access(&mut random, &mut image, &mut mirror));
                refcounts::check(&fs::File::open(&path).unwrap()).unwrap();
            }
            let mut bytes = vec![0; SIZE as usize];
            image.read(&mut bytes, 0).unwrap();
            assert!(bytes == mirror, "{form:?}");
        }
    }
}
