//! A cpio archive in memory, in the format that the kernel unpacks, "newc".
//!
//! An archive only describes its members, so it can hold devices and files of root without any privilege on the host.
//! The owner is always root and the time always zero, so the same input gives the same bytes.

use std::io::Write as _;

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// The alignment at which the kernel looks for a following archive, in bytes. Archives made here end at a multiple of
/// it.
pub const ALIGNMENT: usize = 4;

/// A device number.
#[derive(Debug, Clone, Copy)]
pub struct DeviceNumber {
    /// The major number, which selects the driver.
    pub major: u32,
    /// The minor number, which selects the device.
    pub minor: u32,
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    members: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, name: &str, mode: u32) {
        self.member(
            NewcBuilder::new(name)
                .mode(mode)
                .set_mode_file_type(ModeFileType::Directory),
            &[],
        );
    }

    /// Adds a regular file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.member(
            NewcBuilder::new(name)
                .mode(mode)
                .set_mode_file_type(ModeFileType::Regular),
            content,
        );
    }

    /// Adds a symbolic link to `target`.
    pub fn link(&mut self, name: &str, target: &str) {
        const LINK_MODE: u32 = 0o777;
        self.member(
            NewcBuilder::new(name)
                .mode(LINK_MODE)
                .set_mode_file_type(ModeFileType::Symlink),
            target.as_bytes(),
        );
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, mode: u32, number: DeviceNumber) {
        let member = NewcBuilder::new(name)
            .mode(mode)
            .set_mode_file_type(ModeFileType::Char)
            .rdev_major(number.major)
            .rdev_minor(number.minor);
        self.member(member, &[]);
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = trailer(self.bytes).expect("a Vec takes every write");
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// Adds a member with an inode number of its own, so that the kernel does not take two members for hard links.
    ///
    /// # Panics
    /// If `content` is longer than the format's limit of 4 GiB - 1.
    fn member(&mut self, member: NewcBuilder, content: &[u8]) {
        self.members += 1;
        let length =
            u32::try_from(content.len()).expect("a member of a cpio archive is shorter than 4 GiB");
        let mut writer = member.ino(self.members).write(&mut self.bytes, length);
        writer.write_all(content).expect("a Vec takes every write");
        writer.finish().expect("a Vec takes every write");
    }
}

/// Reading archives back, for tests.
#[cfg(test)]
pub(super) mod read_back {
    use std::io::Read as _;

    use cpio::NewcReader;

    /// A member that was read back.
    #[derive(Debug)]
    pub(crate) struct Member {
        pub(crate) name: String,
        pub(crate) mode: u32,
        pub(crate) device: (u32, u32),
        pub(crate) content: Vec<u8>,
    }

    /// Reads the members of an archive, which must end with its trailer.
    pub(crate) fn members(archive: &[u8]) -> Vec<Member> {
        let mut rest = archive;
        let mut members = Vec::new();
        loop {
            let mut reader = NewcReader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                return members;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            members.push(Member {
                name: entry.name().to_owned(),
                mode: entry.mode(),
                device: (entry.rdev_major(), entry.rdev_minor()),
                content,
            });
            rest = reader.finish().unwrap();
        }
    }
}
