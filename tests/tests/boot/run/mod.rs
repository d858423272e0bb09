//! `replex run`: streams, arguments, roots, users, terminals and ends of commands.

mod command;
mod ends;
mod host;
mod image;
mod root;
mod stalled;
mod streams;
mod terminal;
mod unprivileged;
