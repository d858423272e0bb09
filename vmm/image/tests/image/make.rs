//! Layouts and archives of images.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_root::{Arch, Fault, Image, ImageError, Limits, Reference, open};
use serde_json::{Value, json};
use sha2::Digest;

use crate::contents::{Contents, contents};
use crate::layer::Layer;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An image to be written in one form or another.
#[derive(Clone)]
pub struct Spec {
    pub architecture: String,
    pub name: Option<String>,
    /// Uncompressed layers.
    pub layers: Vec<Vec<u8>>,
    pub packing: Packing,
    pub config: Value,
    /// Whether the index says the platform.
    pub says_platform: bool,
}

impl Spec {
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self::of_bytes(layers.into_iter().map(Layer::finish).collect())
    }

    pub fn of_bytes(layers: Vec<Vec<u8>>) -> Self {
        Self {
            architecture: "386".into(),
            name: None,
            layers,
            packing: Packing::Plain,
            config: json!({}),
            says_platform: false,
        }
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    pub fn for_architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    pub fn configuration(&self) -> Value {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        })
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a layout or archive, in order.
#[derive(Clone, Default)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

impl Files {
    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((name.into(), bytes.into()));
    }

    /// Adds a blob and returns its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.add(format!("blobs/sha256/{}", hex(bytes)), bytes);
        json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
    }

    /// Adds an image's blobs and returns the descriptor of its manifest.
    pub fn image(&mut self, spec: &Spec) -> Value {
        let config = spec.configuration().to_string();
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        );
        let layers: Vec<Value> = spec
            .layers
            .iter()
            .map(|layer| self.blob(spec.packing.media_type(), &spec.packing.pack(layer)))
            .collect();
        self.manifest(spec, &config, &layers)
    }

    pub fn manifest(&mut self, spec: &Spec, config: &Value, layers: &[Value]) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut descriptor = self.blob(media_type, manifest.to_string().as_bytes());
        if let Some(name) = &spec.name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        if spec.says_platform {
            descriptor["platform"] = json!({"os": "linux", "architecture": spec.architecture});
        }
        descriptor
    }

    pub fn index(&mut self, descriptors: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": descriptors});
        self.add("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
        self.add("index.json", index.to_string());
    }

    /// An OCI image layout.
    pub fn layout(specs: &[Spec]) -> Self {
        let mut files = Self::default();
        let descriptors: Vec<Value> = specs.iter().map(|spec| files.image(spec)).collect();
        files.index(&descriptors);
        files
    }

    /// An archive as `docker save` wrote it until version 24.
    pub fn saved(specs: &[Spec]) -> Self {
        let mut files = Self::default();
        let mut images = Vec::new();
        for spec in specs {
            let config = spec.configuration().to_string();
            let config_name = format!("{}.json", hex(config.as_bytes()));
            files.add(&*config_name, config);
            let mut layers = Vec::new();
            for layer in &spec.layers {
                let name = format!("{}/layer.tar", hex(layer));
                files.add(&*name, spec.packing.pack(layer));
                layers.push(name);
            }
            images.push(json!({"Config": config_name, "RepoTags": spec.name.as_ref().map(|name| [name]), "Layers": layers}));
        }
        files.add("manifest.json", Value::from(images).to_string());
        files
    }

    pub fn get_mut(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.0.iter_mut().find(|(own, _)| own == name);
        &mut found.unwrap_or_else(|| panic!("no {name}")).1
    }

    pub fn tar(&self) -> Vec<u8> {
        let layer = Layer::new();
        let files = self.0.iter();
        files
            .fold(layer, |layer, (name, bytes)| layer.file(name, bytes))
            .finish()
    }
}

/// A folder for an image and a cache.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// A folder in memory if the host has one, where waiting for the disk takes no time.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        Self {
            folder: folder.unwrap(),
        }
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub fn write_tar(&self, files: &Files) {
        fs::write(self.image(), files.tar()).unwrap();
    }

    pub fn write_folder(&self, files: &Files) {
        for (name, bytes) in &files.0 {
            let path = self.image().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub fn open(&self) -> Result<Image, ImageError> {
        self.open_named(None, &Limits::default())
    }

    pub fn open_named(&self, name: Option<&str>, limits: &Limits) -> Result<Image, ImageError> {
        self.open_for(&[Arch::i386], name, limits)
    }

    pub fn open_for(
        &self,
        architectures: &[Arch],
        name: Option<&str>,
        limits: &Limits,
    ) -> Result<Image, ImageError> {
        let reference = Reference {
            path: self.image(),
            name: name.map(str::to_owned),
        };
        open(
            &reference,
            architectures,
            &self.cache(),
            limits,
            &mut |_| {},
        )
    }

    /// Checks that there is nothing but the image and the cache with `images` images.
    pub fn check(&self, images: usize) {
        let names = |path: PathBuf| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let mut own = names(self.folder.path().into());
        own.sort();
        assert!(
            matches!(
                own.iter().map(String::as_str).collect::<Vec<_>>()[..],
                ["cache", "image"] | ["image"]
            ),
            "{own:?}"
        );
        let mut cache = names(self.cache());
        // An archive that is compressed as a whole may have been remembered.
        cache.retain(|name| !name.ends_with(".memo"));
        assert_eq!(cache.len(), images, "{cache:?}");
        assert!(cache.iter().all(|name| name.ends_with(".squashfs")));
    }
}

/// The root that an image with these layers has.
pub fn root(layers: impl IntoIterator<Item = Layer>) -> Contents {
    let place = Place::new();
    place.write_tar(&Files::layout(&[Spec::new(layers)]));
    let image = place.open().unwrap_or_else(|error| panic!("{error}"));
    place.check(1);
    contents(&image.squashfs)
}

/// The fault of an image with these layers, as users read it.
pub fn fault(layers: impl IntoIterator<Item = Layer>) -> String {
    fault_of(&Files::layout(&[Spec::new(layers)])).to_string()
}

/// The fault of an image.
pub fn fault_of(files: &Files) -> Fault {
    let place = Place::new();
    place.write_tar(files);
    let fault = place.open().expect_err("the image is refused").fault;
    place.check(0);
    fault
}
