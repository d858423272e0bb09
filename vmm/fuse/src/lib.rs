//! A FUSE server that shares one directory of the host.
//!
//! [`Server::answer`] takes a request and gives a reply, both as bytes; who carries them (a virtio-fs device, a test) is not
//! its business. There is no thread and no lock: one caller at a time.
//!
//! ```text
//!   bytes ──decode──▶ Request ──▶ server/ ──▶ host (openat2, fstat, pread, …)
//!                                   │ │
//!                                inodes handles
//! ```
//!
//! * `name`, `request`, `op`, `decode`: what can be asked, checked.
//! * `reply`: what is answered.
//! * `host`: the host's files, named by descriptors.
//! * [`ids`]: owners; `record`: owners and modes that the host's files cannot have.
//! * [`cache`]: how long the guest may go by what it knows.
//! * `inodes`, `handles`: what the guest knows and has open.
//! * [`server`]: the operations.
//!
//! Guarantees:
//! * No request reaches a file outside the directory: files are found by a descriptor of a directory and one name, which is
//!   neither empty nor "." nor "..", has no '/' and is not followed if it is a link.
//! * No request opens a device, FIFO or socket of the host, makes a device, or stores a setuid or setgid bit on a file.
//! * A read-only directory is not changed.
//! * Whatever the bytes are, the server answers or stays silent; it does not panic.
//! * The number of descriptors is bounded, whatever the guest knows or opens.

pub mod cache;
mod decode;
mod handles;
mod host;
pub mod ids;
mod inodes;
mod name;
mod op;
mod record;
mod reply;
mod request;
pub mod server;

pub use cache::Cache;
pub use ids::Ids;
pub use record::{keep_records, keeps_records};
pub use server::{Config, OpenError, Server};
