//! Layers: their blobs, uncompressed and verified, and their entries, put into a tree.

mod entry;
mod lost;
mod pax;

use std::io::{BufReader, Read};

use crate::decode::decode;
use crate::digest::Hashing;
use crate::document::verify_digest;
use crate::error::Fault;
use crate::guard::HeaderGuard;
use crate::limits::Limits;
use crate::progress::Meter;
use crate::select::Layer;
use crate::source::Source;
use crate::spool::Spool;
use crate::tree::Tree;
use entry::Entries;
use lost::Lost;

/// A root in the making.
pub(crate) struct Root {
    pub(crate) tree: Tree,
    /// The contents of the files.
    pub(crate) spool: Spool,
    limits: Limits,
    /// The bytes of all layers so far, uncompressed.
    bytes: u64,
    /// The bytes of all files so far, with the holes of sparse files.
    content: u64,
    entries: u32,
    /// Extended attributes.
    pub(crate) lost: Lost,
}

impl Root {
    pub(crate) fn new(spool: Spool, limits: Limits) -> Self {
        Self {
            tree: Tree::new(&limits),
            spool,
            limits,
            bytes: 0,
            content: 0,
            entries: 0,
            lost: Lost::default(),
        }
    }

    /// Puts a layer on top of those so far.
    ///
    /// A layer whose blob is not the one that the manifest or the configuration names is refused for that, whatever else is wrong
    /// with it.
    pub(crate) fn apply(
        &mut self,
        source: &Source,
        layer: &Layer,
        meter: &mut Meter<'_>,
    ) -> Result<(), Fault> {
        let name = &layer.blob.name;
        let blob = source.get(name)?;
        let mut stored = Hashing::new(meter.reader(blob.reader()));
        let outcome = self.uncompress(layer, &mut stored);
        stored.drain().map_err(|error| layer_fault(name, error))?;
        let (digest, size) = stored.finish();
        if let Some(expected) = &layer.blob.stored {
            expected.verify(name, digest, size)?;
        }
        outcome
    }

    /// Reads a layer to its end.
    fn uncompress(&mut self, layer: &Layer, stored: &mut impl Read) -> Result<(), Fault> {
        let name = &layer.blob.name;
        let left = self.limits.bytes.saturating_sub(self.bytes);
        let plain = decode(BufReader::new(stored)).map_err(|error| layer_fault(name, error))?;
        let mut plain = Hashing::new(plain.take(left.saturating_add(1)));
        let outcome = self.read_entries(name, &mut plain);
        let rest = plain.drain().map_err(|error| layer_fault(name, error));
        let (digest, bytes) = plain.finish();
        self.bytes = self.bytes.saturating_add(bytes);
        self.check_bytes()?;
        rest?;
        verify_digest(&format!("{name}, uncompressed,"), layer.diff_id, digest)?;
        outcome
    }

    fn check_bytes(&self) -> Result<(), Fault> {
        if self.bytes.max(self.content) > self.limits.bytes {
            return Err(Fault::Limit {
                what: "bytes in the layers",
                most: self.limits.bytes,
            });
        }
        Ok(())
    }

    fn read_entries(&mut self, layer: &str, plain: &mut impl Read) -> Result<(), Fault> {
        self.tree.begin_layer();
        let (guard, budget) = HeaderGuard::new(plain);
        let mut archive = tar::Archive::new(guard);
        let entries = archive
            .entries()
            .map_err(|error| layer_fault(layer, error))?;
        let mut entries = Entries {
            layer,
            entries,
            budget,
        };
        while let Some(entry) = entries.next()? {
            self.entries = self.entries.saturating_add(1);
            if self.entries > self.limits.entries {
                return Err(Fault::Limit {
                    what: "entries in the layers",
                    most: self.limits.entries.into(),
                });
            }
            entry.put(self)?;
        }
        Ok(())
    }
}

/// Returns the fault of a layer that cannot be read.
fn layer_fault(layer: &str, reason: impl ToString) -> Fault {
    Fault::Layer {
        layer: layer.to_owned(),
        reason: reason.to_string(),
    }
}
