//! The way from the root to a directory.
//!
//! Symbolic links on the way are followed, as they are where layers are unpacked on a mounted file system, but never out of the
//! root: `..` in the root is the root, and an absolute target begins there. So an entry `lib/x` in a layer above one with the link
//! `lib -> usr/lib` comes into `usr/lib`, and a link to `/etc` is the root's own `/etc`.

use std::collections::VecDeque;

use super::{Child, Directory, Kind, Leaf, Meta, Name, Node, NodeId, Tree, TreeFault};
use crate::limits::{DEPTH, LINKS};

/// The fate of missing directories on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    /// Missing directories are made, and those on the way belong to the present layer.
    Make,
    /// The way ends.
    Find,
}

/// Where a step leads.
enum Step {
    Into(NodeId),
    /// Into a directory that has been made.
    Made(NodeId),
    Along(Box<[u8]>),
    Nowhere,
}

impl Tree {
    /// Goes from the root to the directory with these names. Returns `None` if it is missing and not to be made.
    pub(super) fn walk(
        &mut self,
        names: Vec<&[u8]>,
        parents: Parents,
    ) -> Result<Option<NodeId>, TreeFault> {
        let mut ahead: VecDeque<Name> = names.into_iter().map(Name::from).collect();
        // With the length of each directory's path.
        let mut behind = vec![(Self::ROOT, 0)];
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            self.count_bytes(name.len() + 1)?;
            if *name == *b".." {
                behind.truncate(behind.len().saturating_sub(1).max(1));
                continue;
            }
            let (here, path) = behind.last().copied().unwrap_or((Self::ROOT, 0));
            let path = path + name.len() + 1;
            match self.step(here, &name, parents)? {
                Step::Into(node) => behind.push((node, path)),
                Step::Made(node) => {
                    self.count_bytes(path)?;
                    behind.push((node, path));
                }
                Step::Along(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(TreeFault::Loop);
                    }
                    if target.starts_with(b"/") {
                        behind.truncate(1);
                    }
                    let parts = target.split(|&byte| byte == b'/');
                    let parts = parts.filter(|part| !matches!(part, [] | [b'.']));
                    for part in parts.rev() {
                        ahead.push_front(part.into());
                    }
                }
                Step::Nowhere => return Ok(None),
            }
            if behind.len() > DEPTH {
                return Err(TreeFault::TooDeep);
            }
        }
        Ok(behind.pop().map(|(node, _)| node))
    }

    fn step(&mut self, here: NodeId, name: &[u8], parents: Parents) -> Result<Step, TreeFault> {
        let layer = self.layer;
        let Some(&Child { node, .. }) = self.directory(here).get(name) else {
            if parents == Parents::Find {
                return Ok(Step::Nowhere);
            }
            let node = self.add(Node {
                meta: Meta::DIRECTORY,
                kind: Kind::Directory(Directory::new()),
            });
            self.set(here, name, node)?;
            return Ok(Step::Made(node));
        };
        match &self.node(node).kind {
            Kind::Directory(_) => {
                if parents == Parents::Make
                    && let Some(child) = self.directory_mut(here).get_mut(name)
                {
                    child.layer = layer;
                }
                Ok(Step::Into(node))
            }
            Kind::Leaf(Leaf::Symlink(target)) => Ok(Step::Along(target.clone())),
            Kind::Leaf(_) if parents == Parents::Find => Ok(Step::Nowhere),
            Kind::Leaf(_) => {
                let name = String::from_utf8_lossy(name).into_owned();
                Err(TreeFault::BelowFile(name))
            }
        }
    }
}
