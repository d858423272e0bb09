//! Layouts and archives of all kinds, and the choice among images.

use std::fs;

use oci_root::{Arch, Fault, ImageConfig, Limits};
use serde_json::json;

use crate::contents::{contents, names, text};
use crate::layer::Layer;
use crate::make::{Files, Packing, Place, Spec, fault_of};

const PACKINGS: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

fn spec() -> Spec {
    Spec::new([Layer::new().file("f", "1"), Layer::new().file("g", "2")])
}

fn other() -> Spec {
    Spec::new([Layer::new().file("other", "3")])
}

/// The names in the root of the image with a name.
fn opened(files: &Files, name: Option<&str>) -> Result<Vec<String>, Fault> {
    let place = Place::new();
    place.write_tar(files);
    let image = place.open_named(name, &Limits::default());
    image
        .map(|image| names(&contents(&image.squashfs)))
        .map_err(|error| error.fault)
}

#[test]
fn layouts_open_as_folders_and_archives() {
    for packing in PACKINGS {
        let files = Files::layout(&[spec().packed(packing)]);
        let (folder, archive) = (Place::new(), Place::new());
        folder.write_folder(&files);
        archive.write_tar(&files);
        for place in [folder, archive] {
            let image = place.open().unwrap();
            assert_eq!(names(&contents(&image.squashfs)), ["f", "g"], "{packing:?}");
            assert_eq!(fs::metadata(&image.squashfs).unwrap().len() % 4096, 0);
        }
    }
}

#[test]
fn saved_archives_open() {
    for packing in PACKINGS {
        let files = Files::saved(&[spec().packed(packing)]);
        assert_eq!(opened(&files, None).unwrap(), ["f", "g"], "{packing:?}");
    }
}

#[test]
fn compressed_archives_open() {
    let files = Files::layout(&[spec()]).tar();
    for packing in PACKINGS {
        let place = Place::new();
        fs::write(place.image(), packing.pack(&files)).unwrap();
        assert_eq!(
            names(&contents(&place.open().unwrap().squashfs)),
            ["f", "g"]
        );
        place.check(1);
    }
}

#[test]
fn saved_archives_of_other_tools_and_shared_layers_open() {
    let spec = spec();
    let mut files = Files::saved(std::slice::from_ref(&spec));
    let config = spec.configuration().to_string();
    let digest = crate::make::digest(config.as_bytes());
    files.0.clear();
    files.add(&*digest, config);
    files.add("one.tar", spec.layers[0].clone());
    files.add("two/real.tar", spec.layers[1].clone());
    let manifest =
        json!([{"Config": digest, "RepoTags": null, "Layers": ["one.tar", "three/layer.tar"]}]);
    files.add("manifest.json", manifest.to_string());
    let links = Layer::new()
        .symlink("three/layer.tar", "../two/link.tar")
        .link("two/link.tar", "two/real.tar")
        .finish();
    let place = Place::new();
    fs::write(
        place.image(),
        [&links[..links.len() - 1024], &files.tar()].concat(),
    )
    .unwrap();
    assert_eq!(
        names(&contents(&place.open().unwrap().squashfs)),
        ["f", "g"]
    );
}

#[test]
fn an_image_is_chosen_by_its_name() {
    let images = [
        spec().named("docker.io/library/one:latest"),
        other().named("example.org:5000/two:v2"),
    ];
    for files in [Files::layout(&images), Files::saved(&images)] {
        for name in [
            "docker.io/library/one:latest",
            "library/one:latest",
            "one:latest",
            "one",
            "latest",
        ] {
            assert_eq!(opened(&files, Some(name)).unwrap(), ["f", "g"], "{name}");
        }
        assert_eq!(opened(&files, Some("v2")).unwrap(), ["other"]);
        assert_eq!(
            opened(&files, Some("example.org:5000/two:v2")).unwrap(),
            ["other"]
        );
        let fault = opened(&files, None).unwrap_err().to_string();
        assert!(
            fault.contains("one:latest, example.org:5000/two:v2"),
            "{fault}"
        );
        let fault = opened(&files, Some("v3")).unwrap_err().to_string();
        assert!(
            fault.contains("named v3") && fault.contains("two:v2"),
            "{fault}"
        );
    }
}

#[test]
fn several_names_of_one_image_are_not_ambiguous() {
    let files = Files::layout(&[spec().named("a"), spec().named("b")]);
    assert_eq!(opened(&files, None).unwrap(), ["f", "g"]);
    assert_eq!(opened(&files, Some("b")).unwrap(), ["f", "g"]);
}

#[test]
fn an_image_is_chosen_by_its_platform() {
    for says_platform in [true, false] {
        let images = ["amd64", "arm64", "386"].map(|architecture| {
            let spec = if architecture == "386" {
                spec()
            } else {
                other()
            };
            Spec {
                says_platform,
                ..spec.for_architecture(architecture)
            }
        });
        assert_eq!(opened(&Files::layout(&images), None).unwrap(), ["f", "g"]);
        let fault = opened(&Files::layout(&images[..2]), None)
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains("linux/386") && fault.contains("linux/amd64, linux/arm64"),
            "{fault}"
        );
    }
    let images = [other().for_architecture("amd64"), spec()];
    for files in [Files::layout(&images), Files::saved(&images)] {
        let place = Place::new();
        place.write_tar(&files);
        for (architectures, expected) in [
            (&[Arch::Amd64][..], Arch::Amd64),
            (&[Arch::Amd64, Arch::i386], Arch::Amd64),
            (&[Arch::i386, Arch::Amd64], Arch::i386),
            (&[Arch::ARM, Arch::i386], Arch::i386),
        ] {
            let image = place.open_for(architectures, None, &Limits::default());
            assert_eq!(image.unwrap().architecture, expected);
        }
    }
    let fault = opened(&Files::saved(&images[..1]), None).unwrap_err();
    assert!(
        fault.to_string().contains("only for linux/amd64"),
        "{fault}"
    );
}

#[test]
fn indexes_in_indexes_and_documents_about_images_are_understood() {
    let mut files = Files::default();
    let ours = files.image(&Spec {
        says_platform: true,
        ..spec()
    });
    let amd64 = files.image(&Spec {
        says_platform: true,
        ..other().for_architecture("amd64")
    });
    let mut attestation = files.image(&other());
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"schemaVersion": 2, "manifests": [amd64, attestation, ours]}).to_string();
    let mut nested = files.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    nested["annotations"] = json!({"io.containerd.image.name": "docker.io/me/it:1"});
    let stray = files.blob("text/plain", b"hello");
    files.index(&[stray, nested]);
    assert_eq!(opened(&files, None).unwrap(), ["f", "g"]);
    assert_eq!(opened(&files, Some("me/it:1")).unwrap(), ["f", "g"]);
}

#[test]
fn artifacts_are_no_images() {
    let mut files = Files::default();
    let config = files.blob("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = files.manifest(&spec(), &config, &[]);
    files.index(&[manifest]);
    assert!(matches!(fault_of(&files), Fault::NotAnImage));
}

#[test]
fn the_configuration_is_handed_on() {
    let mut spec = spec();
    spec.config = json!({
        "User": "1000:games", "Env": ["PATH=/bin", "A=b=c", "BROKEN"], "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["true"], "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"}, "Volumes": {"/v": {}}, "Healthcheck": {"Test": ["NONE"]}, "Shell": ["/bin/sh"],
    });
    let place = Place::new();
    place.write_tar(&Files::layout(&[spec]));
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    let expected = ImageConfig {
        entrypoint: strings(&["/bin/sh", "-c"]),
        cmd: strings(&["true"]),
        env: strings(&["PATH=/bin", "A=b=c"]),
        working_dir: "/srv".into(),
        user: "1000:games".into(),
        stop_signal: Some("SIGQUIT".into()),
    };
    assert_eq!(place.open().unwrap().config, expected);
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    assert!(
        opened(&Files::layout(&[Spec::of_bytes(vec![])]), None)
            .unwrap()
            .is_empty()
    );
    assert!(
        opened(&Files::layout(&[Spec::of_bytes(vec![vec![]])]), None)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn later_members_of_an_archive_replace_earlier_ones() {
    let mut files = Files::layout(&[spec()]);
    files.0.insert(0, ("./index.json".into(), b"{".to_vec()));
    let place = Place::new();
    place.write_tar(&files);
    assert_eq!(text(&contents(&place.open().unwrap().squashfs), "g"), "2");
}
