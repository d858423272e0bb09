//! The server, driven by requests as bytes, as a guest's kernel or a hostile guest sends them.

mod client;
mod directories;
mod entries;
mod escape;
mod files;
mod limits;
mod owners;
mod random;
mod read_only;
mod records;
