//! `replex guest`: makes, lists and removes root directories of distributions.
//!
//! Packages are unpacked on the host; their scripts run in a machine, which another process of this program boots with the new
//! directory as its root.

use std::{
    borrow::Cow,
    collections::VecDeque,
    env,
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use guest_kernels::{Guest, NewRoot, Root, Stage, missing_packages};

use crate::{message::complain, progress::Pace};

/// Room for translated code: the many programs that take turns translate each other's away in less.
const CODE_CACHE: &str = "128M";
/// The lines of output that an error shows.
const LAST_LINES: usize = 10;

/// Make a root directory for machines.
#[derive(Args, Debug)]
pub struct GuestArgs {
    /// Distribution and its architecture: debian-i386 or debian-amd64.
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub name: Option<Root>,
    /// Install these packages, too, with what they need and recommend.
    #[arg(long, value_name = "PACKAGE,...", value_delimiter = ',')]
    pub include: Vec<String>,
    /// Make the directory DIR, which must not be there or be empty. Default: one in the cache, which has the name NAME.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// List the directories in the cache.
    #[arg(long, conflicts_with_all = ["name", "include", "to", "remove"])]
    pub list: bool,
    /// Remove the directory from the cache.
    #[arg(long, conflicts_with_all = ["include", "to"])]
    pub remove: bool,
}

/// Returns the root directory in the cache that has the name `source`, or `source` itself if there is a file or directory of this
/// name, or no such root directory.
///
/// # Errors
/// If the root directory of this name has not been made.
pub fn find(source: &Path) -> Result<Cow<'_, Path>> {
    let name = source.to_str().filter(|_| !source.exists());
    let Some(root) = name.and_then(|name| name.parse::<Root>().ok()) else {
        return Ok(source.into());
    };
    match root.dir()? {
        Some(dir) => Ok(dir.into()),
        None => bail!("root {root}: not there; replex guest {root} makes it"),
    }
}

/// Carries out `replex guest`.
///
/// # Errors
/// If the directory cannot be made or removed.
pub fn guest(args: &GuestArgs) -> Result<()> {
    let Some(root) = args.name else {
        return list();
    };
    if args.remove {
        return remove(root);
    }
    if args.to.is_none()
        && let Some(dir) = root.dir()?
    {
        return found(root, &dir, &args.include);
    }
    make(root, args).with_context(|| format!("guest {root}"))
}

fn list() -> Result<()> {
    for root in Root::ALL {
        match root.dir()? {
            Some(dir) => print(&format!("{root}\t{}", dir.display()))?,
            None => print(&format!("{root}\tnot there: replex guest {root} makes it"))?,
        }
    }
    Ok(())
}

fn remove(root: Root) -> Result<()> {
    match root.remove(&mut report)? {
        true => Ok(()),
        false => bail!("guest {root}: not there"),
    }
}

/// Tells of a directory that is there, if it has the packages `include`.
fn found(root: Root, dir: &Path, include: &[String]) -> Result<()> {
    let missing = missing_packages(dir, include)?;
    if !missing.is_empty() {
        bail!(
            "guest {root}: there already, without {}; --remove removes it, --to DIR makes another one",
            missing.join(", ")
        );
    }
    complain(&format!("{root} is there already"));
    print(&dir.display().to_string())
}

fn make(root: Root, args: &GuestArgs) -> Result<()> {
    let begin = Instant::now();
    let new = NewRoot::begin(root, args.to.as_deref(), &args.include, &mut report)?;
    fuse::keep_records(new.dir()).with_context(|| {
        format!(
            "{}: owners of files need extended attributes of users (user.*), which the file system may not have",
            new.dir().display()
        )
    })?;
    let kernel = Guest::of(root.architecture());
    fetch_kernel(kernel)?;
    let packages = new.unpack(&mut report)?;
    set_up(new.dir(), kernel, packages)?;
    let dir = new.finish()?;
    let seconds = begin.elapsed().as_secs();
    complain(&format!(
        "{root} is ready: {packages} packages, {seconds} s"
    ));
    print(&dir.display().to_string())
}

/// Brings what the machine of the second stage boots into the cache, while progress can be seen.
fn fetch_kernel(kernel: Guest) -> Result<()> {
    // The modules first, as their absence has all of it fetched again.
    guest_kernels::modules_archive(kernel, &[], &mut report)?;
    guest_kernels::fetch(kernel, &mut report)?;
    Ok(())
}

/// Carries out the second stage in a machine with `kernel`.
fn set_up(dir: &Path, kernel: Guest, packages: usize) -> Result<()> {
    complain(&format!("setting up {packages} packages in a machine"));
    let program = env::current_exe().context("this program")?;
    let root = [OsStr::new("--root"), dir.as_os_str()];
    let mut machine = Command::new(program)
        .args(["boot", "--guest", kernel.name()])
        .args(root)
        .args(["--rw", "--volatile", "--code-cache", CODE_CACHE])
        .args(["--exec", NewRoot::SETUP])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the machine")?;
    let last = follow(&mut machine, packages);
    let status = machine.wait().context("the machine")?;
    if !status.success() {
        bail!("setting up packages: {status}\n{}", last.join("\n"));
    }
    Ok(())
}

/// Reports what the machine does, and returns the last lines of its output.
fn follow(machine: &mut Child, packages: usize) -> Vec<String> {
    let (stdout, stderr) = (machine.stdout.take(), machine.stderr.take());
    let mut progress = SettingUp::new(packages);
    thread::scope(|scope| {
        let errors = scope.spawn(|| stderr.map_or_else(Vec::new, |pipe| last_lines(pipe, |_| ())));
        let lines = stdout.map_or_else(Vec::new, |pipe| {
            last_lines(pipe, |line| progress.line(line))
        });
        [lines, errors.join().unwrap_or_default()].concat()
    })
}

/// Passes each line to `each` when it comes, and returns the last ones.
fn last_lines(pipe: impl Read, mut each: impl FnMut(&str)) -> Vec<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        each(&line);
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    last.into()
}

/// Progress of dpkg's configuring of packages.
struct SettingUp {
    done: usize,
    packages: usize,
    pace: Pace,
}

impl SettingUp {
    fn new(packages: usize) -> Self {
        Self {
            done: 0,
            packages,
            pace: Pace::new(),
        }
    }

    /// Reports what a line of dpkg's output says, if the last report is long enough ago.
    fn line(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("Setting up ") else {
            return;
        };
        self.done += 1;
        if self.pace.is_due(false) {
            let package = rest.split([' ', ':']).next().unwrap_or_default();
            complain(&format!(
                "setting up {package} ({} of {})",
                self.done, self.packages
            ));
        }
    }
}

/// Prints a line on standard output.
fn print(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output")
}

fn report(stage: &Stage) {
    complain(&stage.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_or_has_no_name_of_a_root_is_taken_as_it_is() {
        for path in ["/", "debian-686", "no/debian-i386", "no/debian-amd64", ""] {
            let path = Path::new(path);
            assert!(matches!(find(path), Ok(Cow::Borrowed(found)) if found == path));
        }
    }

    #[test]
    fn packages_are_counted_and_the_last_lines_kept() {
        let output: String = (0..30)
            .map(|number| {
                format!("Unpacking {number}\r\nSetting up libc6:i386 (2.36-{number}) ...\n")
            })
            .collect();
        let mut progress = SettingUp::new(40);
        let last = last_lines(output.as_bytes(), |line| progress.line(line));
        assert_eq!(progress.done, 30);
        assert_eq!(last.len(), LAST_LINES);
        assert_eq!(
            last[LAST_LINES - 2..],
            ["Unpacking 29", "Setting up libc6:i386 (2.36-29) ..."]
        );
    }
}
