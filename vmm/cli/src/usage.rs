//! Errors of usage: the first sentence of clap's message, where to read more, and what helps those who know other programs.

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{
    CommandFactory as _, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};
use guest_kernels::Root;
use vmm::stop::status;

use crate::{args::Cli, message::complain};

/// Prints help where it was asked for or nothing was, or what is wrong with the arguments `args`, of which the first is the program.
pub fn usage(error: &Error, args: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
        }
        _ => complain(&message(error, args)),
    }
    ExitCode::from(status::USAGE)
}

/// What is wrong, where to read more, and a hint if there is one, on one line.
fn message(error: &Error, args: &[OsString]) -> String {
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let text = first_paragraph(&error.render().to_string());
    let command = subcommand(&args).map_or(String::new(), |name| format!("{name} "));
    let hint = hint(error, &args).map_or(String::new(), |hint| format!("; {hint}"));
    format!("{text} (see replex {command}--help){hint}")
}

/// The first paragraph of clap's message, on one line.
fn first_paragraph(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ");
    let text = paragraph.strip_prefix("error: ").unwrap_or(&paragraph);
    text.into()
}

/// The subcommand that the arguments name; nothing else may come first.
fn subcommand<'a>(args: &[&'a str]) -> Option<&'a str> {
    let name = args.get(1)?;
    Cli::command().find_subcommand(name).map(|_| *name)
}

/// Where the command of `replex run` belongs, if it is what is not expected.
fn hint(error: &Error, args: &[&str]) -> Option<String> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let is_asked = error.kind() == ErrorKind::UnknownArgument && !args.contains(&"--");
    if subcommand(args) != Some("run") || !is_asked {
        return None;
    }
    let is_option = unknown.starts_with('-');
    let is_unknown = |arg: &&str| *arg == unknown || is_option && arg.starts_with(unknown);
    let at = 2 + args.get(2..)?.iter().position(is_unknown)?;
    let plain = |index: usize| index < 2 || !args[index].starts_with('-');
    // The first argument that is no option's has been taken for a root.
    let is_command = at > 2 && plain(at - 1) && plain(at - 2) && !may_be_root(args[at - 1]);
    let start = match (is_command, is_option) {
        (true, _) => at - 1,
        (false, false) => at,
        (false, true) => return None,
    };
    Some(after_dashes(&args[2..start], &args[start..]))
}

/// Whether `name` may have been meant as a root: it is there, or has the form of a root's name or of a path.
fn may_be_root(name: &str) -> bool {
    name.parse::<Root>().is_ok() || name.contains(['/', '.', ':']) || Path::new(name).exists()
}

/// Says that the command belongs behind dashes, with the command line `replex run options -- command`.
pub fn after_dashes(options: &[&str], command: &[&str]) -> String {
    let line = [&["replex", "run"], options, &["--"], command].concat();
    format!("the command comes after --: {}", line.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn message_of(args: &[&str]) -> String {
        let args: Vec<OsString> = [&["replex"], args]
            .concat()
            .iter()
            .map(Into::into)
            .collect();
        message(&Cli::try_parse_from(&args).unwrap_err(), &args)
    }

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
            let line = message_of(args);
            assert!(line.contains(named), "{args:?}: {line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
    }

    #[test]
    fn the_help_of_the_command_is_named() {
        for (args, named) in [
            (&["run", "-m", "0"][..], "(see replex run --help)"),
            (&["run", "--cpus", "2"], "(see replex run --help)"),
            (&["run", "-p", "80"], "(see replex run --help)"),
            (&["guest", "nope"], "(see replex guest --help)"),
            (&["doctor", "--bogus"], "(see replex doctor --help)"),
            (&["boot", "-m", "0"], "(see replex boot --help)"),
            (&["explode"], "(see replex --help)"),
            (&["--bogus", "run"], "(see replex --help)"),
        ] {
            let line = message_of(args);
            assert!(line.contains(named), "{args:?}: {line}");
        }
    }

    #[test]
    fn a_command_without_dashes_is_told_its_place() {
        for (args, expected) in [
            (
                &["run", "debian-i386", "ls"][..],
                Some("replex run debian-i386 -- ls"),
            ),
            (
                &["run", "-it", "debian-i386", "ls", "-l"],
                Some("replex run -it debian-i386 -- ls -l"),
            ),
            (&["run", "uname", "-a"], Some("replex run -- uname -a")),
            (&["run", "tar", "-xf", "x"], Some("replex run -- tar -xf x")),
            (&["run", "echo", "x"], Some("replex run -- echo x")),
            (
                &["run", "-m", "64", "/", "ls"],
                Some("replex run -m 64 / -- ls"),
            ),
            (&["run", "/", "--bogus"], None),
            (&["run", "--bogus"], None),
            (&["run", "-m", "64", "--bogus"], None),
            (&["run", "/", "ls", "--", "x"], None),
            (&["boot", "stray"], None),
        ] {
            let line = message_of(args);
            let hint = line.split_once("; the command comes after --: ");
            assert_eq!(hint.map(|(_, hint)| hint), expected, "{args:?}: {line}");
        }
    }
}
