//! Cycles among the modules of each folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    resolve::resolve,
    tree::{ModulePath, Tree},
};

/// The references between the modules of a folder, by their two ends.
type Edges = BTreeMap<(String, String), BTreeSet<Reference>>;

/// A module and a path in it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    /// Whether the path begins with an imported name: its import, a reference too, tells more.
    by_import: bool,
    text: String,
}

/// The folders of a crate.
pub struct Folders(BTreeMap<ModulePath, Edges>);

/// A set of modules of one folder, each of which names every other, directly or by way of others of them.
pub struct Circle<'a> {
    folder: &'a [String],
    members: BTreeSet<&'a str>,
    edges: &'a Edges,
}

/// Most names shown for an edge.
const SHOWN: usize = 2;

impl Folders {
    /// Sorts the crate's references by folder. A reference belongs to the one folder where its two ends part.
    pub fn of(tree: &Tree) -> Self {
        let mut folders: BTreeMap<ModulePath, Edges> = BTreeMap::new();
        for (from, module) in tree.modules() {
            for reference in &module.references {
                let Some(to) = resolve(tree, from, reference) else {
                    continue;
                };
                let depth = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                // An end that is the folder itself names what it holds, or is named by it.
                if let (Some(source), Some(target)) = (from.get(depth), to.get(depth)) {
                    let name = Reference {
                        by_import: !matches!(reference[0].as_str(), "crate" | "self" | "super"),
                        text: format!("{} names {}", from.join("::"), reference.join("::")),
                    };
                    let folder = folders.entry(from[..depth].to_vec()).or_default();
                    let edge = (source.clone(), target.clone());
                    folder.entry(edge).or_default().insert(name);
                }
            }
        }
        Self(folders)
    }

    /// Returns the number of pairs of modules of which the first names the second.
    pub fn edges(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Finds all circles. A module is in one at most.
    pub fn circles(&self) -> Vec<Circle<'_>> {
        let mut circles = Vec::new();
        for (folder, edges) in &self.0 {
            let mut left: BTreeSet<&str> = edges.keys().map(|(from, _)| from.as_str()).collect();
            while let Some(module) = left.pop_first() {
                let reached = reached(edges, module);
                let members = reached
                    .iter()
                    .copied()
                    .filter(|other| self::reached(edges, other).contains(module))
                    .collect::<BTreeSet<_>>();
                if members.len() > 1 {
                    left.retain(|other| !members.contains(other));
                    circles.push(Circle {
                        folder,
                        members,
                        edges,
                    });
                }
            }
        }
        circles
    }
}

/// Returns the modules that `module` names, directly or by way of others.
fn reached<'a>(edges: &'a Edges, module: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![module];
    while let Some(module) = open.pop() {
        for (from, to) in edges.keys() {
            if from == module && reached.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    reached
}

impl fmt::Display for Circle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = match self.folder {
            [] => "the top folder".to_owned(),
            names => names.join("::"),
        };
        let members: Vec<&str> = self.members.iter().copied().collect();
        write!(f, "in {folder}: {}", members.join(", "))?;
        for ((from, to), names) in self.edges {
            if self.members.contains(from.as_str()) && self.members.contains(to.as_str()) {
                let shown: Vec<&str> = names
                    .iter()
                    .take(SHOWN)
                    .map(|name| name.text.as_str())
                    .collect();
                write!(f, "\n    {from} → {to}: {}", shown.join("; "))?;
            }
        }
        Ok(())
    }
}
