//! An OCI image layout of a small root around busybox.
//!
//! Two layers, of which the upper has a whiteout, an opaque folder and files of its own, and a configuration that says all that a
//! command's surroundings are made of.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::Digest as _;
use tar::EntryType;

/// The script that is the image's entry point. It tells what it was started with and what there is, and ends with status 7.
const ENTRY: &str = r#"#!/bin/sh
echo "arguments: $# <$1> <$2>"
echo "greeting: $GREETING"
echo "folder: $(pwd)"
echo "user: $(id -u):$(id -g)"
cat /etc/upper /etc/both /opt/new
ls /opt /srv/data
ls /etc/hidden 2> /dev/null || echo hidden
exit 7
"#;

/// What the script prints if it is started as the image says.
pub const PRINTED: &str = "\
arguments: 2 <one> <two words>
greeting: hello from the image
folder: /srv/data
user: 1000:100
upper
of the upper layer
new
/opt:
new

/srv/data:
file
link
hidden
";

/// What is in the root: for each name its type, permissions and owner, and the content of small files and links.
pub const LISTING: &str = "\
d 755 0:0 bin
f 4755 0:0 bin/busybox
l 777 0:0 bin/cat -> busybox
f 755 0:0 bin/entry
l 777 0:0 bin/id -> busybox
l 777 0:0 bin/ls -> busybox
l 777 0:0 bin/sh -> busybox
l 777 0:0 bin/sort -> busybox
l 777 0:0 bin/stat -> busybox
d 755 0:0 dev
c 666 0:0 dev/null 259
d 755 0:0 etc
f 644 0:0 etc/both \"of the upper layer\\n\"
f 644 0:0 etc/group \"users:x:100:\\n\"
f 644 0:0 etc/passwd \"root:x:0:0::/:/bin/sh\\nguest:x:1000:100::/srv/data:/bin/sh\\n\"
f 644 0:0 etc/upper \"upper\\n\"
d 755 0:0 opt
f 644 0:0 opt/new \"new\\n\"
d 755 0:0 srv
d 750 1000:100 srv/data
f 644 1000:100 srv/data/file \"linked\\n\"
f 644 1000:100 srv/data/link \"linked\\n\"
";

/// The layer in the making.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(&mut self, kind: EntryType, name: &str, mode: u32, owner: (u64, u64), content: &[u8]) {
        let mut header = header(kind, mode, owner);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content).unwrap();
    }

    fn folder(&mut self, name: &str, mode: u32, owner: (u64, u64)) {
        self.add(EntryType::Directory, name, mode, owner, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.add(EntryType::Regular, name, mode, (0, 0), content);
    }

    fn link(&mut self, kind: EntryType, name: &str, target: &str) {
        let mut header = header(kind, 0o777, (0, 0));
        header.set_size(0);
        self.0.append_link(&mut header, name, target).unwrap();
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: EntryType, mode: u32, (uid, gid): (u64, u64)) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(1_000_000_000);
    header
}

fn lower(busybox: &[u8]) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.folder("bin", 0o755, (0, 0));
    layer.file("bin/busybox", 0o4755, busybox);
    for applet in ["cat", "id", "ls", "sh", "sort", "stat"] {
        layer.link(EntryType::Symlink, &format!("bin/{applet}"), "busybox");
    }
    layer.folder("dev", 0o755, (0, 0));
    let mut null = header(EntryType::Char, 0o666, (0, 0));
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    null.set_size(0);
    layer.0.append_data(&mut null, "dev/null", &[][..]).unwrap();
    layer.folder("etc", 0o755, (0, 0));
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/bin/sh\nguest:x:1000:100::/srv/data:/bin/sh\n",
    );
    layer.file("etc/group", 0o644, b"users:x:100:\n");
    layer.file("etc/both", 0o644, b"of the lower layer\n");
    layer.file("etc/hidden", 0o644, b"hidden\n");
    layer.folder("opt/old/deep", 0o755, (0, 0));
    layer.file("opt/old/deep/file", 0o644, b"hidden\n");
    layer.folder("srv/data", 0o750, (1000, 100));
    layer.add(
        EntryType::Regular,
        "srv/data/file",
        0o644,
        (1000, 100),
        b"linked\n",
    );
    layer.link(EntryType::Link, "srv/data/link", "srv/data/file");
    layer.finish()
}

fn upper() -> Vec<u8> {
    let mut layer = Layer::new();
    layer.file("bin/entry", 0o755, ENTRY.as_bytes());
    layer.file("etc/.wh.hidden", 0o644, b"");
    layer.file("etc/both", 0o644, b"of the upper layer\n");
    layer.file("etc/upper", 0o644, b"upper\n");
    layer.folder("opt", 0o755, (0, 0));
    layer.file("opt/.wh..wh..opq", 0o644, b"");
    layer.file("opt/new", 0o644, b"new\n");
    layer.finish()
}

/// Writes the layout into `folder`, for an architecture by its name in images.
pub fn write(folder: &Path, architecture: &str, busybox: &[u8]) {
    let layers = [lower(busybox), upper()];
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", hex(layer)))
        .collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/entry"],
            "Cmd": ["one", "two words"],
            "Env": ["PATH=/bin", "GREETING=hello from the image"],
            "User": "guest:users",
            "WorkingDir": "/srv/data",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        fs::write(folder.join("blobs/sha256").join(hex(bytes)), bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", hex(bytes)),
            "size": bytes.len(),
        })
    };
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let layers = [
        blob("layer.v1.tar", &layers[0]),
        blob("layer.v1.tar+gzip", &gzip(&layers[1])),
    ];
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest: Value = blob("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "small"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion": "1.0.0"}"#,
    )
    .unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}
