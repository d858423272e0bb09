//! Layers, made entry by entry, with names that a decent writer of archives refuses.

use std::io::Write;

use tar::EntryType;

/// A layer in the making.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// An entry's owner, mode and time.
#[derive(Clone, Copy)]
pub struct Meta {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1,
        }
    }
}

impl Meta {
    pub fn mode(mode: u32) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, name, "", Meta::default(), content)
    }

    pub fn folder(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Directory, name, "", Meta::mode(0o755), "")
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Symlink, name, target, Meta::mode(0o777), "")
    }

    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Link, name, target, Meta::default(), "")
    }

    /// Appends an entry; names and targets that are too long for the header come before it, as GNU tar writes them.
    pub fn entry(
        mut self,
        kind: EntryType,
        name: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
        meta: Meta,
        content: impl AsRef<[u8]>,
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(meta.mtime);
        for (long, field) in [
            (EntryType::GNULongName, name.as_ref()),
            (EntryType::GNULongLink, target.as_ref()),
        ] {
            let old = header.as_old_mut();
            let room = if long == EntryType::GNULongName {
                &mut old.name
            } else {
                &mut old.linkname
            };
            let short = field.len().min(room.len());
            room[..short].copy_from_slice(&field[..short]);
            if field.len() > room.len() {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(long);
                self = self.raw(header, &[field, b"\0"].concat());
            }
        }
        self.raw(header, content.as_ref())
    }

    /// Appends a device.
    pub fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o660);
        header.set_uid(0);
        header.set_gid(6);
        header.set_mtime(1);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, b"")
    }

    /// Appends an extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        let bytes = builder.get_ref().clone();
        self.append(&bytes)
    }

    /// Appends a header, whose size and checksum are set, and a content.
    pub fn raw(self, mut header: tar::Header, content: &[u8]) -> Self {
        header.set_size(content.len() as u64);
        header.set_cksum();
        let padding = content.len().next_multiple_of(512) - content.len();
        self.append(header.as_bytes())
            .append(content)
            .append(&vec![0; padding])
    }

    /// Appends bytes.
    pub fn append(mut self, bytes: &[u8]) -> Self {
        self.bytes.write_all(bytes).unwrap();
        self
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(self) -> Vec<u8> {
        self.append(&[0; 1024]).bytes
    }
}
