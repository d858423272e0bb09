//! The confinement of replex's threads, so that a guest that has taken one over gets as little as possible of the host.
//!
//! ```text
//!   open everything ─► catch_violations ─► restrict_files ─► start threads ─► each: confine ─► run the guest
//!                      what is denied      Landlock: only    they inherit     seccomp: the system
//!                      ends the process    what is shared    the restriction  calls of its Policy
//! ```
//!
//! * [`restrict_files`] takes every file from the calling thread, and from the threads that it starts, except what is shared.
//!   Descriptors that are open stay usable.
//! * [`confine`] leaves the calling thread the system calls of a [`Policy`]: a table for each kind of thread. Calls that harmless
//!   code makes and can do without, such as opening files to name the functions of a backtrace, fail with EPERM. Every other call
//!   raises SIGSYS, and [`catch_violations`] ends the process with a message.
//! * [`Support`] says what of this the host has. Landlock and seccomp filters work for ordinary users and in containers.
//!
//! All threads share their memory. So whoever controls one thread may come to control others, and has at most the rights of all
//! threads together; of a machine without network and shared directories no thread can open a file or a socket.

mod filter;
mod policy;
mod restrict;
mod support;
mod violation;

pub use filter::{ConfineError, confine};
pub use policy::Policy;
pub use restrict::{Access, RestrictError, Shared, limit_resources, restrict_files};
pub use support::Support;
pub use violation::{before_exit, catch_violations};
