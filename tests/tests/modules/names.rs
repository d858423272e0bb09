//! The names in source code: imports, and paths in items.

use syn::{
    Attribute, ImplItemFn, Item, ItemUse, Macro, Path, UseTree,
    buffer::{Cursor, TokenBuffer},
    visit::{self, Visit},
};

/// A leaf of a `use` item.
#[derive(Debug)]
pub struct Import {
    /// The path that is imported, or from which everything is.
    pub path: Vec<String>,
    /// The name of the import here; none for everything (`*`).
    pub name: Option<String>,
}

/// Lists the imports of a `use` item. A path with a leading `::` names another crate, and is left out.
pub fn imports(item: &ItemUse) -> Vec<Import> {
    let mut all = Vec::new();
    if item.leading_colon.is_none() {
        flatten(&item.tree, &[], &mut all);
    }
    all
}

fn flatten(tree: &UseTree, prefix: &[String], all: &mut Vec<Import>) {
    let below = |name: String| match name.as_str() {
        "self" if !prefix.is_empty() => prefix.to_vec(),
        _ => [prefix, &[name]].concat(),
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &below(path.ident.to_string()), all),
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| flatten(tree, prefix, all)),
        UseTree::Name(name) => {
            let path = below(name.ident.to_string());
            let name = path.last().cloned();
            all.push(Import { path, name });
        }
        UseTree::Rename(rename) => all.push(Import {
            path: below(rename.ident.to_string()),
            name: Some(rename.rename.to_string()),
        }),
        UseTree::Glob(_) => all.push(Import {
            path: prefix.to_vec(),
            name: None,
        }),
    }
}

/// Returns whether an item with these attributes exists in tests only.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// Returns the attributes of an item.
pub fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the name that an item defines, if it defines one.
pub fn item_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Lists the paths in an item.
pub fn references(item: &Item) -> Vec<Vec<String>> {
    let mut references = References::default();
    references.visit_item(item);
    references.0
}

/// A visitor that collects paths.
#[derive(Default)]
struct References(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for References {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item_attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.0
            .extend(imports(item).into_iter().map(|import| import.path));
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter();
            self.0.push(segments.map(|s| s.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast Macro) {
        visit::visit_macro(self, mac);
        let tokens = TokenBuffer::new2(mac.tokens.clone());
        self.tokens(tokens.begin());
    }
}

impl References {
    /// Collects what looks like a path of at least two names in a macro's tokens, which are not parsed.
    fn tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        while !cursor.eof() {
            if let Some((name, rest)) = cursor.ident() {
                if colons != 2 {
                    self.end(&mut path);
                }
                path.push(name.to_string());
                (colons, cursor) = (0, rest);
            } else if let Some((punct, rest)) = cursor.punct() {
                match punct.as_char() {
                    ':' if colons < 2 => colons += 1,
                    _ => {
                        self.end(&mut path);
                        colons = 0;
                    }
                }
                cursor = rest;
            } else {
                self.end(&mut path);
                colons = 0;
                cursor = match cursor.any_group() {
                    Some((inside, _, _, rest)) => {
                        self.tokens(inside);
                        rest
                    }
                    None => cursor.token_tree().expect("a token").1,
                };
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.0.push(path);
        }
    }
}
