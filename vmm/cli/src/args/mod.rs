//! The command line.

mod boot;
mod debug;
mod devices;
mod kernel;
mod machine;
mod run;

use clap::{Parser, Subcommand};

pub use boot::BootArgs;
pub use debug::DebugArgs;
pub use devices::DeviceArgs;
pub use kernel::KernelArgs;
pub use machine::MachineArgs;
pub use run::RunArgs;

use crate::guest::GuestArgs;

/// Boots unmodified Linux inside one ordinary process.
#[derive(Debug, Parser)]
#[command(name = "replex", version, arg_required_else_help = true)]
pub struct Cli {
    /// The command to execute.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel.
    Boot(Box<BootArgs>),
    /// Run a command in a Linux machine, on the files of a directory or an image.
    Run(Box<RunArgs>),
    /// Say what this host offers, and what that brings or costs. The status is 0 if replex can run here, and 1 if not.
    Doctor,
    /// Make a root directory for machines.
    Guest(GuestArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use guest_kernels::Guest;
    use vmm::{CpuModel, Engine, LinearAddr};

    use super::*;

    fn parse(args: &[&str]) -> BootArgs {
        let args = [&["replex", "boot"], args].concat();
        match Cli::try_parse_from(args).unwrap().command {
            Command::Boot(args) => *args,
            _ => unreachable!(),
        }
    }

    fn parse_run(args: &[&str]) -> RunArgs {
        let args = [&["replex", "run"], args].concat();
        match Cli::try_parse_from(args).unwrap().command {
            Command::Run(args) => *args,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn texts_behind_the_options_are_wrapped_by_clap_alone() {
        let mut replex = Cli::command();
        for name in ["boot", "run"] {
            let command = replex.find_subcommand_mut(name).unwrap();
            let text = command.get_after_help().unwrap().to_string();
            let mut before = "";
            for line in text.lines() {
                match line.starts_with("  ") {
                    // These would lose their columns.
                    true => assert!(line.len() <= 100, "{line}"),
                    false => assert!(
                        line.is_empty() || before.is_empty() || before.starts_with("  "),
                        "{line}"
                    ),
                }
                before = line;
            }
        }
    }

    #[test]
    fn defaults() {
        let args = parse(&[]);
        assert_eq!(args.machine.mem, 256 << 20);
        assert_eq!(args.kernel.guest, None);
        assert_eq!(args.machine.cpu, None);
        assert_eq!(args.machine.engine, None);
        assert_eq!(
            (args.kernel.kernel, args.initrd, args.exec),
            (None, None, None)
        );
    }

    #[test]
    fn everything_given() {
        let args = parse(&[
            "--kernel", "k", "--initrd", "i", "--append", "-x", "--mem", "1G", "--cpu", "pentium4",
            "--engine", "emulator", "--exec", "-y", "--stats",
        ]);
        let guest = parse(&["--guest", "debian-amd64"]).kernel.guest;
        assert_eq!(guest, Some(Guest::DebianAmd64));
        assert_eq!(args.kernel.kernel.as_deref(), Some("k".as_ref()));
        assert_eq!(args.initrd.as_deref(), Some("i".as_ref()));
        assert_eq!(args.kernel.append.as_deref(), Some("-x"));
        assert_eq!(args.machine.mem, 1 << 30);
        assert_eq!(args.machine.cpu, Some(CpuModel::Pentium4));
        assert_eq!(args.machine.engine, Some(Engine::Emulator));
        assert_eq!(args.exec.as_deref(), Some("-y"));
        assert!(args.machine.stats);
    }

    #[test]
    fn linear_addresses() {
        let args = parse(&["--dump-code", "0xc1001234,100000,ffffffff81000000"]);
        let expected = [0xc100_1234, 0x0010_0000, 0xffff_ffff_8100_0000];
        assert_eq!(args.debug.dump_code, expected.map(LinearAddr::new));
    }

    #[test]
    fn vectors() {
        let args = parse(&["--intercept", "14,0x80", "--trace-irq", "0xFf"]);
        assert_eq!(args.debug.intercept, [14, 0x80]);
        assert_eq!(args.debug.trace_irq, Some(vec![0xff]));
        let args = parse(&["--trace-irq", "--stats"]);
        assert_eq!(args.debug.trace_irq, Some(vec![]));
        assert!(args.debug.intercept.is_empty() && args.machine.stats);
        assert_eq!(parse(&[]).debug.trace_irq, None);
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let args = parse_run(&[
            "dir", "-e", "A=b", "-m", "64", "--", "sh", "-c", "--x", "-e", "",
        ]);
        assert_eq!(args.source.as_deref(), Some("dir".as_ref()));
        assert_eq!(args.command, ["sh", "-c", "--x", "-e", ""]);
        assert_eq!(args.env, ["A=b"]);
        assert_eq!(args.machine.mem, 64 << 20);
        let args = parse_run(&["-it", "--mem", "1G"]);
        assert!(args.interactive && args.tty && args.source.is_none());
        assert_eq!(args.machine.mem, 1 << 30);
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for args in [
            &["run", "dir", "--root", "dir"][..],
            &["run", "--pwd", "-w", "/"],
            &["run", "--cpus", "2"],
            &["run", "dir", "ls"],
            &["run", "--timeout", "0"],
            &["run", "--kernel", "k", "--guest", "debian-686"],
        ] {
            let args = [&["replex"], args].concat();
            assert!(Cli::try_parse_from(&args).is_err(), "{args:?}");
        }
    }
}
