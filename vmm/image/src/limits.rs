//! The most that an image may ask for.

/// The most that an image may ask for. Larger images are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together, uncompressed; also bytes of all files in the root, those with several names counted
    /// once a name.
    pub bytes: u64,
    /// Entries of all layers together.
    pub entries: u32,
    /// Bytes of names in all layers together: of the names in the paths of entries and of the symbolic links that these lead
    /// through, and of the whole path of each folder that is made because no entry says anything of it. It bounds the time that
    /// entries take, and the memory for names.
    pub names: u64,
}

impl Default for Limits {
    /// 64 GiB and about a million entries with 256 bytes of names each, far above the largest images in use.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 1 << 20,
            names: 1 << 28,
        }
    }
}

/// The longest name of an entry, as for Linux's system calls (PATH_MAX without its terminating zero).
pub(crate) const PATH_BYTES: usize = 4095;

/// The longest component of a name (NAME_MAX).
pub(crate) const NAME_BYTES: usize = 255;

/// The longest target of a symbolic link; the squashfs writer panics at longer ones.
pub(crate) const TARGET_BYTES: usize = 255;

/// The most directories on the way from the root to a file.
pub(crate) const DEPTH: usize = 256;

/// The most that the squares of the depths of a root's names may add up to. In each folder the squashfs writer looks at all that is
/// below, and compares its path with the folder's, component by component; so this bounds its time, to some 20 s. A million names
/// may be 22 deep on average.
pub(crate) const SQUARED_DEPTHS: u64 = 1 << 29;

/// The most symbolic links that are followed on the way to one file (MAXSYMLINKS in Linux).
pub(crate) const LINKS: usize = 40;

/// The most bytes of headers that one entry of an archive may have, extensions included.
pub(crate) const HEADER_BYTES: u64 = 1 << 20;

/// The most members of an archive with an image, not of a layer.
pub(crate) const MEMBERS: usize = 1 << 16;

/// The most bytes of names that the members of such an archive have and lead to.
pub(crate) const MEMBER_NAMES: usize = 16 << 20;

/// The largest JSON document, in bytes.
pub(crate) const DOCUMENT_BYTES: u64 = 4 << 20;

/// The most descriptors that are looked at in search of an image.
pub(crate) const DESCRIPTORS: usize = 1024;

/// The deepest index in an index.
pub(crate) const INDEX_DEPTH: usize = 4;

/// The most layers of an image.
pub(crate) const LAYERS: usize = 1024;

/// The most different owners and groups; a squashfs image has room for 65,535.
pub(crate) const OWNERS: usize = 4096;
