//! Whiteouts: what a layer hides of lower layers (OCI Image Format Specification, "Image Layer Filesystem Changeset",
//! "Whiteouts" and "Opaque Whiteout").
//!
//! Whatever the order of a layer's entries, a whiteout hides nothing of its own layer.

use super::walk::Parents;
use super::{Kind, NodeId, Tree, TreeFault, components, split};

/// The beginning of a whiteout's name; the name that it hides follows.
const PREFIX: &[u8] = b".wh.";

/// The beginning of names with a meaning of their own.
const SPECIAL: &[u8] = b".wh..wh.";

/// The whiteout that hides all names of its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Tree {
    /// Does what the whiteout at `path` says. Returns whether it is one.
    ///
    /// Names of aufs's own files, which begin like whiteouts, are ignored.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<bool, TreeFault> {
        let Some((name, folders)) = split(components(path)?) else {
            return Ok(false);
        };
        let Some(hidden) = name.strip_prefix(PREFIX) else {
            return Ok(false);
        };
        let is_special = name.starts_with(SPECIAL) && name != OPAQUE;
        if !is_special && matches!(hidden, [] | [b'.'] | [b'.', b'.']) {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(TreeFault::Whiteout(name));
        }
        if !is_special && let Some(folder) = self.walk(folders, Parents::Find)? {
            if name == OPAQUE {
                self.hide_all(folder);
            } else {
                self.hide(folder, hidden);
            }
        }
        Ok(true)
    }

    /// Removes all of lower layers that is in a directory or below it. A layer's second time does nothing, so that all of a
    /// layer's whiteouts together look at each name once, however many they are.
    fn hide_all(&mut self, folder: NodeId) {
        if !self.opaque.insert(folder) {
            return;
        }
        let layer = self.layer;
        let names = self.directory_mut(folder);
        names.retain(|_, child| child.layer == layer);
        let below: Vec<NodeId> = names.values().map(|child| child.node).collect();
        for node in below {
            if matches!(self.node(node).kind, Kind::Directory(_)) {
                self.hide_all(node);
            }
        }
    }

    /// Removes all of lower layers that has a name or is below it.
    fn hide(&mut self, folder: NodeId, name: &[u8]) {
        let Some(child) = self.directory(folder).get(name).copied() else {
            return;
        };
        if child.layer != self.layer {
            self.directory_mut(folder).remove(name);
        } else if matches!(self.node(child.node).kind, Kind::Directory(_)) {
            self.hide_all(child.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Leaf, Meta};
    use super::*;
    use crate::limits::Limits;

    /// Each looking at all names would take ten thousand million looks.
    #[test]
    fn many_whiteouts_of_a_large_folder_look_at_its_names_once() {
        const MANY: usize = 100_000;
        let mut tree = Tree::new(&Limits::default());
        let put = |tree: &mut Tree, path: String| {
            tree.put(path.as_bytes(), Meta::DIRECTORY, Leaf::Fifo)
                .unwrap();
        };
        put(&mut tree, "d/lower".to_owned());
        tree.begin_layer();
        for number in 0..MANY {
            put(&mut tree, format!("d/e/{number}"));
        }
        for number in 0..MANY {
            let whiteout: &[u8] = match number % 4 {
                0 => b".wh.d",
                1 => b"d/.wh..wh..opq",
                2 => b"d/.wh.e",
                _ => b"d/e/.wh..wh..opq",
            };
            assert!(tree.white_out(whiteout).unwrap());
        }
        let folder = tree.walk(vec![b"d"], Parents::Find).unwrap().unwrap();
        assert_eq!(tree.directory(folder).len(), 1);
        let folder = tree.walk(vec![b"d", b"e"], Parents::Find).unwrap().unwrap();
        assert_eq!(tree.directory(folder).len(), MANY);
        // The next layer's whiteouts hide all of it.
        tree.begin_layer();
        assert!(tree.white_out(b"d/e/.wh..wh..opq").unwrap());
        assert!(tree.directory(folder).is_empty());
    }
}
