//! Entries of a layer (POSIX pax and ustar formats, GNU tar's extensions).

use std::io::{self, Read};

use rustix::fs::makedev;

use super::pax::Pax;
use super::{Root, layer_fault};
use crate::error::Fault;
use crate::guard::{Budget, HeaderGuard};
use crate::limits::{PATH_BYTES, TARGET_BYTES};
use crate::spool::{Extent, SpoolError};
use crate::tree::{Leaf, Meta};

/// The entries of a layer.
pub(super) struct Entries<'a, R: Read> {
    pub(super) layer: &'a str,
    pub(super) entries: tar::Entries<'a, HeaderGuard<R>>,
    pub(super) budget: Budget,
}

impl<'a, R: Read> Entries<'a, R> {
    /// Reads the headers of the next entry. All of the entry before it has been read.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a, R>>, Fault> {
        self.budget.expect_header();
        let entry = self.entries.next().transpose();
        let entry = entry.map_err(|error| layer_fault(self.layer, error))?;
        self.budget.expect_content();
        Ok(entry.map(|entry| Entry {
            layer: self.layer,
            name: entry.path_bytes().into_owned(),
            entry,
        }))
    }
}

/// An entry of a layer.
pub(super) struct Entry<'a, R: Read> {
    layer: &'a str,
    name: Vec<u8>,
    entry: tar::Entry<'a, HeaderGuard<R>>,
}

impl<R: Read> Entry<'_, R> {
    fn fault(&self, reason: impl ToString) -> Fault {
        Fault::Entry {
            layer: self.layer.to_owned(),
            entry: String::from_utf8_lossy(&self.name).into_owned(),
            reason: reason.to_string(),
        }
    }

    /// Puts the entry into a root.
    pub(super) fn put(mut self, root: &mut Root) -> Result<(), Fault> {
        let is_whiteout = root.tree.white_out(&self.name);
        if !is_whiteout.map_err(|fault| self.fault(fault))? {
            self.put_node(root)?;
        }
        // What is left is read here, so that it is not taken for headers.
        let rest = io::copy(&mut self.entry, &mut io::sink());
        rest.map_err(|error| self.fault(error)).map(drop)
    }

    fn put_node(&mut self, root: &mut Root) -> Result<(), Fault> {
        use tar::EntryType as Type;

        let header_type = self.entry.header().entry_type();
        let leaf = match header_type {
            Type::XGlobalHeader => return Ok(()),
            Type::Link => {
                let target = self.target(PATH_BYTES)?;
                let linked = root.tree.link(&self.name, &target);
                return linked.map_err(|fault| self.fault(fault));
            }
            Type::Directory | Type::Regular | Type::Continuous | Type::GNUSparse => None,
            Type::Symlink => Some(Leaf::Symlink(self.target(TARGET_BYTES)?.into())),
            Type::Char => Some(Leaf::CharDevice(self.device()?)),
            Type::Block => Some(Leaf::BlockDevice(self.device()?)),
            Type::Fifo => Some(Leaf::Fifo),
            other => {
                let letter = char::from(other.as_byte()).escape_default();
                return Err(self.fault(format!("its type '{letter}' is not supported")));
            }
        };
        // The oldest format has no type for directories.
        let is_directory = header_type == Type::Directory || self.name.ends_with(b"/");
        let meta = self.meta(root)?;
        let put = match leaf {
            Some(leaf) => root.tree.put(&self.name, meta, leaf),
            None if is_directory => root.tree.put_directory(&self.name, meta),
            None => {
                let content = self.content(root)?;
                root.tree.put(&self.name, meta, Leaf::File(content))
            }
        };
        put.map_err(|fault| self.fault(fault))
    }

    /// Owner, mode and time.
    fn meta(&mut self, root: &mut Root) -> Result<Meta, Fault> {
        let pax = self.entry.pax_extensions();
        let pax = pax.map(|pax| pax.map(Pax::new).unwrap_or_default());
        let pax = pax.map_err(|error| self.fault(error))?;
        if pax.is_sparse {
            return Err(self.fault("sparse files of the pax format are not supported"));
        }
        let header = self.entry.header();
        let old = header.as_old();
        let mode = number(&old.mode, header.mode().map(u64::from));
        let uid = number(&old.uid, header.uid());
        let gid = number(&old.gid, header.gid());
        let mtime = number(&old.mtime, header.mtime());
        let is_damaged = pax.size.is_some_and(|size| size != self.entry.size());
        if is_damaged || mode.is_err() {
            return Err(self.fault("its header is damaged"));
        }
        if let Some(attribute) = pax.attribute {
            root.lost.count(&self.name, &attribute);
        }
        let owner = |pax: Option<u64>, header: io::Result<u64>| {
            let id = pax.map_or(header, Ok).map_err(|error| self.fault(error))?;
            u32::try_from(id).map_err(|_| self.fault(format!("its owner {id} is out of range")))
        };
        let mtime = mtime.map_err(|error| self.fault(error))?;
        Ok(Meta {
            // The mask leaves 12 bits.
            mode: (mode.unwrap_or(0) & 0o7777) as u16,
            uid: owner(pax.uid, uid)?,
            gid: owner(pax.gid, gid)?,
            // Times before 1970 are numbers of 64 bits with the sign bit set.
            mtime: clamp(pax.mtime.unwrap_or(mtime as i64)),
        })
    }

    /// The target of a link, which may have `most` bytes.
    fn target(&self, most: usize) -> Result<Vec<u8>, Fault> {
        let target = self.entry.link_name_bytes().unwrap_or_default();
        match &*target {
            [] => Err(self.fault("it is a link to nothing")),
            target if target.contains(&0) => Err(self.fault("its target has a zero byte")),
            target if target.len() > most => {
                Err(self.fault(format!("its target has more than {most} bytes")))
            }
            target => Ok(target.to_owned()),
        }
    }

    /// The number of a device as Linux encodes it in 32 bits (`new_encode_dev` in include/linux/kdev_t.h).
    fn device(&self) -> Result<u32, Fault> {
        let header = self.entry.header();
        let part = |number: io::Result<Option<u32>>| {
            number
                .map(Option::unwrap_or_default)
                .map_err(|error| self.fault(error))
        };
        let (major, minor) = (part(header.device_major())?, part(header.device_minor())?);
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(self.fault(format!("its device {major}:{minor} is out of range")));
        }
        // In range, the number's upper half is 0.
        Ok(makedev(major, minor) as u32)
    }

    /// Moves the content of a file to the spool.
    fn content(&mut self, root: &mut Root) -> Result<Extent, Fault> {
        let size = self.entry.size();
        root.content = root.content.saturating_add(size);
        root.check_bytes()?;
        match root.spool.add(&mut self.entry) {
            Ok(extent) if extent.len() == size => Ok(extent),
            Ok(_) => Err(self.fault("the layer ends within it")),
            Err(SpoolError::Read(error)) => Err(self.fault(error)),
            Err(SpoolError::Write(fault)) => Err(fault),
        }
    }
}

/// A field's number; fields that are left blank are 0.
fn number(field: &[u8], parsed: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        Ok(0)
    } else {
        parsed
    }
}

/// The time nearest to `time` that a squashfs image can have.
fn clamp(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}
