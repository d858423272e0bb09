//! Debian's kernels, unmodified, booted by the `replex` program: what a user sees of it, from outside.
//!
//! The kernels come from the user's cache or, the first time, through the network. Where neither has them the tests fail,
//! unless REPLEX_OFFLINE=1 says that this is known: then they say that they are skipped.
//!
//! The translator, which is the default, runs all boots but the one that says otherwise. A boot takes seconds, so each checks
//! several things. No check depends on how long anything takes; a machine that hangs is killed after [`tests::hang::PATIENCE`],
//! which fails its test.
//!
//! By hand: [`in_a_row`] boots many times. And, since it takes a minute and measures time: in a shell of the guest,
//! `cat /proc/uptime` twice 60 s of the host apart. The difference must be within 1 % of 60 s.

mod amd64;
mod busy;
mod clock;
mod console;
mod datagrams;
mod devices;
mod exec;
mod gdb;
mod given;
mod guests;
mod high_memory;
mod in_a_row;
mod kernel_log;
mod killed;
mod mappings;
mod memory;
mod moved;
mod network;
mod passt;
mod program;
mod records;
mod resolver;
mod root;
mod run;
mod screen;
mod terminal;
mod trace;
mod transfers;
mod volumes;
mod workload;
