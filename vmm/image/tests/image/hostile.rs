//! Images that are damaged, or made to do harm.

use std::fs;
use std::path::Path;

use oci_root::{Fault, Limits};
use serde_json::json;
use tar::EntryType;

use crate::contents::{Node, names, text};
use crate::layer::{Layer, Meta};
use crate::make::{Files, Packing, Place, Spec, fault, fault_of, root};

#[test]
fn every_changed_blob_is_named() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let good = Files::layout(&[Spec::new([Layer::new().file("f", "content")]).packed(packing)]);
        let blobs = good.0.iter().filter(|(name, _)| name.starts_with("blobs/"));
        let names: Vec<String> = blobs.map(|(name, _)| name.clone()).collect();
        assert_eq!(names.len(), 3);
        for name in names {
            for at in [0, 1, 10, 20] {
                let mut bad = good.clone();
                bad.get_mut(&name)[at] ^= 1;
                let fault = fault_of(&bad);
                assert!(
                    matches!(&fault, Fault::Digest { blob, .. } if *blob == name),
                    "{fault}"
                );
                let mut bad = good.clone();
                bad.get_mut(&name).truncate(at);
                let fault = fault_of(&bad);
                assert!(
                    matches!(&fault, Fault::Size { blob, .. } if *blob == name),
                    "{fault}"
                );
            }
            let mut bad = good.clone();
            bad.get_mut(&name).push(0);
            assert!(fault_of(&bad).to_string().starts_with(&name));
            let mut bad = good.clone();
            bad.0.retain(|(own, _)| *own != name);
            let fault = fault_of(&bad);
            assert!(
                matches!(&fault, Fault::Missing(blob) if *blob == name),
                "{fault}"
            );
        }
    }
}

#[test]
fn changed_files_of_saved_archives_are_named() {
    let good = Files::saved(&[Spec::new([Layer::new().file("f", "content")])]);
    for index in 0..2 {
        let mut bad = good.clone();
        let (name, bytes) = &mut bad.0[index];
        let at = bytes.iter().position(|&byte| byte == b'f').unwrap();
        bytes[at] ^= 0x10;
        let name = name.clone();
        let fault = fault_of(&bad).to_string();
        assert!(
            fault.starts_with(&name) && fault.contains("damaged"),
            "{fault}"
        );
    }
}

#[test]
fn names_that_lead_up_are_refused() {
    for name in ["..", "../x", "a/../../x", "/..", "a/.."] {
        let fault = fault([Layer::new().file(name, "")]);
        assert!(fault.contains("`..`"), "{name}: {fault}");
    }
    let fault = fault([Layer::new().file("a", "").link("b", "../a")]);
    assert!(fault.contains("`..`"), "{fault}");
}

#[test]
fn links_lead_nowhere_but_into_the_root() {
    let lower = Layer::new()
        .symlink("up", "../../../../etc")
        .symlink("absolute", "/etc")
        .symlink("self", ".")
        .symlink("dangling", "made/for/it");
    let upper = Layer::new()
        .file("up/a", "1")
        .file("absolute/b", "2")
        .file("self/self/self/c", "3")
        .file("dangling/d", "4")
        .file("absolute/.wh.none", "");
    let contents = root([lower, upper]);
    assert_eq!(text(&contents, "etc/a"), "1");
    assert_eq!(text(&contents, "etc/b"), "2");
    assert_eq!(text(&contents, "c"), "3");
    assert_eq!(text(&contents, "made/for/it/d"), "4");
}

#[test]
fn links_in_circles_are_refused() {
    let circle = Layer::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    assert!(fault([circle]).contains("symbolic links"));
    // Each link doubles the way.
    let mut layer = Layer::new().folder("d");
    for number in 1..60 {
        let target = format!("l{}/../l{}/..", number - 1, number - 1);
        layer = layer.symlink(format!("l{number}"), target);
    }
    assert!(fault([layer.file("l59/x", "")]).contains("symbolic links"));
}

#[test]
fn odd_places_are_refused() {
    // The zero byte would end a name that fits into the header.
    let long_with_zero = [&b"n/".repeat(60)[..], b"\0x"].concat();
    let cases = [
        (Layer::new().file("a", "").file("a/b", ""), "below \"a\""),
        (Layer::new().file(".", ""), "root"),
        (Layer::new().symlink("/", "x"), "root"),
        (Layer::new().link("b", "nothing"), "\"nothing\""),
        (Layer::new().folder("a").link("b", "a"), "hard link"),
        (Layer::new().link("b", "/"), "hard link"),
        (Layer::new().file("n".repeat(256), ""), "too long"),
        (Layer::new().file("n/".repeat(2100), ""), "too long"),
        (
            Layer::new().file("n/".repeat(300) + "x", ""),
            "directories deep",
        ),
        (Layer::new().file(long_with_zero, ""), "zero byte"),
    ];
    for (layer, expected) in cases {
        let fault = fault([layer]);
        assert!(fault.contains(expected), "{expected}: {fault}");
    }
}

#[test]
fn deep_folders_are_no_trouble() {
    let deep = "d/".repeat(250) + "x";
    let contents = root([Layer::new().file(&deep, "here")]);
    assert_eq!(text(&contents, &deep), "here");
    // Links do not make them deeper.
    let links = Layer::new()
        .folder("d/".repeat(200))
        .symlink("l", "d/".repeat(100))
        .file(format!("l/{}{}x", "d/".repeat(100), "e/".repeat(100)), "");
    assert!(fault([links]).contains("directories deep"));
}

#[test]
fn many_deep_files_are_refused() {
    let deep = "d/".repeat(250);
    let layer = (0..9000).fold(Layer::new(), |layer, number| {
        layer.file(format!("{deep}{number}"), "")
    });
    let fault = fault([layer]);
    assert!(fault.contains("deep in folders"), "{fault}");
}

#[test]
fn the_last_of_equal_names_counts() {
    let layer = Layer::new()
        .file("a", "1")
        .folder("a")
        .file("a/b", "")
        .file("a", "2")
        .file("./a", "3");
    let contents = root([layer]);
    assert_eq!(names(&contents), ["a"]);
    assert_eq!(text(&contents, "a"), "3");
}

#[test]
fn a_name_of_many_megabytes_is_refused() {
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        let layer = Layer::new().raw(header, &vec![b'a'; 8 << 20]).file("x", "");
        let fault = fault([layer]);
        assert!(fault.contains("bytes of headers"), "{fault}");
    }
}

#[test]
fn sizes_beyond_the_archive_are_refused() {
    for size in [4096, 1 << 33, u64::MAX >> 1, u64::MAX] {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[0] = b'x';
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        let layer = || Layer::new().append(header.as_bytes()).append(&[0; 512]);
        fault([layer()]);
        let place = Place::new();
        fs::write(place.image(), layer().finish()).unwrap();
        let fault = place.open().unwrap_err().to_string();
        assert!(fault.contains("cannot read the archive"), "{fault}");
    }
}

#[test]
fn bombs_are_refused() {
    let limits = Limits {
        bytes: 1 << 20,
        entries: 1000,
        names: 200_000,
    };
    let open = |spec: Spec| {
        let place = Place::new();
        place.write_tar(&Files::layout(&[spec]));
        let fault = place.open_named(None, &limits).unwrap_err().to_string();
        place.check(0);
        fault
    };
    let zeros = Layer::new().file("zeros", vec![0; 2 << 20]);
    let fault = open(Spec::new([zeros]).packed(Packing::Gzip));
    assert!(fault.contains("more than 1048576 bytes"), "{fault}");
    // Nothing but the end of an archive, at length.
    let fault = open(Spec::of_bytes(vec![vec![0; 2 << 20]]).packed(Packing::Zstd));
    assert!(fault.contains("more than 1048576 bytes"), "{fault}");
    // Many layers together.
    let layers = (0..4).map(|number| Layer::new().file(format!("{number}"), vec![1; 300_000]));
    let fault = open(Spec::new(layers));
    assert!(fault.contains("more than 1048576 bytes"), "{fault}");
    // Many names of one file.
    let links = (0..10).map(|number| format!("l{number}"));
    let layer = Layer::new().file("f", vec![1; 300_000]);
    let fault = open(Spec::new([
        links.fold(layer, |layer, name| layer.link(name, "f"))
    ]));
    assert!(fault.contains("root's files"), "{fault}");
    // Many entries, some of which leave nothing behind.
    let same = (0..1001).fold(Layer::new(), |layer, _| layer.file("same", ""));
    assert!(open(Spec::new([same])).contains("1000 entries"));
    let implied = (0..10).fold(Layer::new(), |layer, number| {
        layer.file(format!("{number}/{}", "d/".repeat(150)), "")
    });
    assert!(open(Spec::new([implied])).contains("1000 entries"));
    // Few entries with long names: in the way, in links on it, and in folders that no entry names.
    let name = "n".repeat(200);
    let long = (0..600).fold(Layer::new().folder(&name), |layer, number| {
        layer.file(format!("{name}/{name}{number}"), "")
    });
    let linked = Layer::new()
        .folder("d")
        .symlink("l", "d/../".repeat(50) + "d");
    let linked = (0..900).fold(linked, |layer, number| {
        layer.file(format!("l/{number}"), "")
    });
    let implied = (0..4).fold(Layer::new(), |layer, number| {
        layer.file(format!("{number}/{}x", "d/".repeat(230)), "")
    });
    for layer in [long, linked, implied] {
        let fault = open(Spec::new([Layer::new(), layer]));
        assert!(fault.contains("more than 200000 bytes of names"), "{fault}");
        assert!(fault.contains("layer blobs/sha256/"), "{fault}");
    }
    // An archive that is compressed as a whole.
    let place = Place::new();
    fs::write(place.image(), Packing::Gzip.pack(&vec![0; 2 << 20])).unwrap();
    let fault = place.open_named(None, &limits).unwrap_err().to_string();
    assert!(fault.contains("more than 1048576 bytes"), "{fault}");
}

#[test]
fn an_archive_with_many_long_names_is_refused() {
    // Each is of a member of its own, which is kept.
    let name = "n/".repeat(2000);
    let layer = (0..5000).fold(Layer::new(), |layer, number| {
        layer.file(format!("{name}{number}"), "")
    });
    let place = Place::new();
    fs::write(place.image(), layer.finish()).unwrap();
    let fault = place.open().unwrap_err().to_string();
    assert!(fault.contains("bytes of names in the archive"), "{fault}");
}

#[test]
fn many_owners_are_refused() {
    let owner = |uid| Meta {
        uid,
        ..Meta::default()
    };
    let layer = (0..5000).fold(Layer::new(), |layer, uid| {
        layer.entry(EntryType::Regular, format!("{uid}"), "", owner(uid), "")
    });
    assert!(fault([layer]).contains("owners"));
}

#[test]
fn documents_are_checked() {
    let spec = Spec::new([Layer::new().file("f", "")]);
    let good = Files::layout(std::slice::from_ref(&spec));
    let with_index = |index: &str| {
        let mut files = good.clone();
        *files.get_mut("index.json") = index.as_bytes().to_vec();
        fault_of(&files).to_string()
    };
    assert!(with_index("{").starts_with("index.json: "));
    assert!(with_index(&"[".repeat(100_000)).starts_with("index.json: "));
    assert!(with_index(&" ".repeat(5 << 20)).starts_with("index.json: "));
    let escape = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:../../../etc/passwd", "size": 1});
    let index = json!({"schemaVersion": 2, "manifests": [escape]});
    assert!(with_index(&index.to_string()).starts_with("index.json: "));
    // An index that has itself is as impossible as a digest that is known before its bytes; many others are not.
    let mut files = Files::default();
    let mut descriptor = files.image(&spec);
    for _ in 0..10 {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor, descriptor]}).to_string();
        descriptor = files.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    }
    files.index(&[descriptor]);
    assert!(fault_of(&files).to_string().contains("indexes"));
    let mut lacks_layer = spec.clone();
    lacks_layer.config = json!({"User": "a\u{0}"});
    assert!(
        fault_of(&Files::layout(&[lacks_layer]))
            .to_string()
            .contains("config.User")
    );
}

#[test]
fn saved_archives_lead_nowhere() {
    let secret = "[{\"Config\": \"../secret\", \"Layers\": []}]";
    let place = Place::new();
    fs::create_dir(place.image()).unwrap();
    fs::write(place.image().join("manifest.json"), secret).unwrap();
    fs::write(place.folder.path().join("secret"), "{}").unwrap();
    assert!(matches!(place.open().unwrap_err().fault, Fault::Missing(_)));
    let links = Layer::new()
        .symlink("manifest.json", "manifest.json")
        .finish();
    fs::remove_dir_all(place.image()).unwrap();
    fs::write(place.image(), links).unwrap();
    assert!(matches!(place.open().unwrap_err().fault, Fault::NotAnImage));
}

#[test]
fn what_is_no_image_is_refused() {
    for bytes in [
        &b""[..],
        b"x",
        &[0; 1024],
        b"#!/bin/sh\n",
        &[0x1f, 0x8b],
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
    ] {
        let place = Place::new();
        fs::write(place.image(), bytes).unwrap();
        place.open().unwrap_err();
        place.check(0);
    }
    let place = Place::new();
    fs::create_dir(place.image()).unwrap();
    assert!(matches!(place.open().unwrap_err().fault, Fault::NotAnImage));
    let place = Place::new();
    let error = place.open().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(place.image().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_fifo_is_not_waited_for() {
    let place = Place::new();
    let status = std::process::Command::new("mkfifo")
        .arg(place.image())
        .status();
    assert!(status.unwrap().success());
    assert!(matches!(place.open().unwrap_err().fault, Fault::NotAnImage));
}

#[test]
fn a_whiteout_device_is_only_a_device() {
    let contents = root([Layer::new().device(EntryType::Char, "x", 0, 0)]);
    assert_eq!(contents[Path::new("x")].1, Node::CharDevice(0));
}
