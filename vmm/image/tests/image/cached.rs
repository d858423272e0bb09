//! The cache: what is made once, what is made again, and several at a time.

use std::fs;
use std::sync::Barrier;

use oci_root::{Arch, Limits, Reference, Step, open};

use crate::contents::{contents, names};
use crate::layer::Layer;
use crate::make::{Files, Packing, Place, Spec};

fn spec() -> Spec {
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|at| at.to_le_bytes()).collect();
    Spec::new([Layer::new().file("a", content), Layer::new().file("b", "")])
}

fn reference(place: &Place) -> Reference {
    Reference {
        path: place.image(),
        name: None,
    }
}

/// Opens the image and returns the steps reported.
fn steps(place: &Place) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut report = |progress: &oci_root::Progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        if steps.last() != Some(&progress.step) {
            steps.push(progress.step);
        }
    };
    open(
        &reference(place),
        &[Arch::i386],
        &place.cache(),
        &Limits::default(),
        &mut report,
    )
    .unwrap();
    steps
}

#[test]
fn an_image_is_made_once() {
    let place = Place::new();
    place.write_tar(&Files::layout(&[spec()]));
    let reading = |layer| Step::Reading { layer, layers: 2 };
    assert_eq!(steps(&place), [reading(1), reading(2), Step::Writing]);
    assert_eq!(steps(&place), []);
    // Another form of the same layers is the same root.
    place.write_tar(&Files::saved(&[spec().packed(Packing::Gzip)]));
    assert_eq!(steps(&place), []);
    place.check(1);
}

#[test]
fn a_truncated_image_is_made_again() {
    let place = Place::new();
    place.write_tar(&Files::layout(&[spec()]));
    let image = place.open().unwrap().squashfs;
    let whole = fs::read(&image).unwrap();
    for length in [0, 10, whole.len() - 4096] {
        fs::write(&image, &whole[..length]).unwrap();
        assert_eq!(place.open().unwrap().squashfs, image);
        assert_eq!(fs::read(&image).unwrap(), whole);
    }
    place.check(1);
}

#[test]
fn what_a_killed_process_leaves_is_overwritten() {
    let place = Place::new();
    place.write_tar(&Files::layout(&[spec()]));
    let image = place.open().unwrap().squashfs;
    let whole = fs::read(&image).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap();
    let partial = format!(".{}.partial", name.strip_suffix(".squashfs").unwrap());
    fs::write(place.cache().join(partial), vec![1; whole.len() * 2]).unwrap();
    fs::remove_file(&image).unwrap();
    place.open().unwrap();
    assert_eq!(fs::read(&image).unwrap(), whole);
    place.check(1);
}

#[test]
fn one_makes_the_image_and_the_others_wait() {
    const OPENERS: usize = 6;
    let place = Place::new();
    place.write_tar(&Files::layout(&[spec()]));
    let barrier = Barrier::new(OPENERS);
    let open = || {
        barrier.wait();
        steps(&place)
    };
    let all: Vec<Vec<Step>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let makers = all.iter().filter(|steps| steps.contains(&Step::Writing));
    assert_eq!(makers.count(), 1, "{all:?}");
    let image = place.open().unwrap().squashfs;
    assert_eq!(names(&contents(&image)), ["a", "b"]);
    place.check(1);
}

#[test]
fn the_next_one_makes_an_image_that_another_failed_to_make() {
    let place = Place::new();
    let mut files = Files::layout(&[spec()]);
    let layer = files
        .0
        .iter()
        .position(|(_, bytes)| bytes.len() > 1_000_000)
        .unwrap();
    files.0[layer].1[5000] ^= 1;
    place.write_tar(&files);
    let barrier = Barrier::new(3);
    let open = || {
        barrier.wait();
        place.open().is_err()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(open)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
    place.check(0);
    files.0[layer].1[5000] ^= 1;
    place.write_tar(&files);
    place.open().unwrap();
    place.check(1);
}
