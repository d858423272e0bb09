//! Files added to an initramfs, as the archives have them.

use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::super::ALIGNMENT;
use super::super::archive::read_back::members;
use super::*;

/// Name, mode and content of a member.
type Added = (String, u32, String);

/// Files of the host, in a folder of their own.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, mode: u32, content: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The names, modes and contents in both archives, given FILE and PATH of each addition.
    fn added(&self, additions: &[(&str, &str)]) -> Result<[Vec<Added>; 2], String> {
        self.limited(additions, 1000)
    }

    fn limited(&self, additions: &[(&str, &str)], limit: u64) -> Result<[Vec<Added>; 2], String> {
        let additions: Vec<_> = additions
            .iter()
            .map(|(file, path)| Addition {
                file: self.0.path().join(file),
                path: (*path).into(),
            })
            .collect();
        let archives = added_archives(&additions, limit).map_err(|error| error.to_string())?;
        Ok([archives.before, archives.behind].map(|archive| {
            assert_eq!(archive.len() % ALIGNMENT, 0);
            let members = members(&archive).into_iter();
            members
                .map(|m| (m.name, m.mode, String::from_utf8(m.content).unwrap()))
                .collect()
        }))
    }
}

fn folder(name: &str, mode: u32) -> Added {
    (name.into(), 0o40000 | mode, String::new())
}

fn regular(name: &str, mode: u32, content: &str) -> Added {
    (name.into(), 0o100000 | mode, content.into())
}

#[test]
fn a_file_has_its_mode_and_its_parents() {
    let host = Host::new();
    host.file("prog", 0o4751, "x");
    let [before, behind] = host.added(&[("prog", "/opt//tools/run")]).unwrap();
    assert_eq!(before, [folder("opt", 0o755), folder("opt/tools", 0o755)]);
    assert_eq!(behind, [regular("opt/tools/run", 0o4751, "x")]);
    for path in ["/opt/", "/opt///"] {
        let [_, behind] = host.added(&[("prog", path)]).unwrap();
        assert_eq!(behind, [regular("opt/prog", 0o4751, "x")], "{path}");
    }
    let [before, behind] = host.added(&[("prog", "/")]).unwrap();
    assert_eq!(
        (before, behind),
        (vec![], vec![regular("prog", 0o4751, "x")])
    );
}

#[test]
fn a_folder_goes_with_all_that_is_in_it() {
    let host = Host::new();
    host.file("tree/a", 0o644, "1");
    host.file("tree/sub/b", 0o600, "2");
    symlink("../a", host.0.path().join("tree/sub/link")).unwrap();
    fs::set_permissions(
        host.0.path().join("tree/sub"),
        fs::Permissions::from_mode(0o1770),
    )
    .unwrap();
    fs::set_permissions(
        host.0.path().join("tree"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    let [before, behind] = host.added(&[("tree", "/srv/t/")]).unwrap();
    assert_eq!(
        before,
        [
            folder("srv", 0o755),
            folder("srv/t", 0o750),
            folder("srv/t/sub", 0o1770)
        ]
    );
    assert_eq!(
        behind,
        [
            regular("srv/t/a", 0o644, "1"),
            regular("srv/t/sub/b", 0o600, "2"),
            ("srv/t/sub/link".into(), 0o120777, "../a".into()),
        ]
    );
    let [before, behind] = host.added(&[("tree", "/")]).unwrap();
    assert_eq!(before, [folder("sub", 0o1770)]);
    assert_eq!(behind[0].0, "a");
}

#[test]
fn folders_below_what_may_be_a_link_come_behind() {
    let host = Host::new();
    host.file("f", 0o644, "");
    let [before, behind] = host
        .added(&[("f", "/usr/bin/d/f"), ("f", "/binary/f")])
        .unwrap();
    assert_eq!(
        before,
        [
            folder("binary", 0o755),
            folder("usr", 0o755),
            folder("usr/bin", 0o755)
        ]
    );
    assert_eq!(behind[1], folder("usr/bin/d", 0o755));
}

#[test]
fn several_may_share_folders_but_no_path() {
    let host = Host::new();
    host.file("f", 0o644, "");
    host.file("tree/g", 0o644, "");
    fs::set_permissions(
        host.0.path().join("tree"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    for additions in [
        [("f", "/d/f"), ("tree", "/d")],
        [("tree", "/d"), ("f", "/d/f")],
    ] {
        let [before, behind] = host.added(&additions).unwrap();
        assert_eq!(before, [folder("d", 0o700)], "the mode is the host's");
        assert_eq!(behind.len(), 2);
    }
    assert_eq!(
        host.added(&[("f", "/x"), ("f", "//x")]).unwrap_err(),
        "/x is added twice"
    );
    assert_eq!(
        host.added(&[("f", "/x"), ("f", "/x/y")]).unwrap_err(),
        "/x is added twice"
    );
    assert_eq!(
        host.added(&[("f", "/x/y"), ("f", "/x")]).unwrap_err(),
        "/x is added twice"
    );
}

#[test]
fn errors_name_the_file_or_the_path() {
    let host = Host::new();
    host.file("f", 0o644, "12345");
    for (file, path, named) in [
        ("absent", "/x", "/absent: No such file"),
        ("f", "x", "x: not an absolute path"),
        ("f", "/a/../b", "/a/../b: "),
        ("f", "/./b", "/./b: "),
        ("f", "/TRAILER!!!", "ends an archive"),
        ("f", "/dev/x", "/dev/x: what is added there is hidden"),
        ("f", "/proc", "/proc: what is added there is hidden"),
        ("f", &format!("/{}", "x".repeat(256)), "255 bytes"),
        ("f", &"/x".repeat(2100), "4095 bytes"),
    ] {
        let error = host.added(&[(file, path)]).unwrap_err();
        assert!(error.contains(named), "{named}: {error}");
    }
    let error = host.limited(&[("f", "/x")], 4).unwrap_err();
    assert!(
        error.contains("/f: ") && error.contains("4 bytes"),
        "{error}"
    );
    host.limited(&[("f", "/x")], 5).unwrap();
    std::os::unix::net::UnixListener::bind(host.0.path().join("socket")).unwrap();
    let error = host.added(&[("", "/d")]).unwrap_err();
    assert!(error.contains("/socket: a socket"), "{error}");
}

#[test]
fn nothing_added_is_no_archive() {
    assert_eq!(added_archives(&[], 0).unwrap(), AddedArchives::default());
}

#[test]
fn the_last_colon_before_a_slash_separates() {
    for (text, file, path) in [
        ("a:/b", "a", "/b"),
        ("a:b:/c:d", "a:b", "/c:d"),
        ("a:/b:/c", "a:/b", "/c"),
        ("/x/y:/", "/x/y", "/"),
    ] {
        let expected = Addition {
            file: file.into(),
            path: path.into(),
        };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in ["", ":", "a", "a:", "a:b", ":/b", "/a/b"] {
        assert_eq!(text.parse::<Addition>(), Err(AdditionParseError), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parted_without_loss_or_refused(text in "[a/:. ]{0,12}|.*") {
        if let Ok(addition) = text.parse::<Addition>() {
            prop_assert_eq!(format!("{}:{}", addition.file.display(), addition.path), text);
            prop_assert!(addition.path.starts_with('/'));
        }
    }

    #[test]
    fn any_path_is_a_member_with_its_parents_or_refused(path in "/[a./]{0,10}|/.{0,20}|.*") {
        let host = Host::new();
        host.file("f", 0o644, "");
        if let Ok([before, behind]) = host.added(&[("f", &path)]) {
            let names: Vec<_> = before.iter().chain(&behind).map(|(name, ..)| name.as_str()).collect();
            for (at, name) in names.iter().enumerate() {
                prop_assert!(!name.starts_with('/') && !name.split('/').any(|part| ["", ".", ".."].contains(&part)));
                if let Some((parent, _)) = name.rsplit_once('/') {
                    prop_assert!(names[..at].contains(&parent));
                }
            }
        }
    }
}
