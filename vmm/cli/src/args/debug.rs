//! Looking into the machine: events, gdb, translated code.

use std::path::PathBuf;

use clap::Args;
use vmm::{LinearAddr, gdb::Address, parse, trace::Selection};

/// What shows how the guest runs.
#[derive(Args, Debug)]
#[command(next_help_heading = "Debugging")]
pub struct DebugArgs {
    /// Check all translated code before it runs, and stop if it could do what the guest must not.
    #[arg(long)]
    pub verify_code: bool,
    /// Show at the end, on standard error, the pages that hold these linear addresses: guest code and what was made from it.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', value_parser = parse::linear)]
    pub dump_code: Vec<LinearAddr>,
    /// Write jit-PID.dump in this folder, by which perf (record -k mono; inject --jit) names translated code.
    #[arg(long, value_name = "FOLDER")]
    pub jitdump: Option<PathBuf>,
    /// Log on standard error the interrupts and exceptions of these vectors, decimal or 0x and hexadecimal; all if none are
    /// named. The guest gets them.
    #[arg(long, value_name = "VEC,...", num_args = 0..=1, value_delimiter = ',', value_parser = parse::vector)]
    pub trace_irq: Option<Vec<u8>>,
    /// Stop at interrupts and exceptions of these vectors before the guest sees them. Without gdb each is shown, a line on standard
    /// error, and then the guest's.
    #[arg(long, value_name = "VEC,...", value_delimiter = ',', value_parser = parse::vector)]
    pub intercept: Vec<u8>,
    /// Let gdb debug the guest: listen at PORT of 127.0.0.1 (1234 if no address is given), ADDR:PORT or unix:PATH. Whoever can
    /// connect controls the guest.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "1234")]
    pub gdb: Option<Address>,
    /// With --gdb: do not execute anything before gdb has connected and says so.
    #[arg(long, requires = "gdb")]
    pub gdb_wait: bool,
    /// Write interrupts, exceptions, writes of control registers and port accesses to this file, a line each, as they happen.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write only these to the file of --trace: interrupt, software, exception, control, port, or some of a kind, as in
    /// exception:14, control:3 or port:3f8-3ff.
    #[arg(
        long,
        value_name = "KIND,...",
        value_delimiter = ',',
        requires = "trace"
    )]
    pub trace_only: Vec<Selection>,
}
