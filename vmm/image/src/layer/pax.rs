//! The extended header of an entry.

/// Prefixes of the names of extended attributes: Go's and GNU tar's, and libarchive's.
const ATTRIBUTES: [&str; 2] = ["SCHILY.xattr.", "LIBARCHIVE.xattr."];

/// What an extended header says (POSIX, "pax Extended Header"), apart from what the reader of archives has applied already.
///
/// A record whose value has a newline may be misread; the fields are taken from those that are not.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) size: Option<u64>,
    /// The time of the last change, in whole seconds since 1970.
    pub(super) mtime: Option<i64>,
    /// The name of an extended attribute.
    pub(super) attribute: Option<String>,
    /// Whether the content is a map and the parts that are not holes.
    pub(super) is_sparse: bool,
}

impl Pax {
    pub(super) fn new(records: tar::PaxExtensions<'_>) -> Self {
        let mut pax = Self::default();
        for record in records.flatten() {
            if let (Ok(key), Ok(value)) = (record.key(), record.value()) {
                pax.record(key, value);
            } else if let Ok(key) = record.key() {
                pax.record(key, "");
            }
        }
        pax
    }

    fn record(&mut self, key: &str, value: &str) {
        match key {
            "uid" => self.uid = value.parse().ok(),
            "gid" => self.gid = value.parse().ok(),
            "size" => self.size = value.parse().ok(),
            "mtime" => self.mtime = seconds(value),
            _ if key.starts_with("GNU.sparse.") => self.is_sparse = true,
            _ => {
                let name = ATTRIBUTES
                    .iter()
                    .find_map(|prefix| key.strip_prefix(prefix));
                if let Some(name) = name {
                    self.attribute = Some(name.to_owned());
                }
            }
        }
    }
}

/// Rounds a decimal number down.
fn seconds(value: &str) -> Option<i64> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().ok()?;
    let is_whole = fraction.bytes().all(|digit| digit == b'0');
    Some(if whole.starts_with('-') && !is_whole {
        seconds.saturating_sub(1)
    } else {
        seconds
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down() {
        assert_eq!(seconds("12"), Some(12));
        assert_eq!(seconds("12.9"), Some(12));
        assert_eq!(seconds("-12.0"), Some(-12));
        assert_eq!(seconds("-12.1"), Some(-13));
        assert_eq!(seconds("-0.5"), Some(-1));
        assert_eq!(seconds("x"), None);
    }

    #[test]
    fn records_after_a_value_with_a_newline_are_found() {
        let records =
            b"30 SCHILY.xattr.user.a=\x01\n\x02\xff\xff\xff\xff\n15 mtime=-1.25\n13 uid=70000\n";
        let pax = Pax::new(tar::PaxExtensions::new(records));
        assert_eq!(pax.mtime, Some(-2));
        assert_eq!(pax.uid, Some(70000));
    }
}
