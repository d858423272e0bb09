//! Machines in the hands of a program: controlled by other threads, looked into, with devices of its own.

mod control;
mod devices;
mod endings;
mod events;
mod gdb;
mod inspect;
mod kmod;
mod machine;
mod start;
mod state;
mod support;
mod trace;
