//! The command that the guest gets.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::{GuestCommand, GuestTerminal};
use oci_root::ImageConfig;

use super::environment::Environment;
use crate::{args::RunArgs, share::Shares, terminal::window_size};

/// The program that runs where nobody names one.
const SHELL: &str = "/bin/sh";

/// Returns the command that `args` and the image ask for. It works in a directory of `shares` if `--pwd` says so.
///
/// # Errors
/// If an option makes no sense.
pub fn guest_command(args: &RunArgs, image: &ImageConfig, shares: &Shares) -> Result<GuestCommand> {
    let named = program(args, image);
    let at_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let on_terminal = args.tty || named.is_empty() && at_terminal;
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        bail!("-t and -i: standard input is not a terminal");
    }
    let program = match (named.is_empty(), on_terminal) {
        (false, _) => named,
        (true, false) => vec![SHELL.into()],
        (true, true) => vec![SHELL.into(), "-l".into()],
    };
    let mut environment = Environment::new(on_terminal);
    environment.add_image(&image.env);
    environment.add_options(&args.env)?;
    let user = args.user.as_ref().unwrap_or(&image.user);
    Ok(GuestCommand {
        args: program.into_iter().map(OsString::into_vec).collect(),
        env: environment.into_variables(),
        user: user.clone(),
        folder: folder(args, image, shares)?,
        terminal: on_terminal.then(|| GuestTerminal {
            size: window_size(io::stdin()).or_else(|| window_size(io::stdout())),
        }),
    })
}

/// Returns the paths where the guest looks for the program of `command`, in this order.
pub fn places(command: &GuestCommand) -> Vec<PathBuf> {
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    let program = command.args.first().map_or(&[][..], Vec::as_slice);
    if program.contains(&b'/') {
        return vec![path(&command.folder).join(path(program))];
    }
    let mut variables = command.env.iter();
    let folders = variables.find_map(|variable| variable.strip_prefix(b"PATH="));
    let folders = folders.unwrap_or_default().split(|&byte| byte == b':');
    folders
        .map(|folder| path(folder).join(path(program)))
        .collect()
}

/// The program and its arguments, or nothing if nobody names one.
fn program(args: &RunArgs, image: &ImageConfig) -> Vec<OsString> {
    let strings = |list: &[String]| list.iter().map(OsString::from).collect();
    let (mut program, rest): (Vec<OsString>, Vec<OsString>) = match &args.entrypoint {
        // As with other programs of this kind, an empty one only takes the image's away.
        Some(own) if own.is_empty() => (Vec::new(), Vec::new()),
        Some(own) => (vec![own.clone()], Vec::new()),
        None => (strings(&image.entrypoint), strings(&image.cmd)),
    };
    match args.command.is_empty() {
        true => program.extend(rest),
        false => program.extend_from_slice(&args.command),
    }
    program
}

/// The working directory, empty if nobody names one.
fn folder(args: &RunArgs, image: &ImageConfig, shares: &Shares) -> Result<Vec<u8>> {
    if args.pwd {
        let current = env::current_dir().context("--pwd")?;
        return match in_guest(&current, shares) {
            Some(folder) => Ok(folder.into_os_string().into_vec()),
            None => bail!(
                "--pwd: the guest does not have {}; --rwdir . shares it",
                current.display()
            ),
        };
    }
    match &args.workdir {
        Some(folder) if !folder.is_absolute() => {
            bail!("--workdir {}: not an absolute path", folder.display())
        }
        Some(folder) => Ok(folder.as_os_str().as_bytes().to_vec()),
        None => Ok(image.working_dir.clone().into_bytes()),
    }
}

/// The place in the guest of the host's directory `path`, if it has one. A later volume may cover what is below it.
fn in_guest(path: &Path, shares: &Shares) -> Option<PathBuf> {
    let volumes = shares.volumes.iter().rev();
    let volumes = volumes.map(|volume| (volume.host.as_path(), Path::new(&volume.guest)));
    let root = shares
        .root
        .iter()
        .map(|(dir, _)| (dir.as_path(), Path::new("/")));
    volumes.chain(root).find_map(|(host, guest)| {
        let host = host.canonicalize().ok()?;
        let rest = path.strip_prefix(host).ok()?;
        // Nothing to join would leave a slash at the end.
        let is_itself = rest.as_os_str().is_empty();
        Some(if is_itself {
            guest.into()
        } else {
            guest.join(rest)
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use guest_kernels::RootChanges;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(args: &[&str]) -> RunArgs {
        let args = [&["replex", "run"], args].concat();
        match Cli::try_parse_from(args).unwrap().command {
            Command::Run(args) => *args,
            _ => unreachable!(),
        }
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into(), "point".into()],
            cmd: vec!["default".into()],
            env: vec!["A=image".into(), "B=image".into()],
            working_dir: "/work".into(),
            user: "nobody".into(),
            stop_signal: None,
        }
    }

    #[test]
    fn programs_are_put_together_as_usual() {
        for (args, expected) in [
            (&[][..], &["/entry", "point", "default"][..]),
            (&["--", "a", "-b"], &["/entry", "point", "a", "-b"]),
            (&["--entrypoint", "sh"], &["sh"]),
            (&["--entrypoint", "sh", "--", "-c", "x"], &["sh", "-c", "x"]),
            (&["--entrypoint", "", "--", "ls"], &["ls"]),
            (&["--entrypoint", ""], &[]),
        ] {
            assert_eq!(program(&parse(args), &image()), expected, "{args:?}");
        }
        assert!(program(&parse(&[]), &ImageConfig::default()).is_empty());
    }

    #[test]
    fn options_go_before_the_image() {
        let shares = Shares::default();
        let command = guest_command(&parse(&["--", "x"]), &image(), &shares).unwrap();
        assert_eq!(command.user, "nobody");
        assert_eq!(command.folder, b"/work");
        assert!(command.env.contains(&b"A=image".to_vec()));
        let args = ["-u", "0:5", "-w", "/", "-e", "A=mine", "--", "x"];
        let command = guest_command(&parse(&args), &image(), &shares).unwrap();
        assert_eq!(
            (command.user.as_str(), &*command.folder),
            ("0:5", &b"/"[..])
        );
        assert!(command.env.contains(&b"A=mine".to_vec()));
        assert!(!command.env.contains(&b"A=image".to_vec()));
        assert_eq!(command.terminal, None);
        let relative = guest_command(&parse(&["-w", "src"]), &image(), &shares);
        assert!(relative.unwrap_err().to_string().contains("--workdir src"));
    }

    #[test]
    fn programs_are_looked_for_as_by_execvp() {
        let looked = |args: &[&str]| {
            let args = [&["-w", "/work", "-e", "PATH=/a:/b/c"], args].concat();
            let command = guest_command(&parse(&args), &image(), &Shares::default());
            places(&command.unwrap())
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let alone = ["--entrypoint", ""];
        let of = |name| looked(&[&alone[..], &["--", name]].concat());
        assert_eq!(of("cc"), paths(&["/a/cc", "/b/c/cc"]));
        assert_eq!(of("bin/cc"), paths(&["/work/bin/cc"]));
        assert_eq!(of("/bin/cc"), paths(&["/bin/cc"]));
    }

    #[test]
    fn the_current_directory_is_found_in_what_the_guest_has() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let share = dir.join("share");
        std::fs::create_dir_all(share.join("sub")).unwrap();
        let volume = format!("{}:/src", share.display());
        let shares = Shares {
            root: Some((dir.clone(), RootChanges::Dropped)),
            volumes: vec![volume.parse().unwrap()],
            ..Shares::default()
        };
        let found = |path: &Path| in_guest(path, &shares);
        assert_eq!(found(&dir), Some("/".into()));
        assert_eq!(found(&dir.join("other")), Some("/other".into()));
        assert_eq!(found(&share), Some("/src".into()));
        assert_eq!(found(&share.join("sub")), Some("/src/sub".into()));
        assert_eq!(found(Path::new("/nowhere")), None);
    }
}
