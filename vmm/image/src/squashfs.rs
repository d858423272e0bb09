//! Writing a root as a squashfs image.
//!
//! Blocks are compressed by zstd, which Debian's kernels read (CONFIG_SQUASHFS_ZSTD). Hard links become files of their own, each
//! with its data: the writer would tell duplicates by a hash for which anybody can make collisions, and so give one file the
//! content of another.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use backhand::compression::Compressor;
use backhand::{BackhandError, FilesystemCompressor, FilesystemWriter, NodeHeader};

use crate::blob::BlobReader;
use crate::error::{Fault, file_fault};
use crate::limits::{Limits, OWNERS, SQUARED_DEPTHS};
use crate::progress::{Meter, Report, Step};
use crate::spool::Spool;
use crate::tree::{Kind, Leaf, Meta, NodeId, Tree};

/// The first bytes of a squashfs image.
const MAGIC: &[u8] = b"hsqs";

/// Where the superblock has the length of the image, in 8 bytes, little-endian (`bytes_used` in Linux's fs/squashfs/squashfs_fs.h).
const BYTES_USED: usize = 40;

/// Whether a file is a squashfs image and not truncated.
pub(crate) fn is_whole(file: &Path) -> bool {
    let read = || -> io::Result<bool> {
        let mut file = File::open(file)?;
        let mut start = [0; BYTES_USED + 8];
        file.read_exact(&mut start)?;
        let used = start[BYTES_USED..].try_into().map_or(0, u64::from_le_bytes);
        Ok(start.starts_with(MAGIC) && used <= file.metadata()?.len())
    };
    read().unwrap_or(false)
}

/// Writes a root into `file`, which is at `path`.
pub(crate) fn write(
    tree: &Tree,
    spool: &Spool,
    file: &File,
    path: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<(), Fault> {
    let total = survey(tree, limits)?;
    let meter = RefCell::new(Meter::start(Step::Writing, total, report));
    let fault = |error: BackhandError| match error {
        BackhandError::StdIo(error) => file_fault("write", path)(error),
        error => Fault::Squashfs {
            file: path.to_owned(),
            reason: error.to_string(),
        },
    };
    let mut image = Image {
        writer: FilesystemWriter::default(),
        tree,
        spool,
        meter: &meter,
    };
    image.fill().map_err(fault)?;
    let mut output = BufWriter::with_capacity(1 << 20, file);
    image.writer.write(&mut output).map_err(fault)?;
    output.flush().map_err(file_fault("write", path))
}

/// Checks that a root is not too large for an image. Returns the bytes of its files.
fn survey(tree: &Tree, limits: &Limits) -> Result<u64, Fault> {
    let mut bytes = 0_u64;
    let mut owners = BTreeSet::new();
    let mut squared_depths = 0_u64;
    let mut ahead = vec![(Tree::ROOT, 0_u64)];
    while let Some((id, depth)) = ahead.pop() {
        let node = tree.node(id);
        squared_depths = squared_depths.saturating_add(depth * depth);
        if squared_depths > SQUARED_DEPTHS {
            return Err(Fault::TooDeep(SQUARED_DEPTHS));
        }
        owners.extend([node.meta.uid, node.meta.gid]);
        if owners.len() > OWNERS {
            return Err(Fault::Limit {
                what: "owners and groups",
                most: OWNERS as u64,
            });
        }
        match &node.kind {
            Kind::Directory(directory) => {
                ahead.extend(directory.values().map(|child| (child.node, depth + 1)));
            }
            Kind::Leaf(Leaf::File(extent)) => bytes = bytes.saturating_add(extent.len()),
            Kind::Leaf(_) => {}
        }
        if bytes > limits.bytes {
            return Err(Fault::Limit {
                what: "bytes in the root's files",
                most: limits.bytes,
            });
        }
    }
    Ok(bytes)
}

/// A squashfs image in the making.
struct Image<'a, 'm> {
    writer: FilesystemWriter<'static, 'static, 'a>,
    tree: &'a Tree,
    spool: &'a Spool,
    meter: &'a RefCell<Meter<'m>>,
}

impl Image<'_, '_> {
    fn fill(&mut self) -> Result<(), BackhandError> {
        let compressor = FilesystemCompressor::new(Compressor::Zstd, None)?;
        self.writer.set_compressor(compressor);
        // Despite its name, the switch that has duplicates stored once.
        self.writer.set_no_duplicate_files(false);
        let root = &self.tree.node(Tree::ROOT).meta;
        // The root is there already, so this fails; but then its owners are known, which the setters below do not see to.
        let _ = self.writer.push_dir("/", header(root));
        self.writer.set_root_mode(root.mode);
        self.writer.set_root_uid(root.uid);
        self.writer.set_root_gid(root.gid);
        self.fill_directory(Tree::ROOT, Path::new("/"))
    }

    /// Adds all that is below a directory, in the writer's own order, in which nothing has to be moved.
    fn fill_directory(&mut self, id: NodeId, path: &Path) -> Result<(), BackhandError> {
        for (name, child) in self.tree.directory(id) {
            let path = path.join(OsStr::from_bytes(name));
            let node = self.tree.node(child.node);
            let header = header(&node.meta);
            match &node.kind {
                Kind::Directory(_) => {
                    self.writer.push_dir(&path, header)?;
                    self.fill_directory(child.node, &path)?;
                }
                Kind::Leaf(leaf) => self.push(leaf, path, header)?,
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        leaf: &Leaf,
        path: PathBuf,
        header: NodeHeader,
    ) -> Result<(), BackhandError> {
        match leaf {
            Leaf::File(extent) => {
                let content = Content {
                    reader: self.spool.blob(*extent).reader(),
                    meter: self.meter,
                };
                self.writer.push_file(content, path, header)
            }
            Leaf::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.writer.push_symlink(target, path, header)
            }
            Leaf::CharDevice(number) => self.writer.push_char_device(*number, path, header),
            Leaf::BlockDevice(number) => self.writer.push_block_device(*number, path, header),
            Leaf::Fifo => self.writer.push_fifo(path, header),
        }
    }
}

fn header(meta: &Meta) -> NodeHeader {
    NodeHeader::new(meta.mode, meta.uid, meta.gid, meta.mtime)
}

/// The content of a file on its way into the image.
struct Content<'a, 'm> {
    reader: BlobReader,
    meter: &'a RefCell<Meter<'m>>,
}

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.meter.borrow_mut().add(read as u64);
        Ok(read)
    }
}
