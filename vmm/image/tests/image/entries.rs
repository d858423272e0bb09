//! Entries of all kinds.

use std::path::Path;

use backhand::NodeHeader;
use tar::EntryType;

use crate::contents::{Contents, Node, names, text};
use crate::layer::{Layer, Meta};
use crate::make::{fault, root};

fn node<'a>(contents: &'a Contents, name: &str) -> &'a (NodeHeader, Node) {
    &contents[Path::new(name)]
}

#[test]
fn owners_modes_and_times_are_kept() {
    let meta = Meta {
        mode: 0o106_755,
        uid: 1000,
        gid: 0xffff_fffe,
        mtime: 0x7fff_ffff,
    };
    let layer = Layer::new()
        .entry(
            EntryType::Directory,
            "./",
            "",
            Meta {
                mode: 0o1777,
                uid: 7,
                gid: 8,
                mtime: 9,
            },
            "",
        )
        .entry(EntryType::Regular, "f", "", meta, "x");
    let contents = root([layer]);
    assert_eq!(
        node(&contents, "f").0,
        NodeHeader::new(0o6755, 1000, 0xffff_fffe, 0x7fff_ffff)
    );
    let top = node(&contents, "").0;
    assert_eq!((top.permissions, top.uid, top.gid), (0o1777, 7, 8));
}

#[test]
fn devices_links_and_fifos_are_kept() {
    let layer = Layer::new()
        .device(EntryType::Char, "null", 1, 3)
        .device(EntryType::Block, "big", 0xabc, 0x12345)
        .entry(EntryType::Fifo, "fifo", "", Meta::default(), "")
        .symlink("link", "../../..//etc/passwd")
        .symlink("long", "y".repeat(255))
        .symlink(b"\xff\xfe", b"\xfd");
    let contents = root([layer]);
    assert_eq!(node(&contents, "null").1, Node::CharDevice(0x103));
    // new_encode_dev: minor's low byte, 12 bits of major, minor's high 12 bits.
    assert_eq!(node(&contents, "big").1, Node::BlockDevice(0x123a_bc45));
    assert_eq!(node(&contents, "fifo").1, Node::Fifo);
    assert_eq!(
        node(&contents, "link").1,
        Node::Symlink("../../..//etc/passwd".into())
    );
    assert_eq!(
        node(&contents, "long").1,
        Node::Symlink("y".repeat(255).into())
    );
    let odd = contents.keys().next_back().unwrap();
    assert_eq!(odd.as_os_str().as_encoded_bytes(), b"\xff\xfe");
}

#[test]
fn names_come_in_all_spellings() {
    let long = "n".repeat(200) + "/" + &"m".repeat(255);
    let layer = Layer::new()
        .file("/absolute", "1")
        .file("./a//./b", "2")
        .file(&long, "3")
        .pax(&[("path", "paxed/ü".as_bytes())])
        .file("ignored", "4")
        .file("old-folder/", "")
        .folder("new-folder");
    let contents = root([layer]);
    assert_eq!(text(&contents, "absolute"), "1");
    assert_eq!(text(&contents, "a/b"), "2");
    assert_eq!(text(&contents, &long), "3");
    assert!(names(&contents).contains(&"old-folder/".to_owned()));
    assert_eq!(node(&contents, "a").0, NodeHeader::new(0o755, 0, 0, 0));
}

#[test]
fn extended_headers_are_obeyed() {
    let records: [(&str, &[u8]); 5] = [
        ("path", b"p/q"),
        ("mtime", b"1234567890.75"),
        ("uid", b"3000000000"),
        ("gid", b"7"),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ];
    let link: [(&str, &[u8]); 1] = [("linkpath", b"p/target")];
    let layer = Layer::new()
        .pax(&records)
        .file("x", "1")
        .pax(&link)
        .symlink("l", "y");
    let contents = root([layer]);
    assert_eq!(
        node(&contents, "p/q").0,
        NodeHeader::new(0o644, 3_000_000_000, 7, 1_234_567_890)
    );
    assert_eq!(node(&contents, "l").1, Node::Symlink("p/target".into()));
}

#[test]
fn times_out_of_range_are_the_nearest() {
    let early = Meta {
        mtime: u64::MAX,
        ..Meta::default()
    };
    let late = Meta {
        mtime: 1 << 40,
        ..Meta::default()
    };
    let layer = Layer::new()
        .entry(EntryType::Regular, "early", "", early, "")
        .entry(EntryType::Regular, "late", "", late, "")
        .pax(&[("mtime", b"-1.5")])
        .file("pax", "");
    let contents = root([layer]);
    assert_eq!(node(&contents, "early").0.mtime, 0);
    assert_eq!(node(&contents, "late").0.mtime, u32::MAX);
    assert_eq!(node(&contents, "pax").0.mtime, 0);
}

#[test]
fn hard_links_have_the_same_content() {
    let layer = Layer::new()
        .file("a", "same")
        .link("b", "/a")
        .link("c", "./b")
        .symlink("s", "a")
        .link("t", "s");
    let contents = root([layer]);
    assert_eq!(text(&contents, "b"), "same");
    assert_eq!(text(&contents, "c"), "same");
    assert_eq!(node(&contents, "t").1, Node::Symlink("a".into()));
}

/// 300 KiB, which is more than two blocks, in which no block equals another.
fn large(seed: u8) -> Vec<u8> {
    (0..300 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

#[test]
fn large_files_that_begin_alike_are_told_apart() {
    let mut other = large(0);
    *other.last_mut().unwrap() ^= 1;
    let mut longer = large(0);
    longer.push(0);
    let layer = Layer::new()
        .file("a", large(0))
        .file("b", &other)
        .file("c", &longer)
        .file("d", large(0))
        .file("empty", "")
        .file("zeros", vec![0; 1 << 20])
        .file("block", vec![5; 128 * 1024]);
    let contents = root([layer]);
    assert!(node(&contents, "a").1 == Node::File(large(0)));
    assert!(node(&contents, "b").1 == Node::File(other));
    assert!(node(&contents, "c").1 == Node::File(longer));
    assert!(node(&contents, "d").1 == Node::File(large(0)));
    assert!(node(&contents, "empty").1 == Node::File(vec![]));
    assert!(node(&contents, "zeros").1 == Node::File(vec![0; 1 << 20]));
    assert!(node(&contents, "block").1 == Node::File(vec![5; 128 * 1024]));
}

#[test]
fn a_folder_may_have_many_names() {
    let mut layer = Layer::new();
    let mut expected = Vec::new();
    for number in 0..5000 {
        let name = format!("many/{number:04}-{}", "x".repeat(number % 50));
        layer = layer.file(&name, number.to_string());
        expected.push(name);
    }
    let contents = root([layer]);
    let all = names(&contents);
    assert_eq!(all[0], "many/");
    assert_eq!(all[1..], expected);
    for name in &expected {
        let number: u32 = name[5..9].parse().unwrap();
        assert_eq!(text(&contents, name), number.to_string());
    }
}

/// Numbers of inodes in one header of a folder's listing differ by no more than 32,767.
#[test]
fn folders_may_have_distant_neighbors() {
    let layer = (0..40_000).fold(Layer::new(), |layer, number| {
        layer.file(format!("many/{number:05}"), "")
    });
    let layer = layer.file("a", "1").file("y", "2").file("z/z", "3");
    let contents = root([layer]);
    assert_eq!(contents.len(), 40_006);
    for (name, content) in [("a", "1"), ("y", "2"), ("z/z", "3"), ("many/39999", "")] {
        assert_eq!(text(&contents, name), content);
    }
}

/// A file of 1 MiB of which GNU tar stores the 3 bytes in the middle.
fn gnu_sparse() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..6].copy_from_slice(b"sparse");
    let octal = |field: &mut [u8], value: u32| {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes())
    };
    octal(&mut gnu.sparse[0].offset, 0x8_0000);
    octal(&mut gnu.sparse[0].numbytes, 3);
    octal(&mut gnu.sparse[1].offset, 0x10_0000);
    octal(&mut gnu.sparse[1].numbytes, 0);
    octal(&mut gnu.realsize, 0x10_0000);
    header
}

#[test]
fn sparse_files_of_gnu_tar_are_filled() {
    let contents = root([Layer::new().raw(gnu_sparse(), b"abc").file("after", "x")]);
    let mut expected = vec![0; 0x10_0000];
    expected[0x8_0000..0x8_0003].copy_from_slice(b"abc");
    assert!(node(&contents, "sparse").1 == Node::File(expected));
    assert_eq!(text(&contents, "after"), "x");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let sparse: [(&str, &[u8]); 1] = [("GNU.sparse.major", b"1")];
    let owner = Meta {
        uid: 1 << 32,
        ..Meta::default()
    };
    let cases = [
        (Layer::new().pax(&sparse).file("x", ""), "pax format"),
        (
            Layer::new().entry(EntryType::new(b'M'), "x", "", Meta::default(), ""),
            "type 'M'",
        ),
        (
            Layer::new().device(EntryType::Char, "x", 1 << 12, 0),
            "4096:0",
        ),
        (
            Layer::new().entry(EntryType::Regular, "x", "", owner, ""),
            "4294967296",
        ),
        (Layer::new().symlink("x", ""), "link to nothing"),
        (Layer::new().symlink("x", "y".repeat(256)), "more than 255"),
    ];
    for (layer, expected) in cases {
        let fault = fault([layer]);
        assert!(
            fault.contains("entry \"x\": ") && fault.contains(expected),
            "{fault}"
        );
    }
}
