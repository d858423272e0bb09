//! Extended attributes, which the squashfs writer cannot store.

/// A count of entries whose extended attributes are lost.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    entries: u64,
    example: Option<(String, String)>,
}

impl Lost {
    /// Counts an entry with an extended attribute.
    pub(super) fn count(&mut self, entry: &[u8], attribute: &str) {
        self.entries += 1;
        self.example.get_or_insert_with(|| {
            let entry = String::from_utf8_lossy(entry).into_owned();
            (entry, attribute.to_owned())
        });
    }

    /// Warns if there were any.
    pub(crate) fn warn(&self) {
        if let Some((entry, attribute)) = &self.example {
            log::warn!(
                "extended attributes of {} files are lost, such as {attribute:?} of {entry:?}",
                self.entries
            );
        }
    }
}
