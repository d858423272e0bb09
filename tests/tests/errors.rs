//! Errors say what is wrong once. A program prints an error with its causes; so a message either tells the cause or leaves it to
//! `Error::source`, never both.
//!
//! This reads the source of every crate of the workspace, and looks at each variant that [`thiserror`] makes a message for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Fields, Item, Meta, Variant,
    visit::{self, Visit},
};

/// The variants whose message tells a cause that is a source as well.
#[derive(Default)]
struct Doubled(Vec<String>);

impl<'ast> Visit<'ast> for Doubled {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Enum(item) => self.0.extend(
                item.variants
                    .iter()
                    .filter(|v| is_doubled(v))
                    .map(|variant| format!("{}::{}", item.ident, variant.ident)),
            ),
            Item::Struct(item) if says_source(&item.attrs, &item.fields) => {
                self.0.push(item.ident.to_string());
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

fn is_doubled(variant: &Variant) -> bool {
    says_source(&variant.attrs, &variant.fields)
}

/// Whether the message of `#[error(…)]` holds a field that is the source.
fn says_source(attrs: &[Attribute], fields: &Fields) -> bool {
    let Some(message) = attrs.iter().find_map(message) else {
        return false;
    };
    fields.iter().enumerate().any(|(number, field)| {
        let name = field
            .ident
            .as_ref()
            .map_or(number.to_string(), ToString::to_string);
        let is_source = name == "source"
            || field
                .attrs
                .iter()
                .any(|a| a.path().is_ident("from") || a.path().is_ident("source"));
        is_source
            && [format!("{{{name}}}"), format!("{{{name}:")]
                .iter()
                .any(|hole| message.contains(hole))
    })
}

/// The text of `#[error(…)]`.
fn message(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::List(list) if list.path.is_ident("error") => Some(list.tokens.to_string()),
        _ => None,
    }
}

fn doubled(source: &str) -> Vec<String> {
    let mut found = Doubled::default();
    found.visit_file(&syn::parse_file(source).unwrap());
    found.0
}

/// Calls `visit` with every Rust file below `folder`.
fn each_file(folder: &Path, visit: &mut impl FnMut(PathBuf)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            each_file(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(path);
        }
    }
}

#[test]
fn no_error_tells_its_cause_twice() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut files = 0;
    each_file(top, &mut |path| {
        files += 1;
        for name in doubled(&fs::read_to_string(&path).unwrap()) {
            found.push(format!("{}: {name}", path.display()));
        }
    });
    assert!(files > 100, "{files} files");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_doubled_cause_is_found() {
    let source = r##"
        enum E {
            #[error("a: {0}")] A(#[from] X),
            #[error("b: {source}")] B { source: X },
            #[error("c: {cause}")] C { cause: X },
            #[error("d")] D(#[source] X),
            #[error(transparent)] E(#[from] X),
            #[error("f: {0}")] F(X),
        }
        #[error("g: {0:?}")] struct G(#[source] X);
    "##;
    assert_eq!(doubled(source), ["E::A", "E::B", "G"]);
}
