//! The host's kernel module of `kmod/` in a virtual machine: built for a Debian kernel with that kernel's headers, loaded, put
//! under stress (`kmod/test/stress.c`), its costs counted (`kmod/test/count.c`), used by replex, unloaded. Nothing on the system is
//! changed, and no privilege is needed.
//!
//! ```text
//! kernel, headers, busybox (fetched) ─┐
//! kmod/*.c       ─▶ replex.ko         ├─▶ initramfs ─▶ QEMU's translator ─▶ what init.sh prints
//! kmod/test/*.c  ─▶ static programs   │
//! replex, its guest, tests of it     ─┘
//! ```
//!
//! REPLEX_KMOD_KERNEL chooses the kernel: 6.1 (the default) or 6.12. Where QEMU or what the build needs is not installed, the tests
//! say that they are skipped; so they do where the kernel cannot be fetched and REPLEX_OFFLINE=1 says that this is known.
//!
//! By hand, since it takes minutes: more tests of replex in the machine, with windows of the module's, and the instructions that
//! 500 processes of a guest's cost with the module and without.
//!
//! ```text
//! REPLEX_KMOD_TESTS=stress cargo test -p tests --test kmod -- --ignored --nocapture tests_of_choice
//! cargo test --release -p tests --test kmod -- --ignored --nocapture workload
//! ```
//!
//! And the stress on a kernel that checks itself (KASAN, PROVE_LOCKING), built of `kmod/test/debug.config` as `kmod/README.md` says:
//!
//! ```text
//! REPLEX_KMOD_TREE=/path/to/linux cargo test -p tests --test kmod -- --nocapture stress
//! ```

mod build;
mod counts;
mod device;
mod initramfs;
mod machine;
mod replex;
mod report;
mod steps;
mod tools;
mod translator;
mod workload;

use build::Built;
use guest_kernels::HostFiles;
use initramfs::Initramfs;
use machine::{Clock, Machine, Purpose};
use report::Report;

/// The value of /proc/sys/kernel/tainted with a module that is out of tree and unsigned, and nothing else (Linux documentation,
/// "Tainted kernels").
const TAINT: &str = "12288";
/// The same in a kernel that has no signatures.
const TAINT_OF_OWN_TREE: &str = "4096";

/// Runs /bin/test, which `add` adds with all that it needs, in a virtual machine, with checks that hold for each, and returns what
/// was printed; `None` if that is not possible here, for a reason that was printed.
fn run(machine: Machine, add: impl FnOnce(&HostFiles, &Built, &mut Initramfs)) -> Option<Report> {
    let kernel = tools::kernel()?;
    let built = Built::new(&kernel);
    let mut initramfs = Initramfs::new(&kernel);
    initramfs.file("lib/replex.ko", &built.module());
    add(&kernel, &built, &mut initramfs);
    let report = Report::parse(&machine.run(&kernel, &initramfs.finish()));
    assert!(report.says("loaded"), "not loaded:\n{report}");
    assert!(report.says("unloaded"), "not unloaded:\n{report}");
    assert_eq!(report.value("status"), Some("0"), "{report}");
    let taint = match tools::own_tree() {
        Some(_) => TAINT_OF_OWN_TREE,
        None => TAINT,
    };
    assert_eq!(report.value("taint"), Some(taint), "{report}");
    let suspect = report.suspect_log_lines();
    assert!(suspect.is_empty(), "in the kernel's log:\n{report}");
    Some(report)
}

#[test]
fn the_module_withstands_its_stress() {
    let machine = Machine {
        clock: Clock::Host,
        purpose: Purpose::Module,
    };
    let report = run(machine, |_, built, initramfs| {
        initramfs.program("bin/test", &built.stress());
    });
    let Some(report) = report else { return };
    ::tests::report::report(&report.printed);
    let verdict = report.printed.lines().last().unwrap_or_default();
    assert!(verdict.starts_with("PASS "), "{report}");
}

#[test]
fn faults_cost_few_instructions() {
    let machine = Machine {
        clock: Clock::Instructions,
        purpose: Purpose::Module,
    };
    let report = run(machine, |_, built, initramfs| {
        initramfs.program("bin/test", &built.count());
    });
    let Some(report) = report else { return };
    let counts = counts::parse(&report.printed);
    ::tests::report::report(&counts::table(&counts));
    let exceeded = counts::exceeded(&counts, tools::chosen_kernel());
    assert!(exceeded.is_empty(), "{}", exceeded.join("\n"));
}
