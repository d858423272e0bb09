//! A whole workload of a guest's, 500 times fork and exec, with the module and without: the instructions of the host that it takes.

use super::machine::{Clock, Machine, Purpose};
use super::replex;
use super::steps::{self, Steps};

/// Environment variable with the number of processes.
const PROCESSES: &str = "REPLEX_KMOD_PROCESSES";
const DEFAULT: u32 = 500;

/// Millions of instructions that a second has.
const SECOND: f64 = 1000.0;

/// Unpacks the kernel, which a cache then has. Then the program, behind which the processor's seconds follow, as user and system.
const STEPS: &str = r#"
export REPLEX_CACHE=/tmp/cache
$debian </dev/null >/dev/null 2>&1 &
until [ "$(echo $REPLEX_CACHE/vmlinux/*)" != "$REPLEX_CACHE/vmlinux/*" ]; do
	sleep 1
done
kill $!
wait
for use in off require; do
	step $use time -f "cpu %U %S" $debian --kmod $use --stats --exec "$(cat /guest/command)"
done
"#;

/// Millions of instructions of one run.
#[derive(Debug)]
struct Cost {
    /// In the guest, from the first process to the last.
    workload: f64,
    /// Of the whole program, from its start to its end.
    whole: f64,
}

impl Cost {
    /// Reads the guest's uptime before and after, and the program's processor time.
    fn parse(printed: &str) -> Self {
        let numbers = |prefix: &str| -> Vec<f64> {
            let lines = printed.lines().filter_map(|line| line.strip_prefix(prefix));
            let words = lines.flat_map(str::split_whitespace);
            words.map(|word| word.parse().unwrap()).collect()
        };
        let uptime = numbers("uptime ");
        let cpu = numbers("cpu ");
        assert_eq!((uptime.len(), cpu.len()), (2, 2), "{printed}");
        Self {
            workload: (uptime[1] - uptime[0]) * SECOND,
            whole: (cpu[0] + cpu[1]) * SECOND,
        }
    }
}

#[test]
#[ignore = "long: see the head of kmod/main.rs"]
fn a_workload_takes_fewer_instructions_with_the_module() {
    let Some(guest) = replex::guest() else { return };
    let processes = std::env::var(PROCESSES).map_or(DEFAULT, |count| count.parse().unwrap());
    let machine = Machine {
        clock: Clock::Instructions,
        purpose: Purpose::Replex,
    };
    let report = super::run(machine, |_, _, initramfs| {
        let uptime = "sed 's/^/uptime /; s/ [0-9.]*$//' /proc/uptime";
        initramfs.text(
            "guest/command",
            format!(
                "{uptime}; i=0; while [ $i -lt {processes} ]; do i=$((i+1)); /bin/true; done; {uptime}"
            ),
        );
        replex::add(initramfs, &guest);
        initramfs.script("bin/test", &steps::script(STEPS));
    });
    let Some(report) = report else { return };
    let steps = Steps::parse(&report.printed);
    let [without, with] = ["off", "require"].map(|name| {
        let step = steps.get(name);
        assert_eq!(step.status, Some(0), "{step:?}");
        (Cost::parse(&step.printed), step)
    });
    for (name, (_, step)) in [("without", &without), ("with", &with)] {
        let is_of_use = |line: &&str| !line.starts_with("port ");
        let stats: Vec<_> = step.printed.lines().filter(is_of_use).collect();
        ::tests::report::report(&format!("{name} the module:\n{}", stats.join("\n")));
    }
    let (without, with) = (without.0, with.0);
    ::tests::report::report(&format!(
        "{processes} times fork and exec, millions of instructions: {:.0} without the module, {:.0} with it, ratio {:.3}; \
         with the boot: {:.0}, {:.0}, {:.3}",
        without.workload,
        with.workload,
        with.workload / without.workload,
        without.whole,
        with.whole,
        with.whole / without.whole
    ));
    assert!(with.workload < without.workload);
    assert!(with.whole < without.whole);
}
