//! Machines that are killed while they write to a disk, as a power cut ends a real one.
//!
//! The disk is a qcow2 image over a raw one, with ext4 in it. The guest writes, discards and syncs, and says so after each fsync.
//! After SIGKILL at a random moment the image has no fault but clusters that are counted and not used, the file system none once
//! its journal has been replayed, and what fsync had acknowledged is there. Then the next machine goes on with the same image.
//!
//! By hand, more kills, from another seed each time:
//!
//! ```text
//! REPLEX_KILLS=200 cargo test --release -p tests --test boot -- killed --nocapture
//! ```

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use guest_kernels::Guest;
use tests::{hang::Guarded, report::report};

use crate::program::Boot;

/// The environment variable with the number of kills.
const KILLS: &str = "REPLEX_KILLS";
/// The number of kills without that variable: each size of clusters twice.
const DEFAULT: usize = 6;
/// The seed without it.
const SEED: u64 = 13;

/// The kills that an image takes before there is a new one.
const LIVES: usize = 2;
/// The cluster sizes of the images, in turn. Small ones have many tables.
const CLUSTERS: [&str; 3] = ["65536", "4096", "512"];
/// The longest time that a guest writes, in milliseconds.
const LONGEST: u64 = 1500;

/// The files that the guest keeps at least, from the latest one back.
const KEPT: u64 = 30;
/// The size of the raw image.
const SIZE: &str = "64M";

/// What the guest does. File number i has a size of its own, and "i" in each line. Its writes to `noise` are never acknowledged.
const SCRIPT: &str = r#"
mkdir /mnt && mount -t ext4 -o discard /dev/vda /mnt && rm -f /mnt/f* || exit 1
i=0
while :; do
    i=$((i + 1))
    dd if=/bin/busybox of=/mnt/noise bs=1k seek=$((i * 7919 % 20000)) count=$((i % 64 + 1)) conv=notrunc 2> /dev/null
    yes $i | head -c $((i * 7919 % 150000 + 1)) | dd of=/mnt/f$i bs=64k conv=fsync 2> /dev/null || exit 1
    echo $i
    rm -f /mnt/f$((i - 40))
done
"#;

/// The content of file `number`.
fn content(number: u64) -> Vec<u8> {
    let line = format!("{number}\n").into_bytes();
    let size = number * 7919 % 150_000 + 1;
    line.into_iter().cycle().take(size as usize).collect()
}

/// Runs a program of the host's, and returns its exit status and all that it prints, or none if it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<(i32, String)> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let Output { stdout, stderr, .. } = &output;
    let text = [&**stdout, stderr].map(String::from_utf8_lossy).concat();
    Some((output.status.code().unwrap_or(-1), text))
}

/// Runs a program that is installed and must succeed.
fn must(program: &str, arguments: &[&str]) -> String {
    let (status, text) = run(program, arguments).unwrap();
    assert_eq!(status, 0, "{program} {arguments:?}: {text}");
    text
}

/// Boots the image, kills the machine after `pause` from its first acknowledgement on, and returns the last one.
fn write_until_killed(boot: Boot, image: &str, pause: Duration) -> u64 {
    let boot = boot.with("--disk", image).with("--exec", SCRIPT);
    let mut command = boot.command();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Guarded::new(command.spawn().unwrap());
    let lines = BufReader::new(machine.child.stdout.take().unwrap()).lines();
    // A number that the death has cut off is smaller than the one before it.
    let mut numbers = lines.map_while(|line| line.ok()?.parse().ok());
    let first: u64 = numbers.next().expect("the first file");
    let rest = thread::spawn(move || numbers.fold(first, u64::max));
    thread::sleep(pause);
    machine.child.kill().unwrap();
    machine.wait();
    rest.join().unwrap()
}

/// Checks the image after the death of a machine that had acknowledged files up to `last`, and returns how many clusters are counted
/// and not used.
fn check(folder: &Path, image: &str, last: u64) -> u64 {
    let (status, text) = run("qemu-img", &["check", image]).unwrap();
    // 3: leaked clusters, and nothing else.
    assert!(
        status == 0 || status == 3,
        "qemu-img check: {status}: {text}"
    );
    let leaked = text.lines().find_map(|line| {
        let (count, _) = line.split_once(" leaked clusters")?;
        count.parse().ok()
    });
    let raw = folder.join("raw");
    let raw = raw.to_str().unwrap();
    must("qemu-img", &["convert", "-O", "raw", image, raw]);
    let (status, text) = run("e2fsck", &["-p", raw]).unwrap();
    assert!(status <= 1, "e2fsck -p: {status}: {text}");
    must("e2fsck", &["-fn", raw]);
    let files = folder.join("files");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir(&files).unwrap();
    must(
        "debugfs",
        &["-R", &format!("rdump / {}", files.display()), raw],
    );
    for number in last.saturating_sub(KEPT).max(1)..=last {
        let found = fs::read(files.join(format!("f{number}")));
        assert!(
            found.is_ok_and(|found| found == content(number)),
            "file {number} of {last}"
        );
    }
    let kept = fs::read(files.join("kept")).unwrap();
    assert!(kept == content(1_000_003), "a file of the image below");
    leaked.unwrap_or(0)
}

#[test]
fn a_killed_machine_leaves_what_a_power_cut_would() {
    let Some(_) = Boot::of(Guest::Debian686) else {
        return;
    };
    for (program, arguments) in [
        ("qemu-img", "--version"),
        ("mke2fs", "-V"),
        ("debugfs", "-V"),
    ] {
        if run(program, &[arguments]).is_none() {
            report(&format!(
                "skipped: checking a killed machine's disk takes {program}"
            ));
            return;
        }
    }
    let by_hand = env::var(KILLS).ok();
    let kills = by_hand
        .as_ref()
        .map_or(DEFAULT, |count| count.parse().unwrap());
    let seed = by_hand.map_or(SEED, |_| fastrand::u64(..));
    report(&format!("{kills} kills, seed {seed:#x}"));
    let mut random = fastrand::Rng::with_seed(seed);

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/kept"), content(1_000_003)).unwrap();
    must(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-d",
            &path("tree"),
            &path("below"),
            SIZE,
        ],
    );
    let image = path("image.qcow2");
    let (mut files, mut leaked) = (0, 0);
    for kill in 0..kills {
        if kill % LIVES == 0 {
            let _ = fs::remove_file(&image);
            let options = format!("cluster_size={}", CLUSTERS[kill / LIVES % CLUSTERS.len()]);
            let below = ["-b", "below", "-F", "raw"];
            let arguments = ["create", "-q", "-f", "qcow2", "-o", &options];
            must("qemu-img", &[&arguments[..], &below, &[&image]].concat());
        }
        let boot = Boot::of(Guest::Debian686).unwrap();
        let pause = Duration::from_millis(random.u64(..LONGEST));
        let last = write_until_killed(boot, &image, pause);
        files += last;
        leaked += check(folder.path(), &image, last);
    }
    report(&format!(
        "{kills} kills: {files} files acknowledged, {leaked} clusters leaked"
    ));
}
