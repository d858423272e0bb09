//! The device as a driver sees it, and as the files at its other end do.

mod control;
mod data;
mod guest;
mod hostile;
mod ports;
mod state;
