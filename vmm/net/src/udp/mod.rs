//! UDP: datagrams of the guest's to others ([`Outbound`]), and of others to the guest's published ports ([`Inbound`]).

mod inbound;
mod outbound;

pub(crate) use inbound::Inbound;
pub(crate) use outbound::{Ends, Outbound};

use std::time::Duration;

/// The time without a datagram after which an exchange is over (RFC 4787, REQ-5: two minutes at least).
const IDLE: Duration = Duration::from_secs(120);

/// The time between two looks for exchanges that are over.
const SWEEP: Duration = Duration::from_secs(10);

/// The number of exchanges that are open at once, in each direction. The one idle longest makes room for another.
const MAX_EXCHANGES: usize = 256;

/// The largest payload of a datagram in bytes, which IPv6 has.
const MAX_PAYLOAD: usize = 65535 - 8;
