//! The contents of squashfs images, read back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use backhand::{FilesystemReader, InnerNode, NodeHeader};

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Folder,
    File(Vec<u8>),
    Symlink(PathBuf),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
}

/// All names of an image without the leading slash; the root's is empty.
pub type Contents = BTreeMap<PathBuf, (NodeHeader, Node)>;

/// Reads an image.
pub fn contents(image: &Path) -> Contents {
    let file = BufReader::new(File::open(image).unwrap());
    let image = FilesystemReader::from_reader(file).unwrap();
    let nodes = image.files().map(|node| {
        let inner = match &node.inner {
            InnerNode::Dir(_) => Node::Folder,
            InnerNode::File(file) => {
                let mut bytes = Vec::new();
                image.file(file).reader().read_to_end(&mut bytes).unwrap();
                Node::File(bytes)
            }
            InnerNode::Symlink(link) => Node::Symlink(link.link.clone()),
            InnerNode::CharacterDevice(device) => Node::CharDevice(device.device_number),
            InnerNode::BlockDevice(device) => Node::BlockDevice(device.device_number),
            InnerNode::NamedPipe => Node::Fifo,
            InnerNode::Socket => panic!("{}: a socket", node.fullpath.display()),
        };
        let name = node.fullpath.strip_prefix("/").unwrap().to_owned();
        (name, (node.header, inner))
    });
    nodes.collect()
}

/// The names, with `/` after those of folders, without the root.
pub fn names(contents: &Contents) -> Vec<String> {
    let names = contents.iter().filter(|(name, _)| name.as_os_str() != "");
    names
        .map(|(name, (_, node))| match node {
            Node::Folder => format!("{}/", name.display()),
            _ => name.display().to_string(),
        })
        .collect()
}

/// The content of a file.
pub fn text(contents: &Contents, name: &str) -> String {
    match &contents[Path::new(name)].1 {
        Node::File(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}
