//! Machines in the hands of a program: controlled by other threads, and looked into.

mod control;
mod inspect;
mod support;
