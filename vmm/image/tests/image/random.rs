//! Images with random faults, and layers of random entries.
//!
//! A fixed seed by default; `REPLEX_FUZZ_SECONDS=600` goes on for that long, with new seeds, and `REPLEX_FUZZ_SEED=0x…` repeats one.

use std::fs;
use std::time::{Duration, Instant};

use oci_root::Limits;
use serde_json::Value;
use tar::EntryType;

use crate::contents::contents;
use crate::layer::{Layer, Meta};
use crate::make::{Files, Packing, Place, Spec};

const CASES: u64 = 1500;

/// Small enough that a case is quick, and large enough to be reached now and then only.
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    entries: 500,
    names: 5000,
};

const NAMES: [&str; 24] = [
    "a",
    "b",
    "c",
    "a/b",
    "a/b/c",
    "b/c",
    "./a",
    "/a",
    "a//b/",
    "..",
    "a/../b",
    "",
    "/",
    ".",
    ".wh.a",
    "a/.wh.b",
    ".wh..wh..opq",
    "a/.wh..wh..opq",
    ".wh.",
    ".wh..",
    "link",
    "link/x",
    "link/link",
    "a/link",
];

const KINDS: [EntryType; 12] = [
    EntryType::Regular,
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Char,
    EntryType::Block,
    EntryType::Fifo,
    EntryType::GNUSparse,
    EntryType::XGlobalHeader,
];

const RECORDS: [(&str, &[u8]); 10] = [
    ("path", b"a/paxed"),
    ("path", b"../up"),
    ("linkpath", b"b"),
    ("size", b"99999999999999999999"),
    ("size", b"700"),
    ("uid", b"-1"),
    ("gid", b"4294967295"),
    ("mtime", b"-3.5"),
    ("SCHILY.xattr.user.x", b"a\nb\0"),
    ("GNU.sparse.realsize", b"1"),
];

fn name(rng: &mut fastrand::Rng) -> Vec<u8> {
    match rng.u8(..20) {
        0 => (0..rng.usize(..300)).map(|_| rng.u8(..)).collect(),
        1 => "d/".repeat(rng.usize(..400)).into(),
        2 => "n".repeat(rng.usize(..5000)).into(),
        _ => rng.choice(NAMES).unwrap_or("a").into(),
    }
}

fn number(rng: &mut fastrand::Rng) -> u64 {
    match rng.u8(..4) {
        0 => rng.u64(..),
        1 => u64::MAX - rng.u64(..3),
        _ => rng.u64(..70000),
    }
}

fn layer(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut layer = Layer::new();
    for _ in 0..rng.usize(..12) {
        if rng.u8(..6) == 0 {
            let records: Vec<_> = (0..rng.usize(1..4))
                .filter_map(|_| rng.choice(RECORDS))
                .collect();
            layer = layer.pax(&records);
        }
        let kind = rng.choice(KINDS).unwrap_or(EntryType::Regular);
        let is_odd = rng.u8(..8) == 0;
        let mut odd = |usual: u64| if is_odd { number(rng) } else { usual };
        let meta = Meta {
            mode: odd(0o4755) as u32,
            uid: odd(0),
            gid: odd(100),
            mtime: odd(1_000_000_000),
        };
        let (name, target) = (name(rng), name(rng));
        let content = vec![rng.u8(..2); rng.usize(..3000)];
        layer = layer.entry(kind, name, target, meta, content);
    }
    layer.finish()
}

/// Changes some bytes of a layer, keeping the checksums of headers right half of the time.
fn spoil(rng: &mut fastrand::Rng, layer: &mut Vec<u8>) {
    if layer.is_empty() {
        return;
    }
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..layer.len());
        layer[at] = match rng.u8(..3) {
            0 => rng.u8(..),
            1 => layer[at] ^ 1 << rng.u8(..8),
            _ => rng.choice(*b"\0 /.07x\xff\x80").unwrap_or(0),
        };
        let header = at / 512 * 512;
        if rng.bool() && header + 512 <= layer.len() {
            let mut sum: u32 = 0;
            for (offset, byte) in layer[header..header + 512].iter().enumerate() {
                sum += if (148..156).contains(&offset) {
                    32
                } else {
                    u32::from(*byte)
                };
            }
            layer[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    if rng.u8(..10) == 0 {
        layer.truncate(rng.usize(..layer.len()));
    }
}

/// Changes a value somewhere in a document.
fn spoil_document(rng: &mut fastrand::Rng, document: &mut Value) {
    match document {
        Value::Array(list) if !list.is_empty() && rng.u8(..4) != 0 => {
            let at = rng.usize(..list.len());
            if rng.u8(..6) == 0 {
                list.push(list[at].clone());
            }
            spoil_document(rng, &mut list[at]);
        }
        Value::Object(fields) if !fields.is_empty() && rng.u8(..8) != 0 => {
            let at = rng.usize(..fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                spoil_document(rng, field);
            }
        }
        other => {
            let values = [
                Value::Null,
                Value::from(-1),
                Value::from(u64::MAX),
                Value::from("../../x"),
                Value::from("sha256:"),
                Value::from("linux"),
                Value::from(Vec::<Value>::new()),
                other.clone(),
            ];
            *other = rng.choice(values).unwrap_or(Value::Null);
        }
    }
}

fn packing(rng: &mut fastrand::Rng) -> Packing {
    rng.choice([Packing::Plain, Packing::Gzip, Packing::Zstd])
        .unwrap_or(Packing::Plain)
}

/// Makes the bytes of an archive.
fn archive(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut layers: Vec<_> = (0..rng.usize(..4)).map(|_| layer(rng)).collect();
    let form = rng.u8(..8);
    if form < 3 {
        layers.iter_mut().for_each(|layer| spoil(rng, layer));
    }
    let spec = Spec::of_bytes(layers).packed(packing(rng)).named("it");
    let mut files = if rng.bool() {
        Files::layout(&[spec])
    } else {
        Files::saved(&[spec])
    };
    if form == 3 {
        let at = rng.usize(..files.0.len());
        if let Ok(mut document) = serde_json::from_slice(&files.0[at].1) {
            spoil_document(rng, &mut document);
            files.0[at].1 = document.to_string().into();
        }
    }
    let mut archive = files.tar();
    if form == 4 {
        spoil(rng, &mut archive);
    }
    if rng.u8(..10) == 0 {
        packing(rng).pack(&archive)
    } else {
        archive
    }
}

/// Runs one case. Returns whether an image came out.
fn run(seed: u64) -> bool {
    let mut rng = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    fs::write(place.image(), archive(&mut rng)).unwrap();
    let image = place.open_named(None, &LIMITS);
    place.check(usize::from(image.is_ok()));
    if let Ok(image) = &image {
        contents(&image.squashfs);
    }
    image.is_ok()
}

/// Says which seed has failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("REPLEX_FUZZ_SEED={:#x}", self.0);
        }
    }
}

fn run_all(seeds: impl Iterator<Item = u64>, until: impl Fn() -> bool) -> (u64, u64) {
    let (mut cases, mut images) = (0, 0);
    for seed in seeds.take_while(|_| !until()) {
        let _seed = Seed(seed);
        images += u64::from(run(seed));
        cases += 1;
    }
    (cases, images)
}

#[test]
fn random_images_are_opened_or_refused() {
    if let Ok(seed) = std::env::var("REPLEX_FUZZ_SEED") {
        let seed =
            u64::from_str_radix(seed.trim_start_matches("0x"), 16).expect("a hexadecimal number");
        run_all([seed].into_iter(), || false);
        return;
    }
    let Ok(seconds) = std::env::var("REPLEX_FUZZ_SECONDS") else {
        let (_, images) = run_all(0..CASES, || false);
        assert!(images > CASES / 50, "only {images} images were good");
        return;
    };
    let end = Instant::now() + Duration::from_secs(seconds.parse().expect("seconds"));
    let first = fastrand::u64(..1 << 48);
    let (cases, images) = run_all(first.., || Instant::now() >= end);
    println!("{cases} archives from seed {first:#x}, {images} of them good, no panic");
}
