//! A layout in a tar archive, or an archive of `docker save`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::members::{link_target, normal};
use crate::blob::Blob;
use crate::decode::{Compression, decode};
use crate::error::Fault;
use crate::guard::HeaderGuard;
use crate::limits::{LINKS, Limits, MEMBER_NAMES, MEMBERS, PATH_BYTES};
use crate::progress::{Meter, Report, Step};
use crate::spool::{Spool, SpoolError};

/// An archive and where its members are. Of several members with the same name the last counts.
pub(crate) struct Archive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
    /// Whether the file is a copy, since the archive is compressed as a whole.
    pub(super) is_uncompressed: bool,
}

enum Member {
    /// A file, with its place in the archive.
    File { start: u64, len: u64 },
    /// A link to another name; `docker save` makes them for layers that images share.
    Link(Vec<u8>),
}

impl Archive {
    /// Reads the headers of an archive, which is a whole file.
    pub(super) fn open(
        file: Blob,
        cache: &Path,
        limits: &Limits,
        report: Report<'_>,
    ) -> Result<Self, Fault> {
        let mut start = [0; Compression::MAGIC];
        let read = file.reader().read(&mut start).map_err(unreadable)?;
        let is_uncompressed = Compression::of(&start[..read]) != Compression::None;
        let file = match is_uncompressed {
            false => file,
            true => uncompress(&file, cache, limits, report)?,
        };
        if !begins_with_header(&file).map_err(unreadable)? {
            return Err(Fault::NotAnImage);
        }
        let members = index(&file)?;
        Ok(Self {
            file: file.file,
            members,
            is_uncompressed,
        })
    }

    pub(super) fn find(&self, name: &str) -> Option<Blob> {
        let mut name = &normal(name.as_bytes())?;
        for _ in 0..=LINKS {
            match self.members.get(name)? {
                Member::File { start, len } => {
                    return Some(Blob {
                        file: self.file.clone(),
                        start: *start,
                        len: *len,
                    });
                }
                Member::Link(target) => name = target,
            }
        }
        None
    }
}

fn unreadable(error: io::Error) -> Fault {
    Fault::Archive(error.to_string())
}

/// Uncompresses an archive into an unnamed file.
fn uncompress(
    file: &Blob,
    cache: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<Blob, Fault> {
    let mut meter = Meter::start(Step::Uncompressing, file.len, report);
    let mut spool = Spool::new(cache)?;
    let compressed = BufReader::new(meter.reader(file.reader()));
    let plain = decode(compressed).map_err(unreadable)?;
    let extent = match spool.add(&mut plain.take(limits.bytes.saturating_add(1))) {
        Ok(extent) if extent.len() > limits.bytes => Err(Fault::Limit {
            what: "bytes in the archive",
            most: limits.bytes,
        }),
        Ok(extent) => Ok(extent),
        Err(SpoolError::Read(error)) => Err(unreadable(error)),
        Err(SpoolError::Write(fault)) => Err(fault),
    };
    Ok(spool.blob(extent?))
}

/// Whether a file begins as an archive: with a header whose checksum is right, or with the zeros at the end of an empty one
/// (POSIX.1-2017, pax, "ustar Interchange Format").
fn begins_with_header(file: &Blob) -> io::Result<bool> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let mut block = Vec::new();
    file.reader().take(512).read_to_end(&mut block)?;
    if block.len() < 512 {
        return Ok(false);
    }
    let byte = |(at, &byte): (usize, &u8)| match CHECKSUM.contains(&at) {
        true => u32::from(b' '),
        false => byte.into(),
    };
    let sum: u32 = block.iter().enumerate().map(byte).sum();
    let digits = String::from_utf8_lossy(&block[CHECKSUM]);
    let digits = digits.trim_matches([' ', '\0']);
    let is_header = u32::from_str_radix(digits, 8) == Ok(sum);
    Ok(is_header || block.iter().all(|&byte| byte == 0))
}

/// Reads the headers of an archive, which is a whole file.
fn index(file: &Blob) -> Result<HashMap<Vec<u8>, Member>, Fault> {
    let (guard, budget) = HeaderGuard::new(&*file.file);
    let mut archive = tar::Archive::new(guard);
    let mut members = HashMap::new();
    let mut bytes = 0_usize;
    let mut entries = archive.entries_with_seek().map_err(unreadable)?;
    loop {
        budget.expect_header();
        let Some(entry) = entries.next() else { break };
        let entry = entry.map_err(unreadable)?;
        let name = entry.path_bytes();
        if name.len() > PATH_BYTES {
            return Err(Fault::Archive("a member's name is too long".to_owned()));
        }
        let Some(name) = normal(&name) else { continue };
        if let Some(member) = member(&entry, &name, file.len)? {
            bytes += name.len();
            if let Member::Link(target) = &member {
                bytes += target.len();
            }
            members.insert(name, member);
        }
        if bytes > MEMBER_NAMES {
            return Err(Fault::Limit {
                what: "bytes of names in the archive",
                most: MEMBER_NAMES as u64,
            });
        }
        if members.len() > MEMBERS {
            return Err(Fault::Limit {
                what: "files in the archive",
                most: MEMBERS as u64,
            });
        }
    }
    Ok(members)
}

fn member(
    entry: &tar::Entry<'_, impl Read>,
    name: &[u8],
    archive_len: u64,
) -> Result<Option<Member>, Fault> {
    let target = || entry.link_name_bytes().unwrap_or_default();
    let member = match entry.header().entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let (start, len) = (entry.raw_file_position(), entry.size());
            if start.checked_add(len).is_none_or(|end| end > archive_len) {
                let name = String::from_utf8_lossy(name);
                return Err(Fault::Archive(format!("it ends within {name}")));
            }
            Some(Member::File { start, len })
        }
        // Longer ones lead nowhere, and would all be kept.
        _ if target().len() > PATH_BYTES => None,
        tar::EntryType::Symlink => link_target(name, &target()).map(Member::Link),
        tar::EntryType::Link => normal(&target()).map(Member::Link),
        _ => None,
    };
    Ok(member)
}
