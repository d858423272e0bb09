//! Owners of files, as the host and as the guest number them.
//!
//! The user and the group that replex runs as are root's in the guest, and the other way round. All others keep their numbers;
//! so the host's root is the guest's root as well.

use rustix::process::{getegid, geteuid};

/// The host's user and group that are the guest's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    /// Returns the mapping that makes `uid` and `gid` of the host the guest's root.
    pub fn new(uid: u32, gid: u32) -> Ids {
        Ids { uid, gid }
    }

    /// Returns the mapping for the user and the group that this process runs as.
    pub fn of_process() -> Ids {
        Ids::new(geteuid().as_raw(), getegid().as_raw())
    }

    /// Returns whether the host lets this process give files to others: whether it runs as root.
    pub fn is_privileged(self) -> bool {
        self.uid == 0
    }

    /// Returns the guest's number of a user of the host.
    pub fn guest_uid(self, uid: u32) -> u32 {
        if uid == self.uid { 0 } else { uid }
    }

    /// Returns the guest's number of a group of the host.
    pub fn guest_gid(self, gid: u32) -> u32 {
        if gid == self.gid { 0 } else { gid }
    }

    /// Returns the host's number of a user of the guest.
    pub fn host_uid(self, uid: u32) -> u32 {
        if uid == 0 { self.uid } else { uid }
    }

    /// Returns the host's number of a group of the guest.
    pub fn host_gid(self, gid: u32) -> u32 {
        if gid == 0 { self.gid } else { gid }
    }
}
