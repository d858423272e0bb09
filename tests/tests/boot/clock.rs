//! The guest's clock is the host's, so that files that a guest makes on the host are not of its future.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use guest_kernels::Guest;

use crate::{
    program::Boot,
    screen::{PROMPT, Screen, start},
};

/// The function `look` of the guest's shell. It prints the time before and after it makes a file on the host, each as "time
/// SECONDS MICROSECONDS".
const LOOK: &str = "\
    now() { echo time $(adjtimex | sed -n 's/.*time.tv_.*: *//p'); }
    look() { now; touch /src/file; now; echo end; }";
/// By how much the clocks may differ: as much as the host's is adjusted in half a minute at most (adjtimex(2)), and a little.
const SLACK: Duration = Duration::from_millis(20);
/// How often the guest looks. The first time it takes longer, so the bounds are wide.
const ROUNDS: u32 = 3;

/// The times since 1970 that the guest has printed.
fn times(text: &str) -> Vec<Duration> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("time "));
    let time = |line: &str| {
        let (seconds, micros) = line.split_once(' ').unwrap();
        let micros = Duration::from_micros(micros.parse().unwrap());
        Duration::from_secs(seconds.parse().unwrap()) + micros
    };
    lines.map(time).collect()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Has the guest `look` a few times, where a shell waits for that.
fn check(screen: &mut Screen, dir: &Path) {
    for _ in 0..ROUNDS {
        look(screen, dir);
    }
}

/// Has the guest `look`, and checks the times that it prints and that of its file in `dir`. A host that is busy makes the bounds
/// wider, not wrong.
fn look(screen: &mut Screen, dir: &Path) {
    let asked = now();
    screen.type_keys("look\r");
    let text = screen.expect("\r\nend\r\n");
    let answered = now();
    let [before, after] = times(&text)[..] else {
        panic!("{text}");
    };
    let modified = fs::metadata(dir.join("file")).unwrap().modified().unwrap();
    let modified = modified.duration_since(UNIX_EPOCH).unwrap();
    let all = format!("{asked:?}, {before:?}, {after:?}, {answered:?}; file: {modified:?}");
    assert!(asked <= before + SLACK, "behind: {all}");
    assert!(before <= after, "backwards: {all}");
    assert!(after <= answered + SLACK, "ahead: {all}");
    assert!(modified <= after + SLACK, "a file of the future: {all}");
}

#[test]
fn the_clock_of_a_command_on_debian_686() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut screen, terminal) = Screen::open();
    let boot = boot
        .flag("-t")
        .with("--volume", &format!("{}:/src", dir.path().display()))
        .command_line(&[
            "sh",
            "-c",
            &format!("{LOOK}\necho ready; while read -r line && [ $line ]; do look; done"),
        ]);
    let running = start(&boot, &terminal);
    screen.expect("ready\r\n");
    check(&mut screen, dir.path());
    screen.type_keys("\r");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn the_clock_of_a_shell_on_debian_686_pae() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut screen, terminal) = Screen::open();
    let boot = boot.with("--volume", &format!("{}:/src", dir.path().display()));
    let running = start(&boot, &terminal);
    screen.expect(PROMPT);
    for line in LOOK.lines() {
        screen.command(line.trim());
    }
    check(&mut screen, dir.path());
    screen.expect(PROMPT);
    screen.type_keys("poweroff\r");
    assert_eq!(running.wait().code(), Some(0));
}
