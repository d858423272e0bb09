//! Modules form no circles: in each folder of each crate of the workspace, no two modules name each other, directly or by way of
//! others. A module is taken with everything below it.
//!
//! [`tree`] reads a crate, [`names`] finds what each module names, [`resolve`] finds the module that defines it, [`circles`]
//! looks for cycles in each folder. Modules named `tests` and items behind `#[cfg(test)]` do not count.

mod circles;
mod names;
mod resolve;
mod targets;
mod tree;

use circles::Folders;
use tests::report::report;
use tree::Tree;

#[test]
fn modules_form_no_circles() {
    let mut found = String::new();
    for target in targets::of_workspace() {
        let tree = Tree::read(&target.file);
        let folders = Folders::of(&tree);
        let (modules, edges) = (tree.modules().count(), folders.edges());
        report(&format!(
            "{}: {modules} modules, {edges} edges",
            target.name
        ));
        for circle in folders.circles() {
            found.push_str(&format!("\n{}: {circle}", target.name));
        }
    }
    assert!(found.is_empty(), "modules that form circles:{found}");
}

/// Returns the circles among the modules of `source`, as they are printed.
fn circles_of(source: &str) -> Vec<String> {
    let tree = Tree::parse(source);
    let folders = Folders::of(&tree);
    folders.circles().iter().map(ToString::to_string).collect()
}

#[test]
fn a_tree_is_accepted() {
    let source = "
        mod a { pub struct A; }
        mod b { use super::a::A; pub fn b(_: A) {} mod inner { use super::b; } }
        mod c { use crate::{a::A, b::b}; use std::io; }
        pub use a::A;
        fn root() { c::c(); }
    ";
    assert_eq!(circles_of(source), [""; 0]);
}

#[test]
fn two_modules_that_name_each_other_are_a_circle() {
    let source = "
        mod a { use super::b::B; pub struct A(B); }
        mod b { pub struct B; impl B { fn a(&self) -> Option<crate::a::A> { None } } }
        mod c { use crate::{a::A, b::B}; }
    ";
    let [circle] = &circles_of(source)[..] else {
        panic!("{:?}", circles_of(source));
    };
    let lines: Vec<&str> = circle.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "in the top folder: a, b",
            "a → b: a names super::b::B; a names B",
            "b → a: b names crate::a::A",
        ]
    );
}

#[test]
fn three_modules_are_a_circle_by_what_is_below_them() {
    let source = "
        mod top {
            mod a { mod inner { fn f() { super::super::b::f(); } } }
            mod b { pub fn f() { assert!(matches!(crate::top::c::X, None)); } }
            mod c { pub mod deep { use crate::top::a; } }
        }
        mod other { use crate::top; }
    ";
    let [circle] = &circles_of(source)[..] else {
        panic!("{:?}", circles_of(source));
    };
    let lines: Vec<&str> = circle.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "in top: a, b, c",
            "a → b: top::a::inner names super::super::b::f",
            "b → c: top::b names crate::top::c::X",
            "c → a: top::c::deep names crate::top::a",
        ]
    );
}

#[test]
fn a_name_counts_as_the_module_that_defines_it() {
    for source in [
        // Exported again by the parent, by name, by another name, and by all names.
        "mod p { mod a { use super::B; fn f() {} } mod b { use super::a::f; pub struct B; } pub use b::B; }",
        "mod p { mod a { fn f(_: super::C) {} } mod b { use super::a::f; pub struct B; } pub use b::B as C; }",
        "mod p { mod a { use crate::p::B; fn f() {} } mod b { use super::a::f; pub struct B; } pub use b::*; }",
        // By way of a glob import and of a module that was imported.
        "mod p { mod a { use super::*; fn f(_: B) {} } mod b { use super::a::f; pub struct B; } use b::B; }",
        "mod a { use super::q; fn f() { q::r::f(); } } mod q { pub mod r { use crate::a::f; pub fn f() {} } }",
        // By way of two parents.
        "mod a { use super::B; } mod p { pub mod b { use crate::a; pub struct B; } pub use b::B; } pub use p::B;",
    ] {
        assert_eq!(circles_of(source).len(), 1, "{source}");
    }
}

#[test]
fn tests_and_other_crates_do_not_count() {
    for source in [
        "mod a { pub struct A; #[cfg(test)] mod tests { use crate::b::B; } } mod b { use super::a::A; pub struct B; }",
        "mod a { pub struct A; mod tests { use crate::b::B; } } mod b { use super::a::A; pub struct B; }",
        "mod a { pub struct A; #[cfg(test)] use super::b::B; } mod b { use super::a::A; pub struct B; }",
        "mod a { use b::B; pub struct A; } mod b { use super::a::A; } pub use {b, c};",
        "mod a { use ::crate_b::b::B; pub struct A; } mod b { use super::a::A; }",
    ] {
        assert_eq!(circles_of(source), [""; 0], "{source}");
    }
}
