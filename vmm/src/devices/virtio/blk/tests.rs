//! Disks as a driver sees them, on files of the host.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use sbe::Width;
use tempfile::TempDir;

use super::*;
use crate::devices::virtio::tests::{
    driver::{BUFFER, CONFIG, Descriptor, Driver, NEEDS_RESET, NEXT, WRITE},
    echo::wait,
};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

const READ: u32 = 0;
const WRITE_DATA: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Features: flush, discard, write zeroes.
const FEATURES: u64 = 1 << 9 | 1 << 13 | 1 << 14;

const SECTORS: u64 = 4096;
const DATA: u64 = BUFFER + 0x1000;
const STATUS: u64 = BUFFER + 0x800;

/// A driver of a disk.
struct Rig {
    driver: Driver,
    done: u16,
}

impl Rig {
    fn new(config: &DiskConfig, features: u64) -> Self {
        let disk = Disk::open(config).unwrap();
        let mut driver = Driver::new(Box::new(disk));
        driver.start(features, 0);
        Self { driver, done: 0 }
    }

    /// Sends a request with `data` descriptors between header and status, and returns status and length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Descriptor]) -> (u8, u32) {
        let header = [kind.to_le_bytes(), [0; 4]].concat();
        self.driver
            .store(BUFFER, &[header, sector.to_le_bytes().into()].concat());
        self.driver.store(STATUS, &[0xee]);
        let mut chain = vec![(BUFFER, 16, NEXT, 1)];
        for (at, &(address, len, flags, _)) in data.iter().enumerate() {
            chain.push((address, len, flags | NEXT, at as u16 + 2));
        }
        chain.push((STATUS, 1, WRITE, 0));
        self.driver.request(&chain);
        self.done += 1;
        while self.driver.used() != self.done && self.driver.status() & NEEDS_RESET == 0 {
            wait(&mut self.driver);
        }
        let (_, len) = self.driver.used_element(self.done - 1);
        (self.driver.bytes(STATUS, 1)[0], len)
    }

    fn read(&mut self, sector: u64, len: u32) -> Vec<u8> {
        self.driver.store(DATA, &vec![0xdd; len as usize]);
        let answer = self.request(READ, sector, &[(DATA, len, WRITE, 0)]);
        assert_eq!(answer, (OK, len + 1));
        self.driver.bytes(DATA, len as usize)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.driver.store(DATA, data);
        self.request(WRITE_DATA, sector, &[(DATA, data.len() as u32, 0, 0)])
            .0
    }

    /// Sends a discard or a write of zeroes with one segment.
    fn clear(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        let segment = [
            &sector.to_le_bytes()[..],
            &sectors.to_le_bytes(),
            &flags.to_le_bytes(),
        ];
        self.driver.store(DATA, &segment.concat());
        self.request(kind, 0, &[(DATA, 16, 0, 0)]).0
    }
}

/// Bytes that tell positions apart.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 512) as u8 | 1).collect()
}

/// A folder with a raw image full of the pattern.
fn image() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, pattern((SECTORS * SECTOR) as usize)).unwrap();
    (folder, path)
}

/// Makes a qcow2 image at `path` over a raw image, as its header says.
fn qcow2(path: &Path, below: &str) {
    qcow2_over(path, below, "raw");
}

fn qcow2_over(path: &Path, below: &str, format: &str) {
    use imago::{FormatCreateBuilder, StorageOpenOptions, file::File, qcow2::Qcow2};
    let options = StorageOpenOptions::new().write(true);
    let file = fs::File::create_new(path).unwrap();
    drop(file);
    let file = fs::File::options().read(true).write(true).open(path);
    let file = File::from_open_file(file.unwrap(), options).unwrap();
    Qcow2::<File>::create_builder(file)
        .size(SECTORS * SECTOR)
        .backing(below.into(), format.into())
        .create()
        .unwrap();
}

#[test]
fn the_configuration_is_as_specified() {
    let (_folder, path) = image();
    let mut rig = Rig::new(&DiskConfig::new(path), FEATURES);
    let driver = &mut rig.driver;
    assert_eq!(driver.pci_read(0), 0x1042_1af4);
    assert_eq!(driver.read(CONFIG, Width::Dword), SECTORS as u32);
    assert_eq!(driver.read(CONFIG + 12, Width::Dword), 254, "seg_max");
    assert_eq!(driver.read(CONFIG + 20, Width::Dword), 512, "blk_size");
    assert_eq!(driver.read(CONFIG + 34, Width::Word), 1, "num_queues");
    assert_eq!(driver.read(CONFIG + 56, Width::Byte), 1, "may unmap");
}

#[test]
fn what_is_written_is_in_the_file() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut rig = Rig::new(&DiskConfig::new(&path), FEATURES);
    assert_eq!(rig.read(3, 1024), before[3 * 512..5 * 512]);
    let new: Vec<u8> = pattern(700 << 10).iter().rev().copied().collect();
    assert_eq!(rig.write(9, &new), OK, "in pieces");
    assert_eq!(rig.read(9, 700 << 10), new);
    assert_eq!(rig.request(FLUSH, 0, &[]), (OK, 1));
    let mut expected = before;
    expected[9 * 512..][..new.len()].copy_from_slice(&new);
    assert_eq!(fs::read(&path).unwrap(), expected);
    let (status, len) = rig.request(GET_ID, 0, &[(DATA, 20, WRITE, 0)]);
    // Only 20 of the bytes are the ID's.
    assert_eq!((status, len), (OK, 21));
    assert_eq!(
        rig.driver.bytes(DATA, 20),
        *b"disk.img\0\0\0\0\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn a_request_can_be_in_many_pieces() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut rig = Rig::new(&DiskConfig::new(&path), 0);
    let pieces: Vec<Descriptor> = [1, 511, 300, 212]
        .into_iter()
        .scan(DATA, |at, len| {
            *at += 0x1000;
            Some((*at, len, WRITE, 0))
        })
        .collect();
    assert_eq!(rig.request(READ, 8, &pieces), (OK, 1025));
    let read: Vec<u8> = pieces
        .iter()
        .flat_map(|(at, len, ..)| rig.driver.bytes(*at, *len as usize))
        .collect();
    assert_eq!(read, before[8 * 512..10 * 512]);
}

#[test]
fn requests_beyond_the_disk_or_of_no_whole_sectors_fail() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut rig = Rig::new(&DiskConfig::new(&path), FEATURES);
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512 + 1, 512),
        (0, 511),
        (0, 513),
    ] {
        let (status, _) = rig.request(READ, sector, &[(DATA, len, WRITE, 0)]);
        assert_eq!(status, IO_ERROR, "{sector} {len}");
        assert_eq!(rig.write(sector, &vec![0; len as usize]), IO_ERROR);
    }
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(rig.clear(kind, SECTORS - 1, 2, 0), IO_ERROR);
        assert_eq!(rig.clear(kind, 0, u32::MAX, 0), IO_ERROR);
        assert_eq!(rig.clear(kind, 0, 1, 2), UNSUPPORTED);
    }
    assert_eq!(rig.clear(DISCARD, 0, 1, 1), UNSUPPORTED);
    for kind in [DISCARD, WRITE_ZEROES] {
        // More segments than the configuration allows, each of one sector.
        rig.driver.store(
            DATA,
            &[[0, 0, 1, 0].map(|word: u32| word.to_le_bytes()); 2]
                .concat()
                .concat(),
        );
        assert_eq!(rig.request(kind, 0, &[(DATA, 32, 0, 0)]).0, IO_ERROR);
    }
    assert_eq!(rig.request(99, 0, &[]).0, UNSUPPORTED);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn zeroes_are_written_and_sectors_discarded() {
    let (_folder, path) = image();
    let mut expected = fs::read(&path).unwrap();
    let mut rig = Rig::new(&DiskConfig::new(&path), FEATURES);
    for (kind, sector, sectors, flags) in [
        (DISCARD, 5, 301, 0),
        (WRITE_ZEROES, 1001, 99, 0),
        (WRITE_ZEROES, 2000, 700, 1),
    ] {
        assert_eq!(rig.clear(kind, sector, sectors, flags), OK);
        let range = sector as usize * 512..(sector as usize + sectors as usize) * 512;
        expected[range].fill(0);
    }
    drop(rig);
    assert_eq!(fs::read(&path).unwrap(), expected);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut config = DiskConfig::new(&path);
    config.read_only = true;
    let mut rig = Rig::new(&config, 1 << 5);
    assert_eq!(rig.write(0, &[0; 512]), IO_ERROR);
    assert_eq!(rig.clear(WRITE_ZEROES, 0, 1, 0), IO_ERROR);
    assert_eq!(rig.read(0, 512), before[..512]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_snapshot_takes_the_writes() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut config = DiskConfig::new(&path);
    config.snapshot = true;
    let mut rig = Rig::new(&config, FEATURES);
    assert_eq!(rig.write(77, &[9; 1024]), OK);
    assert_eq!(rig.clear(DISCARD, 200, 400, 0), OK);
    assert_eq!(rig.request(FLUSH, 0, &[]).0, OK);
    assert_eq!(rig.read(76, 512), before[76 * 512..77 * 512]);
    assert_eq!(rig.read(77, 1024), [9; 1024]);
    assert_eq!(rig.read(300, 512), [0; 512]);
    // Others may read meanwhile.
    Rig::new(&config, 0);
    drop(rig);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_qcow2_image_stands_over_another() {
    let (folder, below) = image();
    let before = fs::read(&below).unwrap();
    let path = folder.path().join("top.qcow2");
    qcow2(&path, "disk.img");
    let config = DiskConfig::new(&path);
    let mut rig = Rig::new(&config, FEATURES);
    assert_eq!(rig.read(10, 512), before[10 * 512..11 * 512]);
    assert_eq!(rig.write(10, &[7; 512]), OK);
    assert_eq!(rig.request(FLUSH, 0, &[]).0, OK);
    drop(rig);
    assert_eq!(fs::read(&below).unwrap(), before);
    let mut rig = Rig::new(&config, FEATURES);
    assert_eq!(rig.read(10, 512), [7; 512]);
    assert_eq!(rig.read(11, 512), before[11 * 512..12 * 512]);
    assert!(Disk::open(&DiskConfig::new(&below)).is_err(), "it is read");
}

#[test]
fn an_image_names_no_files_outside_its_folder() {
    let (_outside, secret) = image();
    let folder = tempfile::tempdir().unwrap();
    for (name, below) in [
        ("absolute.qcow2", secret.to_str().unwrap().to_owned()),
        (
            "relative.qcow2",
            format!(
                "../{}/disk.img",
                secret
                    .parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
            ),
        ),
        ("link.qcow2", "link".into()),
    ] {
        let link = folder.path().join("link");
        let _ = std::os::unix::fs::symlink(&secret, link);
        let path = folder.path().join(name);
        qcow2(&path, &below);
        let error = Disk::open(&DiskConfig::new(path)).err().unwrap();
        assert!(
            error.to_string().contains("not below its own folder"),
            "{error}"
        );
    }
}

#[test]
fn an_image_is_used_by_one_writer_or_by_readers() {
    let (_folder, path) = image();
    let writer = DiskConfig::new(&path);
    let mut reader = DiskConfig::new(&path);
    reader.read_only = true;
    let held = Disk::open(&writer).unwrap();
    for config in [&writer, &reader] {
        let error = Disk::open(config).err().unwrap().to_string();
        assert!(
            error.contains("disk.img: in use by another machine"),
            "{error}"
        );
    }
    drop(held);
    let held = [Disk::open(&reader).unwrap(), Disk::open(&reader).unwrap()];
    assert!(Disk::open(&writer).is_err());
    drop(held);
    Disk::open(&writer).unwrap();
}

#[test]
fn names_and_contents_agree() {
    let (folder, path) = image();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"QFI\xfb", 0).unwrap();
    let mut config = DiskConfig::new(&path);
    let error = Disk::open(&config).err().unwrap();
    assert!(matches!(error, DiskError::Ambiguous { .. }), "{error}");
    config.format = Some(DiskFormat::Raw);
    Disk::open(&config).unwrap();
    config.format = Some(DiskFormat::Qcow2);
    assert!(Disk::open(&config).is_err(), "none");
    fs::write(&path, [0; 1000]).unwrap();
    let error = Disk::open(&DiskConfig::new(&path)).err().unwrap();
    assert!(
        matches!(error, DiskError::Size { size: 1000, .. }),
        "{error}"
    );
    let error = Disk::open(&DiskConfig::new(folder.path().join("none"))).err();
    assert!(error.unwrap().to_string().contains("none: "));
}

/// A guest may write anything to a raw disk, also what would be an image's header to the next machine that has the disk.
#[test]
fn a_raw_disk_that_looks_like_a_qcow2_image_holds_what_is_written() {
    let (folder, _) = image();
    let path = folder.path().join("raw.img");
    qcow2(&path, "disk.img");
    let file = fs::File::options().read(true).write(true).open(&path);
    let file = file.unwrap();
    file.set_len(SECTORS * SECTOR).unwrap();
    let mut l1_offset = [0; 8];
    file.read_exact_at(&mut l1_offset, 40).unwrap();
    let l1_sector = u64::from_be_bytes(l1_offset) / SECTOR;
    assert!((1..SECTORS - 4).contains(&l1_sector));
    let mut config = DiskConfig::new(&path);
    config.format = Some(DiskFormat::Raw);
    let mut rig = Rig::new(&config, FEATURES);
    let mut expected = rig.read(l1_sector - 1, 5 * 512);
    // The first two begin where the L1 table would, the last one before it.
    for (at, sectors, byte) in [(1, 2, 1), (1, 1, 2), (2, 2, 3), (0, 2, 4)] {
        let data = vec![byte; sectors * 512];
        assert_eq!(rig.write(l1_sector - 1 + at as u64, &data), OK);
        expected[at * 512..][..data.len()].copy_from_slice(&data);
        assert!(rig.read(l1_sector - 1, 5 * 512) == expected, "{byte}");
    }
    drop(rig);
    let mut rig = Rig::new(&config, FEATURES);
    assert!(rig.read(l1_sector - 1, 5 * 512) == expected);
}

#[test]
fn requests_without_header_or_status_need_a_reset() {
    let (_folder, path) = image();
    for chain in [
        &[(BUFFER, 16, 0, 0)][..],
        &[(BUFFER, 15, NEXT, 1), (STATUS, 1, WRITE, 0)],
        &[(STATUS, 1, WRITE, 0)],
    ] {
        let mut rig = Rig::new(&DiskConfig::new(&path), 0);
        rig.driver.request(chain);
        while rig.driver.status() & NEEDS_RESET == 0 {
            wait(&mut rig.driver);
        }
    }
}

#[test]
fn requests_survive_anything() {
    let (_folder, path) = image();
    let mut config = DiskConfig::new(&path);
    config.snapshot = true;
    let mut rig = Rig::new(&config, FEATURES);
    let mut seed = 11u64;
    let mut next = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    for _ in 0..2000 {
        let data: Vec<Descriptor> = (0..next() % 3)
            .map(|_| {
                let len = [0, 16, 20, 512, 4096][next() as usize % 5];
                (DATA + u64::from(next() & 0xfff), len, 0, 0)
            })
            .collect();
        let writable = next().is_multiple_of(2);
        let data: Vec<Descriptor> = data
            .into_iter()
            .map(|(at, len, ..)| (at, len, if writable { WRITE } else { 0 }, 0))
            .collect();
        let bytes: Vec<u8> = (0..0x2000).map(|_| next() as u8 & 3).collect();
        rig.driver.store(DATA, &bytes);
        let sector = u64::from(next()) % (2 * SECTORS);
        let (status, _) = rig.request(next() % 15, sector, &data);
        if rig.driver.status() & NEEDS_RESET != 0 {
            rig.driver.start(FEATURES, 0);
            rig.done = 0;
        } else {
            assert!(status <= UNSUPPORTED);
        }
    }
}

#[test]
fn an_image_that_names_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("self.qcow2");
    qcow2_over(&path, "self.qcow2", "qcow2");
    let mut config = DiskConfig::new(path);
    config.read_only = true;
    let error = Disk::open(&config).err().unwrap().to_string();
    assert!(error.contains("more than 16 images"), "{error}");
}

/// Reads only; [`hostile`](super::hostile) writes, too.
#[test]
fn hostile_qcow2_images_are_refused_or_used() {
    let (folder, below) = image();
    fs::write(&below, vec![0; (SECTORS * SECTOR) as usize]).unwrap();
    let path = folder.path().join("top.qcow2");
    qcow2(&path, "disk.img");
    {
        let mut image = Image::open(&DiskConfig::new(&path)).unwrap();
        image.write(&[5; 4096], 65536).unwrap();
        image.discard(0, 65536).unwrap();
    }
    let mut config = DiskConfig::new(&path);
    config.read_only = true;
    let good = fs::read(&path).unwrap();
    let tables: Vec<usize> = (0..good.len())
        .filter(|at| good[*at] != 0 && good[*at] != 5 || *at < 128)
        .collect();
    let mut seed = 5u64;
    let mut next = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize
    };
    let (mut refused, mut used) = (0, 0);
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..=next() % 3 {
            let at = tables[next() % tables.len()];
            bytes[at] = match next() % 3 {
                0 => next() as u8,
                1 => u8::MAX,
                _ => bytes[at] ^ 1 << (next() % 8),
            };
        }
        fs::write(&path, &bytes).unwrap();
        match Image::open(&config) {
            Err(_) => refused += 1,
            Ok(image) => {
                let mut sector = [0; 512];
                for offset in [0, 65536, 131072] {
                    let _ = image.read(&mut sector, offset);
                }
                used += 1;
            }
        }
    }
    assert!(refused > 50 && used > 50, "{refused} {used}");
}
