//! `--sandbox`: the confinement of this process before the guest runs.
//!
//! ```text
//!   everything is open ─► Sandbox::enter ─► devices start their threads ─► the rest starts ─► confine(VCPU) ─► the guest runs
//! ```

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use guest_kernels::RootChanges;
use sandbox::{
    Access, Policy, RestrictError, Shared, Support, catch_violations, confine, limit_resources,
    restrict_files,
};
use vmm::{ThreadKind, Threads, gdb::Address, net::Config, stop::status};

use crate::{message::complain, net::Network, share::Shares};

/// Whether the threads of this process are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Confinement {
    /// As far as the host can.
    #[default]
    On,
    /// Not at all.
    Off,
}

/// The confinement that is in force.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    /// Whether threads are to give up system calls.
    seccomp: bool,
    /// Whether files are restricted.
    landlock: bool,
}

impl Sandbox {
    /// Restricts this process to what is `shared` and to the descriptors that are open. Threads that are started afterwards, by
    /// [`Self::threads`], are confined further. What the host lacks is said, and left out.
    ///
    /// Until [`Self::confine`], the calling thread may do everything but open other files.
    ///
    /// # Errors
    /// If what is shared cannot be opened, or the host refuses what it has.
    pub fn enter(choice: Confinement, shared: &[Shared]) -> Result<Self> {
        let option = "--sandbox";
        if choice == Confinement::Off {
            return Ok(Self {
                seccomp: false,
                landlock: false,
            });
        }
        let seccomp = Support::of_host().seccomp;
        let mut lacks = Vec::new();
        if !seccomp {
            lacks.push("this host has no filters of system calls (seccomp)".into());
        }
        limit_resources().context(option)?;
        catch_violations(status::SANDBOX).context(option)?;
        let landlock = match restrict_files(shared) {
            Ok(()) => true,
            Err(error @ (RestrictError::Missing | RestrictError::TooOld)) => {
                lacks.push(error.to_string());
                false
            }
            Err(error) => return Err(error).context(option),
        };
        if !lacks.is_empty() {
            complain(&format!(
                "{option}: {}; going on without",
                lacks.join(", and ")
            ));
        }
        Ok(Self { seccomp, landlock })
    }

    /// The way in which the machine's threads begin.
    pub fn threads(self) -> Threads {
        match self.seccomp {
            true => Threads::that_begin(move |kind| self.confine(self.policy(kind))),
            false => Threads::default(),
        }
    }

    /// Takes the system calls that `policy` does not allow from the calling thread.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn confine(self, policy: &Policy) -> io::Result<()> {
        match self.seccomp {
            true => confine(policy).map_err(io::Error::other),
            false => Ok(()),
        }
    }

    fn policy(self, kind: ThreadKind) -> &'static Policy {
        match kind {
            ThreadKind::Disk => &Policy::DISK,
            ThreadKind::Files => &Policy::FILES,
            // Without Landlock it could read whatever its user may.
            ThreadKind::Net if self.landlock => &Policy::NET,
            ThreadKind::Net => &Policy::NET_FIXED,
            ThreadKind::Gdb => &Policy::GDB,
            ThreadKind::Other(_) => &Policy::STREAMS,
        }
    }
}

/// The files that a machine needs while it runs: the directories that it shares, and what its network and gdb take.
pub fn needed(shares: &Shares, network: &Network, gdb: Option<&Address>) -> Vec<Shared> {
    let directory = |path: &Path, read_only| Shared {
        path: path.to_owned(),
        access: match read_only {
            true => Access::Read,
            false => Access::Change,
        },
    };
    let root = shares.root.iter();
    let root = root.map(|(dir, changes)| directory(dir, *changes == RootChanges::Dropped));
    let volumes = shares.volumes.iter();
    let volumes = volumes.map(|volume| directory(&volume.host, volume.read_only));
    let mut needed: Vec<_> = root.chain(volumes).collect();
    if matches!(network, Network::User { .. }) {
        needed.extend(resolvers(&Config::default().resolv_conf));
    }
    if let Some(Address::Unix(socket)) = gdb {
        needed.push(folder_of_socket(socket));
    }
    needed
}

/// The folders in which tools keep nothing but what they know of resolvers, and put new files in the place of old ones.
const RESOLVER_FOLDERS: [&str; 2] = ["/run/systemd/resolve", "/run/resolvconf"];

/// The file of the host's resolvers, so that changes are seen: by its folder where that has nothing else.
fn resolvers(file: &Path) -> Option<Shared> {
    let path = file.canonicalize().ok()?;
    let folder = path.parent()?;
    let has_nothing_else = RESOLVER_FOLDERS
        .iter()
        .any(|known| folder == Path::new(known));
    Some(match has_nothing_else {
        true => Shared {
            path: folder.to_owned(),
            access: Access::Read,
        },
        false => Shared {
            path,
            access: Access::ReadFile,
        },
    })
}

/// The folder in which gdb's socket is made, and removed at the end.
fn folder_of_socket(socket: &Path) -> Shared {
    let folder = socket.parent().filter(|folder| *folder != OsStr::new(""));
    Shared {
        path: folder.map_or_else(|| PathBuf::from("."), Path::to_owned),
        access: Access::Sockets,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::unix::net::UnixDatagram,
        process::{Command, Output},
    };

    use super::*;

    /// The variables that tell a process what to try.
    const THREAD: &str = "REPLEX_TEST_THREAD";
    const SANDBOX: &str = "REPLEX_TEST_SANDBOX";

    /// All kinds of threads that a machine has, by the names of their policies.
    const KINDS: [(&str, ThreadKind); 5] = [
        ("virtio-blk", ThreadKind::Disk),
        ("virtio-fs", ThreadKind::Files),
        ("net", ThreadKind::Net),
        ("gdb", ThreadKind::Gdb),
        ("streams", ThreadKind::Other("signals")),
    ];

    /// Runs [`child`] in a process of its own.
    fn process(thread: &str, sandbox: &str) -> Output {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "confinement::tests::child", "--nocapture"])
            .env(THREAD, thread)
            .env(SANDBOX, sandbox);
        command.output().unwrap()
    }

    /// The process whose thread makes a call that no thread is to make. Without the variables this test has nothing to do.
    #[test]
    fn child() {
        let (Ok(thread), Ok(sandbox)) = (env::var(THREAD), env::var(SANDBOX)) else {
            return;
        };
        let choice = Confinement::from_str(&sandbox, false).unwrap();
        let sandbox = Sandbox::enter(choice, &[]).unwrap();
        let socket = || drop(UnixDatagram::unbound().unwrap());
        match KINDS.iter().find(|(name, _)| *name == thread) {
            Some(&(_, kind)) => {
                let started = sandbox.threads().start(kind, socket);
                started.unwrap().join().unwrap();
            }
            None => {
                sandbox.confine(&Policy::VCPU).unwrap();
                socket();
            }
        }
    }

    #[test]
    fn a_denied_call_from_any_thread_ends_the_process_with_a_message_and_not_without_the_sandbox() {
        for thread in KINDS.map(|(name, _)| name).into_iter().chain(["vcpu"]) {
            let free = process(thread, "off");
            assert!(free.status.success(), "{thread}: {free:?}");
            if !Support::of_host().seccomp {
                continue;
            }
            let denied = process(thread, "on");
            assert_eq!(
                denied.status.code(),
                Some(status::SANDBOX.into()),
                "{thread}"
            );
            let stderr = String::from_utf8_lossy(&denied.stderr);
            let expected =
                format!("replex: sandbox: system call 41 (socket) denied to the thread {thread}; ");
            assert!(stderr.contains(&expected), "{thread}: {stderr}");
        }
    }

    #[test]
    fn resolvers_bring_nothing_else_of_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("resolv.conf");
        std::fs::write(&file, "").unwrap();
        let shared = resolvers(&file).unwrap();
        assert_eq!(shared.path, file);
        assert_eq!(shared.access, Access::ReadFile);
        if let Some(shared) = resolvers(Path::new("/etc/passwd")) {
            assert_eq!(shared.path, Path::new("/etc/passwd"));
            assert_eq!(shared.access, Access::ReadFile);
        }
        assert_eq!(resolvers(Path::new("/no/file")), None);
    }

    #[test]
    fn the_folder_of_a_socket_may_be_the_current_one() {
        for (socket, folder) in [("/tmp/x/s", "/tmp/x"), ("x/s", "x"), ("s", ".")] {
            let shared = folder_of_socket(Path::new(socket));
            assert_eq!(shared.path, Path::new(folder), "{socket}");
        }
    }
}
