//! [`Support`]: what the host has of what a sandbox is made of.

use std::ptr;

use nix::libc::{self, c_long, c_ulong};

/// The means of confinement that this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The version of Landlock's interface, if it is there and switched on.
    pub landlock: Option<u32>,
    /// Whether there are filters of system calls that raise SIGSYS.
    pub seccomp: bool,
}

/// LANDLOCK_CREATE_RULESET_VERSION in <linux/landlock.h>: asks for the version.
const LANDLOCK_VERSION: c_ulong = 1;

impl Support {
    /// Asks the host. Nothing changes by that.
    pub fn of_host() -> Self {
        // SAFETY: with this flag the call only returns a number.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                ptr::null::<u8>(),
                0 as c_ulong,
                LANDLOCK_VERSION,
            )
        };
        let action = libc::SECCOMP_RET_TRAP;
        // SAFETY: the call reads the number and returns whether a filter can return it.
        let trap: c_long = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                c_ulong::from(libc::SECCOMP_GET_ACTION_AVAIL),
                0 as c_ulong,
                &raw const action,
            )
        };
        Self {
            landlock: u32::try_from(version).ok().filter(|&version| version > 0),
            seccomp: trap == 0,
        }
    }
}
