//! The `replex` program.
//!
//! Its promises to the user:
//! * Every error is one line on standard error that begins with `replex:` and names what is wrong.
//! * A terminal that was made raw is restored on every way out: return, error, panic, signal.
//! * Standard output carries what the guest sends and nothing else.
//!
//! The exit statuses are listed in [`vmm::stop::status`] and at the end of `replex boot --help` and `replex run --help`.

mod allocator;
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
mod volume;
mod watch;

use std::{panic, process::ExitCode};

use clap::Parser;
use vmm::stop::status;

use args::{Cli, Command};
use hint::hint;
use message::complain;

fn main() -> ExitCode {
    allocator::set_up();
    if let Err(error) = fatal::catch() {
        complain(&format!("signals: {error}"));
        return ExitCode::from(status::USAGE);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
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

/// Prints help where it was asked for, or the first sentence of what is wrong.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    complain(&one_line(&error.render().to_string()));
    ExitCode::from(status::USAGE)
}

/// The first paragraph of clap's message, on one line, with where to find more.
fn one_line(message: &str) -> String {
    let paragraph: Vec<&str> = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    let text = paragraph.strip_prefix("error: ").unwrap_or(&paragraph);
    // The usage line of the message names the command, if one was recognized.
    let is_usage_of = |command: &&str| message.contains(&format!("Usage: replex {command}"));
    let command = ["run", "guest"].into_iter().find(is_usage_of);
    let command = command.unwrap_or("boot");
    format!("{text} (see replex {command} --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line_naming_the_flag() {
        for (args, named) in [
            (&["boot", "--bogus"][..], "--bogus"),
            (&["boot", "--mem", "1T"], "1T"),
            (&["boot", "--mem", "0"], "--mem"),
            (&["boot", "--mem", "12Q"], "12Q"),
            (&["boot", "--cpu", "z80"], "z80"),
            (&["boot", "--engine", "steam"], "steam"),
            (&["boot", "--guest", "plan9"], "plan9"),
            (
                &["boot", "--guest", "debian-686", "--kernel", "x"],
                "--guest",
            ),
            (&["boot", "--kernel"], "--kernel"),
            (&["explode"], "explode"),
            (&["boot", "extra"], "extra"),
            (&["run", "--timeout", "soon"], "--timeout"),
            (&["run", "--cpus", "4"], "--cpus"),
            (&["guest", "--to"], "--to"),
        ] {
            let args = [&["replex"], args].concat();
            let error = Cli::try_parse_from(&args).unwrap_err();
            let line = one_line(&error.render().to_string());
            assert!(line.contains(named), "{args:?}: {line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
    }
}
