//! The crates of the workspace: each library, program, example and integration test.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A crate of the workspace.
pub struct Target {
    /// The folder of its package and, unless it is the library or the program, its own.
    pub name: String,
    /// The file of its root module.
    pub file: PathBuf,
}

/// Returns the crates of all members of the workspace.
pub fn of_workspace() -> Vec<Target> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = fs::read_to_string(top.join("Cargo.toml")).unwrap();
    members(&manifest)
        .into_iter()
        .flat_map(|member| of_package(top, member))
        .collect()
}

/// Returns the folders that the workspace's manifest lists.
fn members(manifest: &str) -> Vec<&str> {
    let (_, list) = manifest.split_once("members = [").expect("members");
    let (list, _) = list.split_once(']').expect("the end of the list");
    // Every other part stands in quotation marks.
    list.split('"').skip(1).step_by(2).collect()
}

fn of_package(top: &Path, member: &str) -> Vec<Target> {
    let folder = top.join(member);
    let mut files: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"]
        .map(|file| folder.join(file))
        .into_iter()
        .filter(|file| file.exists())
        .collect();
    assert!(
        !files.is_empty(),
        "{member} has neither library nor program"
    );
    for more in ["src/bin", "examples", "tests"] {
        files.extend(roots(&folder.join(more)));
    }
    let name = |file: &Path| match file.strip_prefix(folder.join("src")) {
        Ok(file) if file.parent() == Some(Path::new("")) => member.to_owned(),
        _ => file.strip_prefix(top).unwrap().display().to_string(),
    };
    files
        .into_iter()
        .map(|file| Target {
            name: name(&file),
            file,
        })
        .collect()
}

/// Lists the root modules that Cargo finds in a folder: files, and `main.rs` in folders.
fn roots(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut roots: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| match path.is_dir() {
            true => path.join("main.rs"),
            false => path,
        })
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs") && path.exists())
        .collect();
    roots.sort();
    roots
}
