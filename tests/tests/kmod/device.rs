//! replex with the device, without it, and with one that it cannot use (`device.sh`): what the user sees.

use guest_kernels::tiny;

use super::build::Built;
use super::machine::{Clock, Machine, Purpose};
use super::replex::{self, counts};
use super::steps::{self, Step, Steps};

/// A guest that ends with [`ENDED`].
#[rustfmt::skip]
const TINY: &[u8] = &[
    0xb0, 42,   // mov al, 42
    0xe6, 0xf4, // out 0xf4, al
    0xf4,       // hlt
];
const ENDED: Option<i32> = Some(42);
/// The status of bad input.
const REFUSED: Option<i32> = Some(2);

/// A command of Debian's with processes enough for a window.
const COMMAND: &str =
    "i=0; while [ $i -lt 20 ]; do i=$((i+1)); /bin/true; done; echo $i; uname -r; exit 3";

/// Whether a step printed one line, which says all of `words`.
fn is_line(step: &Step, words: &[&str]) -> bool {
    step.printed.lines().count() == 1 && words.iter().all(|word| step.printed.contains(word))
}

#[test]
fn replex_tells_what_is_wrong_with_the_device_and_goes_on() {
    let Some(guest) = replex::guest() else { return };
    let machine = Machine {
        clock: Clock::Host,
        purpose: Purpose::Replex,
    };
    let report = super::run(machine, |kernel, _, initramfs| {
        let other = Built::of_another_version(kernel);
        initramfs.file("lib/other.ko", &other.module());
        initramfs.text("guest/tiny", tiny::elf(TINY));
        initramfs.text("guest/command", COMMAND);
        replex::add(initramfs, &guest);
        initramfs.script("bin/test", &steps::script(include_str!("device.sh")));
    });
    let Some(report) = report else { return };
    let steps = Steps::parse(&report.printed);
    for (device, words) in [
        ("absent", &["/dev/replex: no such device"][..]),
        (
            "version",
            &["/dev/replex: the kernel module has version 12345"],
        ),
        (
            "forbidden",
            &["/dev/replex: cannot be opened", "Permission denied"],
        ),
    ] {
        let required = steps.get(&format!("{device}_require"));
        assert_eq!(required.status, REFUSED, "{device}: {required:?}");
        let words = [&["replex: --kmod require: "], words].concat();
        assert!(is_line(required, &words), "{device}: {required:?}");
        let auto = steps.get(&format!("{device}_auto"));
        assert_eq!(auto.status, ENDED, "{device}: {auto:?}");
        match device {
            // Most hosts do without.
            "absent" => assert_eq!(auto.printed, ""),
            _ => assert!(is_line(auto, &words[1..]), "{device}: {auto:?}"),
        }
    }
    assert_eq!(steps.get("tiny").status, ENDED);
    let unload = steps.get("unload");
    assert_ne!(unload.status, Some(0), "{unload:?}");
    assert!(
        is_line(unload, &["rmmod", "temporarily unavailable"]),
        "{unload:?}"
    );
    let [output, errors, status] =
        ["output", "errors", "status"].map(|what| &steps.get(&format!("debian_{what}")).printed);
    assert_eq!(status, "3\n", "{errors}");
    let release = output.strip_prefix("20\n").unwrap_or_default();
    assert!(release.ends_with("-686\n"), "{output}{errors}");
    let counts = counts(errors);
    ::tests::report::report(&format!("Debian 686 with the module: {counts:?}"));
    assert!(counts["faults"] > 0, "{errors}");
}
