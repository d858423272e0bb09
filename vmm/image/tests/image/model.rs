//! Random layers, applied by a model that is too simple to be wrong: a list of all paths.

use std::collections::BTreeMap;

use tar::EntryType;

use crate::contents::{Node, contents};
use crate::layer::{Layer, Meta};
use crate::make::{Files, Place, Spec};

/// What a layer does to a path.
#[derive(Debug, Clone)]
enum Change {
    File(u8),
    Folder,
    Symlink,
    Link(String),
    Whiteout,
    Opaque,
}

type Model = BTreeMap<String, Node>;

/// A path of up to three names.
fn path(rng: &mut fastrand::Rng) -> String {
    let names: Vec<&str> = (0..rng.usize(1..4))
        .map(|_| rng.choice(["a", "b", "c"]).unwrap_or("a"))
        .collect();
    names.join("/")
}

fn changes(rng: &mut fastrand::Rng) -> Vec<(String, Change)> {
    let mut change = || {
        let change = match rng.u8(..20) {
            0..6 => Change::File(rng.u8(..)),
            6..11 => Change::Folder,
            11..13 => Change::Symlink,
            13 => Change::Link(path(rng)),
            14..18 => Change::Whiteout,
            _ => Change::Opaque,
        };
        // Links are not on the way to anything, which the model does not know.
        let name = match change {
            Change::Symlink => format!("{}/link", path(rng)),
            _ => path(rng),
        };
        (name, change)
    };
    let mut changes: Vec<_> = (0..6).map(|_| change()).collect();
    changes.sort_by_key(|(_, change)| !matches!(change, Change::Whiteout | Change::Opaque));
    changes
}

fn encode(changes: &[(String, Change)]) -> Layer {
    changes.iter().fold(Layer::new(), |layer, (name, change)| {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        match change {
            Change::File(byte) => layer.file(name, vec![*byte; usize::from(*byte)]),
            Change::Folder => layer.entry(EntryType::Directory, name, "", Meta::mode(0o700), ""),
            Change::Symlink => layer.symlink(name, "nowhere"),
            Change::Link(target) => layer.link(name, target),
            Change::Whiteout => layer.file(format!("{folder}/.wh.{last}"), ""),
            Change::Opaque => layer.file(format!("{name}/.wh..wh..opq"), ""),
        }
    })
}

/// Applies a layer whose whiteouts come first. Returns `None` if an entry is impossible.
fn apply(model: &mut Model, changes: &[(String, Change)]) -> Option<()> {
    for (name, change) in changes {
        let below = format!("{name}/");
        let node = match change {
            Change::Whiteout => {
                model.retain(|path, _| path != name && !path.starts_with(&below));
                continue;
            }
            Change::Opaque => {
                model.retain(|path, _| !path.starts_with(&below));
                continue;
            }
            Change::File(byte) => Node::File(vec![*byte; usize::from(*byte)]),
            Change::Folder => Node::Folder,
            Change::Symlink => Node::Symlink("nowhere".into()),
            Change::Link(target) => model
                .get(target)
                .filter(|node| **node != Node::Folder)?
                .clone(),
        };
        for (slash, _) in name.match_indices('/') {
            let folder = model
                .entry(name[..slash].to_owned())
                .or_insert(Node::Folder);
            (*folder == Node::Folder).then_some(())?;
        }
        if node != Node::Folder || model.get(name) != Some(&Node::Folder) {
            model.retain(|path, _| !path.starts_with(&below));
        }
        model.insert(name.clone(), node);
    }
    Some(())
}

#[test]
fn random_layers_make_the_root_that_the_model_makes() {
    let mut rng = fastrand::Rng::with_seed(0x0c1);
    let mut possible = 0;
    for _ in 0..400 {
        let mut model = Model::new();
        let mut layers = Vec::new();
        let mut outcome = Some(());
        for _ in 0..rng.usize(1..5) {
            let changes = changes(&mut rng);
            outcome = outcome.and_then(|()| apply(&mut model, &changes));
            layers.push(changes);
        }
        let place = Place::new();
        place.write_tar(&Files::layout(&[Spec::new(
            layers.iter().map(|layer| encode(layer)),
        )]));
        let image = place.open();
        assert_eq!(image.is_ok(), outcome.is_some(), "{layers:?}\n{image:?}");
        let Ok(image) = image else { continue };
        possible += 1;
        let mut own = contents(&image.squashfs);
        own.retain(|path, _| path.as_os_str() != "");
        let own: Model = own
            .into_iter()
            .map(|(path, (_, node))| (path.to_str().unwrap().to_owned(), node))
            .collect();
        assert_eq!(own, model, "{layers:?}");
    }
    assert!(possible >= 40, "only {possible} images were possible");
}
