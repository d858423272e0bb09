//! Resolution of paths: finds the module that a path names, or that defines the item it names.

use std::collections::HashSet;

use crate::tree::{ModulePath, Tree};

/// The meaning of a name.
enum Found {
    Module(ModulePath),
    /// Something that this module defines.
    In(ModulePath),
}

/// Finds the module that a path in module `from` names, or that defines the item it names. Returns none for other crates' names.
///
/// A name that a module is not known to define counts as its own: a macro may have made it.
pub fn resolve(tree: &Tree, from: &[String], path: &[String]) -> Option<ModulePath> {
    let mut resolver = Resolver {
        tree,
        seen: HashSet::new(),
    };
    match resolver.path(from, path)? {
        Found::Module(module) | Found::In(module) => Some(module),
    }
}

/// A resolution under way.
struct Resolver<'a> {
    tree: &'a Tree,
    /// Imports being followed: `use irq;` names another crate, not itself.
    seen: HashSet<(ModulePath, String)>,
}

impl Resolver<'_> {
    fn path(&mut self, from: &[String], path: &[String]) -> Option<Found> {
        let (start, rest) = self.start(from, path)?;
        let mut found = start;
        for name in rest {
            let Found::Module(module) = found else {
                // A variant, or an associated function.
                break;
            };
            found = match self.name(&module, name) {
                Some(found) => found,
                None => Found::In(module),
            };
        }
        Some(found)
    }

    /// Resolves the first names, and returns them with the rest.
    fn start<'p>(&mut self, from: &[String], path: &'p [String]) -> Option<(Found, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = from.to_vec();
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => drop(module.pop()?),
            name => return Some((self.name(from, name)?, rest)),
        }
        while let [name, further @ ..] = rest
            && name == "super"
        {
            module.pop()?;
            rest = further;
        }
        Some((Found::Module(module), rest))
    }

    /// Looks a name up in a module: its own modules and items, then what it imports.
    fn name(&mut self, module: &[String], name: &str) -> Option<Found> {
        let child = [module, &[name.to_owned()]].concat();
        if self.tree.module(&child).is_some() {
            return Some(Found::Module(child));
        }
        let here = self.tree.module(module)?;
        if here.items.contains(name) {
            return Some(Found::In(module.to_vec()));
        }
        if !self.seen.insert((module.to_vec(), name.to_owned())) {
            return None;
        }
        let found = self.import(module, name);
        self.seen.remove(&(module.to_vec(), name.to_owned()));
        found
    }

    fn import(&mut self, module: &[String], name: &str) -> Option<Found> {
        let imports = &self.tree.module(module)?.imports;
        let named = imports
            .iter()
            .filter(|import| import.name.as_deref() == Some(name));
        for import in named {
            if let Some(found) = self.path(module, &import.path) {
                return Some(found);
            }
        }
        for import in imports.iter().filter(|import| import.name.is_none()) {
            if let Some(Found::Module(other)) = self.path(module, &import.path)
                && let Some(found) = self.name(&other, name)
            {
                return Some(found);
            }
        }
        None
    }
}
