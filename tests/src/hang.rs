//! A machine that hangs must fail its test rather than hang it.

use std::{
    process::{Child, ExitStatus},
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

/// A time many times as long as a boot on a slow host.
pub const PATIENCE: Duration = Duration::from_secs(1200);

/// A running program that is killed when [`PATIENCE`] is over, and when this is dropped.
pub struct Guarded {
    /// The program; not to be waited for but by [`Self::wait`], so that its process id stays its own.
    pub child: Child,
    ended: Sender<()>,
    watcher: thread::JoinHandle<()>,
}

impl Guarded {
    /// Watches over `child`.
    pub fn new(child: Child) -> Self {
        let pid = pid(&child);
        let (ended, end) = channel();
        let watcher = thread::spawn(move || {
            if end.recv_timeout(PATIENCE).is_err() {
                // If it has ended meanwhile, so much the better.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self {
            child,
            ended,
            watcher,
        }
    }

    /// Waits until the program ends.
    pub fn wait(mut self) -> ExitStatus {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid(&self.child)), flags).unwrap();
        // The watcher is gone before the process id is given back. It may have been too late to tell it.
        let _ = self.ended.send(());
        self.watcher.join().unwrap();
        self.child.wait().unwrap()
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}
