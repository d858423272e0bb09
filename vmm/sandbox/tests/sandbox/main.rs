//! What confined threads can still do, and what they cannot. Confinement is for ever, and a denied call ends the process: so each
//! attempt is made in a process of its own, with the sandbox and without it.

mod attempts;
mod calls;
mod files;
mod process;
