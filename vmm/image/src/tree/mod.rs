//! The names of a root, as all layers so far make them.
//!
//! A tree is made of directories that name nodes. Several names may lead to the same node, as hard links do, but no more than one
//! to a directory; so there are no circles. Each name has the number of the layer that has set it last, which tells whiteouts what
//! is of lower layers.

mod fault;
mod walk;
mod whiteout;

use std::collections::{BTreeMap, HashSet};

use crate::limits::{Limits, NAME_BYTES, PATH_BYTES};
use crate::spool::Extent;
pub(crate) use fault::TreeFault;
use walk::Parents;

/// A name in a directory: bytes without `/` and zero.
pub(crate) type Name = Box<[u8]>;

/// Owner, mode and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The permissions with setuid, setgid and sticky bits: 12 bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The time of the last change, in seconds since 1970, as far as a squashfs image has it.
    pub(crate) mtime: u32,
}

impl Meta {
    /// A directory's that no layer says anything of.
    pub(crate) const DIRECTORY: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
}

/// A node that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf {
    File(Extent),
    /// A symbolic link with its target, which is neither empty nor longer than [`TARGET_BYTES`](crate::limits::TARGET_BYTES).
    Symlink(Box<[u8]>),
    /// A character device with its number as Linux encodes it (`new_encode_dev`).
    CharDevice(u32),
    /// A block device.
    BlockDevice(u32),
    Fifo,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Kind {
    Directory(Directory),
    Leaf(Leaf),
}

/// The names in a directory.
pub(crate) type Directory = BTreeMap<Name, Child>;

/// What a name leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    pub(crate) node: NodeId,
    /// The layer that has set the name or, for a directory, something in it.
    layer: u32,
}

/// The number of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(usize);

/// A directory, file, link or device.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// A root.
pub(crate) struct Tree {
    nodes: Vec<Node>,
    layer: u32,
    /// The directories that the present layer has made opaque: nothing of lower layers is in them or below.
    opaque: HashSet<NodeId>,
    /// The names that have been set.
    names: u32,
    /// The bytes of names that [`Limits::names`] counts.
    bytes: u64,
    limits: Limits,
}

impl Tree {
    /// The root directory.
    pub(crate) const ROOT: NodeId = NodeId(0);

    /// Makes an empty root.
    pub(crate) fn new(limits: &Limits) -> Self {
        let root = Node {
            meta: Meta::DIRECTORY,
            kind: Kind::Directory(Directory::new()),
        };
        Self {
            nodes: vec![root],
            layer: 0,
            opaque: HashSet::new(),
            names: 0,
            bytes: 0,
            limits: *limits,
        }
    }

    /// Begins the next layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
        self.opaque.clear();
    }

    /// Returns a node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Puts a node that is no directory at `path`, in place of whatever is there.
    pub(crate) fn put(&mut self, path: &[u8], meta: Meta, leaf: Leaf) -> Result<(), TreeFault> {
        let (parent, name) = self.place(path)?;
        let node = self.add(Node {
            meta,
            kind: Kind::Leaf(leaf),
        });
        self.set(parent, name, node)
    }

    /// Makes a directory at `path`; one that is there gets the new owner, mode and time and keeps its names.
    pub(crate) fn put_directory(&mut self, path: &[u8], meta: Meta) -> Result<(), TreeFault> {
        if components(path)?.is_empty() {
            self.nodes[Self::ROOT.0].meta = meta;
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        let there = self.directory(parent).get(name).map(|child| child.node);
        match there {
            Some(node) if matches!(self.node(node).kind, Kind::Directory(_)) => {
                self.nodes[node.0].meta = meta;
                self.set(parent, name, node)
            }
            _ => {
                let node = self.add(Node {
                    meta,
                    kind: Kind::Directory(Directory::new()),
                });
                self.set(parent, name, node)
            }
        }
    }

    /// Gives the node at `target` a second name, in place of whatever is there.
    pub(crate) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeFault> {
        let missing = || TreeFault::LinkTarget(String::from_utf8_lossy(target).into_owned());
        let (last, folders) = split(components(target)?).ok_or_else(missing)?;
        let parents = self.walk(folders, Parents::Find)?.ok_or_else(missing)?;
        let found = self.directory(parents).get(last);
        let node = found.ok_or_else(missing)?.node;
        if matches!(self.node(node).kind, Kind::Directory(_)) {
            return Err(missing());
        }
        let (parent, name) = self.place(path)?;
        self.set(parent, name, node)
    }

    /// The directory, made if necessary, and the name in it that a path leads to.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(NodeId, &'p [u8]), TreeFault> {
        let (name, folders) = split(components(path)?).ok_or(TreeFault::Root)?;
        let parent = self.walk(folders, Parents::Make)?;
        Ok((parent.ok_or(TreeFault::Root)?, name))
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// Sets what a name leads to.
    fn set(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), TreeFault> {
        self.names += 1;
        if self.names > self.limits.entries {
            return Err(TreeFault::Entries(self.limits.entries));
        }
        self.count_bytes(name.len())?;
        let layer = self.layer;
        self.directory_mut(parent)
            .insert(name.into(), Child { node, layer });
        Ok(())
    }

    /// Counts bytes of names.
    fn count_bytes(&mut self, bytes: usize) -> Result<(), TreeFault> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.limits.names {
            return Err(TreeFault::Names(self.limits.names));
        }
        Ok(())
    }

    /// The names in a directory; none if the node is not one.
    pub(crate) fn directory(&self, id: NodeId) -> &Directory {
        const EMPTY: &Directory = &Directory::new();
        match &self.node(id).kind {
            Kind::Directory(directory) => directory,
            Kind::Leaf(_) => EMPTY,
        }
    }

    /// The names in a directory, to be changed. A node that is not a directory becomes one; callers have directories only.
    fn directory_mut(&mut self, id: NodeId) -> &mut Directory {
        let kind = &mut self.nodes[id.0].kind;
        if matches!(kind, Kind::Leaf(_)) {
            *kind = Kind::Directory(Directory::new());
        }
        match kind {
            Kind::Directory(directory) => directory,
            Kind::Leaf(_) => unreachable!("it is a directory"),
        }
    }
}

/// Takes a path apart. Empty components and `.` do not count.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, TreeFault> {
    if path.len() > PATH_BYTES {
        return Err(TreeFault::TooLong);
    }
    if path.contains(&0) {
        return Err(TreeFault::ZeroByte);
    }
    let parts = path.split(|&byte| byte == b'/');
    let parts: Vec<&[u8]> = parts.filter(|part| !matches!(part, [] | [b'.'])).collect();
    match parts
        .iter()
        .find(|part| ***part == *b".." || part.len() > NAME_BYTES)
    {
        Some([b'.', b'.']) => Err(TreeFault::Up),
        Some(_) => Err(TreeFault::TooLong),
        None => Ok(parts),
    }
}

/// The last component and those before it; `None` for the root.
fn split(mut components: Vec<&[u8]>) -> Option<(&[u8], Vec<&[u8]>)> {
    let last = components.pop()?;
    Some((last, components))
}
