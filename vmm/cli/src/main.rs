//! The `replex` program.
//!
//! Its promises to the user:
//! * Every error is one line on standard error that begins with `replex:` and names what is wrong. Without arguments, it is the help.
//! * A terminal that was made raw is restored on every way out: return, error, panic, signal.
//! * Standard output carries what the guest sends and nothing else.
//!
//! The exit statuses are listed in [`vmm::stop::status`] and at the end of `replex boot --help` and `replex run --help`.

mod allocator;
mod architecture;
mod args;
mod boot;
mod confinement;
mod devices;
mod doctor;
mod engine;
mod escape;
mod fatal;
mod file;
mod guest;
mod hint;
mod images;
mod initrd;
mod message;
mod net;
mod power;
mod progress;
mod rom;
mod run;
mod session;
mod share;
mod signals;
mod stdio;
mod terminal;
mod trace;
mod usage;
mod volume;
mod watch;

use std::{env, ffi::OsString, panic, process::ExitCode};

use clap::Parser;
use vmm::stop::status;

use args::{Cli, Command};
use hint::hint;
use message::complain;
use usage::usage;

fn main() -> ExitCode {
    allocator::set_up();
    if let Err(error) = fatal::catch() {
        complain(&format!("signals: {error}"));
        return ExitCode::from(status::USAGE);
    }
    let args: Vec<OsString> = env::args_os().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &args),
    };
    let status = || match &cli.command {
        Command::Boot(args) => {
            watch::start_log(&args.debug);
            boot::boot(args)
        }
        Command::Run(args) => {
            watch::start_log(&args.debug);
            run::run(args)
        }
        Command::Doctor => Ok(doctor::doctor()),
        Command::Guest(args) => guest::guest(args).map(|()| 0),
    };
    // A panic has been reported by now, and the terminal restored.
    match panic::catch_unwind(status) {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err(error)) => {
            let hint = hint(&error).map_or(String::new(), |hint| format!("; {hint}"));
            complain(&format!("{error:#}{hint}"));
            ExitCode::from(status::USAGE)
        }
        Err(_) => ExitCode::from(status::UNSUPPORTED),
    }
}
