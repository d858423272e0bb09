//! Turns an image of a container into a squashfs image that a guest mounts as its root.
//!
//! [`open`] takes an OCI image layout (a folder or a tar archive of one) or an archive of `docker save`, of the old kind or the
//! new, and answers with a squashfs file in the cache and the image's configuration. It needs no privileges: owners, devices and
//! setuid bits go from the layers into the squashfs image and never touch the host's file system.
//!
//! ```text
//!   Reference ──▶ source ──▶ select ──▶ config
//!                 (blobs)   (manifest)     │ diff IDs ──▶ key of the cache ──▶ there? done
//!                                          ▼
//!                             layer ──▶ tree, spool ──▶ squashfs ──▶ cache
//!                        (tar entries)  (names, contents)
//! ```
//!
//! * [`reference`](mod@reference): `PATH` or `PATH:NAME`, as users write it.
//! * `source`: the files of a layout or archive, by name; `blob`: a range of bytes in one of the host's files; `digest`.
//! * `select`: which of the images is meant; `document`: the JSON documents, read and verified.
//! * [`config`]: what the image says about the command to run.
//! * `layer`: a layer's entries; `tree`: the names that all layers together make; `spool`: the contents of files.
//! * `squashfs`: the writer; `cache`: the folder of finished images; `memo`: which of them a compressed archive has.
//!
//! Guarantees:
//! * Every blob used has the size and the SHA-256 digest that the manifest says, and every layer the digest that the
//!   configuration says, or the image is refused by the blob's name.
//! * Only the cache's folder is written to; names in archives are never names of the host.
//! * Memory is bounded by the number of names, not by the sizes of layers and files; [`Limits`] bounds names, sizes and depth.
//! * Whatever the bytes are, the answer is an image or an error; there is no panic.
//! * An image appears in the cache by renaming. Of several processes that want the same image one makes it, and the others wait.
//!
//! Sources: OCI Image Format Specification 1.1, "Image Layout", "Image Manifest", "Image Index", "Image Configuration" and
//! "Filesystem Layers"; Docker Image Specification 1.2, "Combined Image JSON + Filesystem Changeset Format".

mod blob;
mod cache;
pub mod config;
mod decode;
mod digest;
mod document;
pub mod error;
mod guard;
mod layer;
pub mod limits;
mod memo;
mod open;
pub mod progress;
pub mod reference;
mod select;
mod source;
mod spool;
mod squashfs;
mod tree;

pub use config::ImageConfig;
pub use error::{Fault, ImageError};
pub use limits::Limits;
pub use oci_spec::image::Arch;
pub use open::{Image, open};
pub use progress::{Progress, Step};
pub use reference::Reference;
