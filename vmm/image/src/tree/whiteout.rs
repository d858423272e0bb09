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

    /// Removes all of lower layers that is in a directory.
    fn hide_all(&mut self, folder: NodeId) {
        let names: Vec<_> = self.directory(folder).keys().cloned().collect();
        for name in names {
            self.hide(folder, &name);
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
