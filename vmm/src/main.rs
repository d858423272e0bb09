//! The `replex` program; all of it is in the library.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    vmm::cli::main(env::args_os())
}
