//! The `replex` program from outside: arguments, streams, terminal, signals and exit statuses.

mod bad_input;
mod events;
mod run;
mod sandbox;
mod start;
mod support;
mod terminal;
mod trace;
