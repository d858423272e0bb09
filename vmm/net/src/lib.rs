//! A guest's network without privileges on the host: a gateway in the process, which carries the guest's connections and
//! datagrams by ordinary sockets.
//!
//! ```text
//!            Ethernet frames                        sockets
//! guest ◄───────[Wire]──────► [Gateway] ◄────────────────────────► the host's network
//!                              ├ ARP, neighbor discovery: who has 10.0.2.2, fec0::2
//!                              ├ DHCP: the guest is 10.0.2.15
//!                              ├ ICMP: echo; errors of the host's sockets
//!                              ├ UDP: a connected socket for each pair of ends; 10.0.2.3 is the host's resolver
//!                              └ TCP: smoltcp's socket towards the guest, a stream towards the peer
//! ```
//!
//! The gateway is one [`Backend`], a far end of the guest's cable. The other one is [`Stream`], which passes frames on to another
//! program, such as passt.
//!
//! * [`Gateway`] is single-threaded: its owner waits and turns. It keeps no frames: what the guest does not take stays in the
//!   host's sockets.
//! * The guest reaches what any program of this user reaches, the host's own addresses on its networks among it, except the
//!   host's loopback addresses. These are [`Config::host_loopback`]'s to open.
//! * No frame, however malformed, makes the gateway panic, and what a guest can make it keep is bounded.
//!
//! The guest's checksums are not checked, as nothing damages frames in a process, and those of TCP are left to a driver that
//! can do without ([`Checksum`]). Packets with extension headers of IPv6 are dropped, but for fragments: in both directions,
//! datagrams that are larger than the link's packets go in those.

mod addresses;
mod arp;
mod backend;
mod checksum;
mod config;
mod context;
mod dhcp;
mod fragments;
mod frame;
mod gateway;
mod icmp;
mod ndisc;
mod poller;
mod protocols;
mod reassembly;
mod resolvers;
mod stream;
mod tcp;
mod udp;
mod wire;

pub use addresses::{GATEWAY, GATEWAY_V6, GUEST, NETMASK, PREFIX_V6, RESOLVER, RESOLVER_V6};
pub use backend::Backend;
pub use checksum::Checksum;
pub use config::{Config, Publish, PublishError, Transport};
pub use gateway::{Gateway, GatewayError};
pub use poller::Waker;
pub use stream::{Stream, StreamError};
pub use wire::Wire;
