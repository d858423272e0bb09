//! A crate's modules.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Item};

use crate::names::{Import, imports, is_for_tests, item_attributes, item_name, references};

/// The names that lead from the crate's root, which has none, to a module.
pub type ModulePath = Vec<String>;

/// The modules of a crate.
#[derive(Default)]
pub struct Tree {
    modules: BTreeMap<ModulePath, Module>,
}

/// The definitions and references of a module.
#[derive(Default)]
pub struct Module {
    /// Names of functions, types and the like that are defined here.
    pub items: HashSet<String>,
    /// The imports, public or not.
    pub imports: Vec<Import>,
    /// Every path in the module, those of imports included.
    pub references: Vec<Vec<String>>,
}

impl Tree {
    /// Reads the crate with this root module and the files that belong to it.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let folder = root.parent().unwrap();
        tree.add_file(Vec::new(), root, folder);
        tree
    }

    /// Parses a crate of one file.
    pub fn parse(source: &str) -> Self {
        let mut tree = Self::default();
        let items = syn::parse_file(source).unwrap().items;
        tree.add(Vec::new(), items, Path::new("no folder"));
        tree
    }

    /// Returns all modules, the root included.
    pub fn modules(&self) -> impl Iterator<Item = (&ModulePath, &Module)> {
        self.modules.iter()
    }

    /// Returns the module at `path`.
    pub fn module(&self, path: &[String]) -> Option<&Module> {
        self.modules.get(path)
    }

    fn add_file(&mut self, path: ModulePath, file: &Path, folder: &Path) {
        let source = fs::read_to_string(file).unwrap();
        let parsed =
            syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add(path, parsed.items, folder);
    }

    /// Adds the module of that path, which has these items, and all below it. The root's files lie in `folder`.
    fn add(&mut self, path: ModulePath, items: Vec<Item>, folder: &Path) {
        let mut module = Module::default();
        for item in items {
            if is_for_tests(item_attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    if name == "tests" {
                        continue;
                    }
                    assert!(
                        !has_path(&child.attrs),
                        "mod {name}: #[path] is not followed"
                    );
                    let path = [&path[..], &[name]].concat();
                    match child.content {
                        Some((_, items)) => self.add(path, items, folder),
                        None => self.add_file(path.clone(), &file_of(&path, folder), folder),
                    }
                }
                item => {
                    module.items.extend(item_name(&item));
                    if let Item::Use(item) = &item {
                        module.imports.extend(imports(item));
                    }
                    module.references.extend(references(&item));
                }
            }
        }
        self.modules.insert(path, module);
    }
}

/// Finds the file of a module that its parent declares.
fn file_of(path: &[String], folder: &Path) -> PathBuf {
    let place: PathBuf = folder.join(path.iter().collect::<PathBuf>());
    let files = [place.with_extension("rs"), place.join("mod.rs")];
    let file = files.iter().find(|file| file.exists());
    file.unwrap_or_else(|| panic!("mod {}: no file", path.join("::")))
        .clone()
}

fn has_path(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attr| attr.path().is_ident("path"))
}
