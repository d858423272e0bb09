//! The policy that `--trace-irq` and `--intercept` ask for, and the log that it writes to.

use std::io::{self, IsTerminal};

use env_logger::Builder;
use log::LevelFilter;
use vmm::{Action, Policy, kmod};

use crate::args::DebugArgs;

/// Target of the lines that the processor logs about interrupts and exceptions.
const TARGET: &str = "irq";

/// Returns the policy that `args` ask for.
pub fn policy(args: &DebugArgs) -> Policy {
    let mut policy = Policy::new();
    match args.trace_irq.as_deref() {
        None => {}
        Some([]) => (0..=u8::MAX).for_each(|vector| policy.set_vector(vector, Action::Trace)),
        Some(vectors) => vectors
            .iter()
            .for_each(|&vector| policy.set_vector(vector, Action::Trace)),
    }
    for &vector in &args.intercept {
        policy.set_vector(vector, Action::Intercept);
    }
    policy
}

/// Starts the log on standard error: the events traced, and whatever `RUST_LOG` names.
pub fn start_log(args: &DebugArgs) {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Error);
    // Whoever has loaded the module wants to know why it is not used.
    builder.filter_module(kmod::LOG_TARGET, LevelFilter::Warn);
    // gdb may have vectors traced, too.
    if args.trace_irq.is_some() || args.gdb.is_some() {
        builder.filter_module(TARGET, LevelFilter::Info);
    }
    // The terminal may be raw.
    if io::stderr().is_terminal() {
        builder.format_suffix("\r\n");
    }
    builder.parse_default_env().init();
}
