//! Layers upon layers.

use crate::contents::{names, text};
use crate::layer::{Layer, Meta};
use crate::make::{fault, root};

fn base() -> Layer {
    Layer::new()
        .folder("d/")
        .file("d/a", "a")
        .file("d/b", "b")
        .folder("d/sub")
        .file("d/sub/c", "c")
        .file("top", "1")
}

#[test]
fn a_whiteout_hides_a_file_or_a_folder() {
    let both = Layer::new().file("d/.wh.sub", "").file(".wh.top", "");
    assert_eq!(names(&root([base(), both])), ["d/", "d/a", "d/b"]);
}

#[test]
fn a_whiteout_of_nothing_hides_nothing() {
    let none = Layer::new()
        .file("d/.wh.x", "")
        .file("x/y/.wh.z", "")
        .file("x/.wh..wh..opq", "");
    assert_eq!(names(&root([base(), none])).len(), 6);
}

#[test]
fn an_opaque_folder_hides_what_is_in_it() {
    let opaque = Layer::new()
        .folder("d/")
        .file("d/.wh..wh..opq", "")
        .file("d/new", "");
    assert_eq!(names(&root([base(), opaque])), ["d/", "d/new", "top"]);
}

#[test]
fn whiteouts_hide_nothing_of_their_own_layer() {
    let late = Layer::new()
        .file("d/new", "")
        .file("d/sub/new", "")
        .file("d/.wh..wh..opq", "")
        .file("top", "2")
        .file(".wh.top", "");
    let contents = root([base(), late]);
    assert_eq!(
        names(&contents),
        ["d/", "d/new", "d/sub/", "d/sub/new", "top"]
    );
    assert_eq!(text(&contents, "top"), "2");
}

#[test]
fn a_name_that_was_hidden_can_come_back() {
    let hide = Layer::new().file(".wh.d", "");
    let again = Layer::new().file("d/e", "");
    assert_eq!(names(&root([base(), hide, again])), ["d/", "d/e", "top"]);
}

#[test]
fn aufs_files_are_ignored() {
    let aufs = Layer::new().folder(".wh..wh.plnk").file(".wh..wh.aufs", "");
    assert_eq!(names(&root([base(), aufs])).len(), 6);
}

#[test]
fn whiteouts_of_the_folder_itself_are_refused() {
    for name in [".wh.", ".wh..", "d/.wh..."] {
        let fault = fault([base(), Layer::new().file(name, "")]);
        assert!(fault.contains("names nothing"), "{fault}");
    }
}

#[test]
fn a_folder_stays_and_gets_a_new_mode() {
    let mode = Layer::new().entry(tar::EntryType::Directory, "d", "", Meta::mode(0o1700), "");
    let contents = root([base(), mode]);
    assert_eq!(contents[std::path::Path::new("d")].0.permissions, 0o1700);
    assert_eq!(names(&contents).len(), 6);
}

#[test]
fn files_and_folders_replace_each_other() {
    let swap = Layer::new()
        .file("d", "file")
        .folder("top")
        .file("top/x", "");
    assert_eq!(names(&root([base(), swap])), ["d", "top/", "top/x"]);
}

#[test]
fn replacing_one_name_of_a_hard_link_leaves_the_other() {
    let link = Layer::new().link("other", "d/a");
    let change = Layer::new().file("d/a", "new").file(".wh.top", "");
    let contents = root([base(), link, change]);
    assert_eq!(text(&contents, "other"), "a");
    assert_eq!(text(&contents, "d/a"), "new");
}

#[test]
fn entries_below_a_link_to_a_folder_come_into_the_folder() {
    let usr = Layer::new()
        .folder("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib");
    let below = Layer::new()
        .file("lib/x", "x")
        .file("abs/y", "y")
        .file("usr/.wh.none", "");
    let hide = Layer::new().file("lib/.wh.x", "");
    let contents = root([usr, below, hide]);
    assert_eq!(
        names(&contents),
        ["abs", "lib", "usr/", "usr/lib/", "usr/lib/y"]
    );
}

#[test]
fn a_folder_replaces_a_link() {
    let link = Layer::new().folder("a").symlink("b", "a");
    let folder = Layer::new().folder("b").file("b/x", "");
    assert_eq!(names(&root([link, folder])), ["a/", "b/", "b/x"]);
}
