//! [`Context`]: what every protocol needs while the gateway works.

use std::{os::fd::AsFd, time::Instant};

use crate::{
    frame::Egress,
    poller::{Poller, Token},
};

/// The present, the way to the guest and the way to wait for sockets.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) egress: Egress<'a>,
    pub(crate) poller: &'a Poller,
}

impl Context<'_> {
    /// Waits for a socket from now on. It is readable and writable until it says otherwise.
    pub(crate) fn watch(&self, socket: impl AsFd, token: Token) -> std::io::Result<()> {
        Ok(self.poller.add(socket, token)?)
    }
}
