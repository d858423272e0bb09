//! Kernel modules out of a package, in the order in which they can be inserted.
//!
//! Debian's packages come without modules.dep, which depmod makes where they are installed; each module says itself what it
//! needs.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use liblzma::read::XzDecoder;

/// Files of modules, compressed or not, with their paths.
pub(crate) type ModuleFiles = Vec<(PathBuf, Vec<u8>)>;

/// The name of the module in the file at `path`, if it is one.
pub(super) fn module_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".ko")
        .or_else(|| name.strip_suffix(".ko.xz"))
}

/// Those modules among `files` that have the names `wanted`, and all that they need, each after those that it needs.
pub(crate) fn closure(files: ModuleFiles, wanted: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut known: HashMap<String, (PathBuf, Vec<u8>)> = HashMap::new();
    for (path, bytes) in files {
        if let Some(name) = module_name(&path) {
            known.insert(canonical(name), (path, bytes));
        }
    }
    let mut found = Vec::new();
    for module in wanted {
        add_module(&canonical(module), &mut known, &mut found);
    }
    found
}

/// The kernel takes hyphens and underscores in the names of modules for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Moves a module from `known` to `found`, after those that it needs.
fn add_module(
    name: &str,
    known: &mut HashMap<String, (PathBuf, Vec<u8>)>,
    found: &mut Vec<(String, Vec<u8>)>,
) {
    let Some((path, bytes)) = known.remove(name) else {
        return;
    };
    let mut module = Vec::new();
    let is_compressed = path.extension().is_some_and(|extension| extension == "xz");
    if is_compressed && XzDecoder::new(&*bytes).read_to_end(&mut module).is_err() {
        return;
    }
    let module = if is_compressed { module } else { bytes };
    for needed in needs(&module) {
        add_module(&canonical(&needed), known, found);
    }
    found.push((name.to_owned(), module));
}

/// The modules that a module needs, as its section .modinfo says.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else {
        return Vec::new();
    };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> (PathBuf, Vec<u8>) {
        let content = format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0");
        (format!("lib/{name}.ko").into(), content.into_bytes())
    }

    #[test]
    fn a_module_comes_after_those_that_it_needs() {
        let files = vec![
            module("zram", "zsmalloc,lz4-compress"),
            module("other", ""),
            module("zsmalloc", "lz4_compress,missing"),
            module("lz4_compress", "zram"),
        ];
        let names: Vec<_> = closure(files, &["lzo-rle", "zram"])
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["lz4_compress", "zsmalloc", "zram"]);
    }

    #[test]
    fn names_of_modules_are_those_of_their_files() {
        assert_eq!(module_name(Path::new("a/lzo-rle.ko")), Some("lzo-rle"));
        assert_eq!(module_name(Path::new("zram.ko.xz")), Some("zram"));
        assert_eq!(module_name(Path::new("a/modules.order")), None);
    }
}
