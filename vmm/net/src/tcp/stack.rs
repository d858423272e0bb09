//! [`Stack`]: smoltcp's interface, through which every connection's socket takes and sends segments.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, PollResult, SocketSet},
    time::Instant as WireInstant,
    wire::{EthernetAddress, HardwareAddress, IpCidr},
};

use super::phy::Phy;
use crate::{
    addresses::{GATEWAY, GATEWAY_V6},
    frame::{Egress, Scratch, ethertype},
    wire::Unplugged,
};

/// The guest's end of a connection: where its frames go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) mac: EthernetAddress,
    pub(super) address: IpAddr,
}

/// The interface. It has the gateway's addresses and accepts packets to all others, too.
pub(super) struct Stack {
    pub(super) interface: Interface,
    /// A second before the beginning, since smoltcp gives the time 0 a meaning of its own.
    epoch: Instant,
}

impl Stack {
    /// Makes an interface whose sockets' segments fit into IP packets of `mtu` bytes, the MTU of the link to the guest.
    pub(super) fn new(mtu: u16) -> Self {
        let epoch = Instant::now();
        let mut config = Config::new(HardwareAddress::Ip);
        // Sequence numbers begin where the guest cannot guess.
        config.random_seed = RandomState::new().build_hasher().finish();
        // Asked for its capabilities only.
        let mut link = Phy {
            egress: &mut Egress {
                wire: &mut Unplugged,
                mtu,
                scratch: &mut Scratch::default(),
            },
            mac: EthernetAddress::BROADCAST,
            ethertype: ethertype(GATEWAY.into()),
            packet: None,
        };
        let mut interface = Interface::new(config, &mut link, WireInstant::from_secs(1));
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            for address in [
                IpCidr::new(GATEWAY.into(), 32),
                IpCidr::new(GATEWAY_V6.into(), 128),
            ] {
                let pushed = addresses.push(address);
                debug_assert!(pushed.is_ok(), "room for two addresses");
            }
        });
        Self { interface, epoch }
    }

    /// Gives the sockets a packet. An answer that cannot wait is sent at once.
    pub(super) fn ingress(
        &mut self,
        packet: &[u8],
        remote: Remote,
        sockets: &mut SocketSet<'_>,
        now: Instant,
        egress: &mut Egress<'_>,
    ) {
        let time = self.time(now);
        let mut link = self.link(remote, egress);
        link.packet = Some(packet);
        self.interface.poll_ingress_single(time, &mut link, sockets);
    }

    /// Sends one packet of the sockets'. Returns whether there was one to send.
    pub(super) fn egress(
        &mut self,
        remote: Remote,
        sockets: &mut SocketSet<'_>,
        now: Instant,
        egress: &mut Egress<'_>,
    ) -> bool {
        let time = self.time(now);
        let mut link = self.link(remote, egress);
        self.interface.poll_egress(time, &mut link, sockets) == PollResult::SocketStateChanged
    }

    /// When [`Self::egress`] is due for the sockets again.
    pub(super) fn deadline(&mut self, sockets: &SocketSet<'_>, now: Instant) -> Option<Instant> {
        let time = self.interface.poll_at(self.time(now), sockets)?;
        let since = u64::try_from(time.total_micros()).unwrap_or(0);
        Some(self.epoch + Duration::from_micros(since).saturating_sub(Duration::from_secs(1)))
    }

    fn link<'a, 'e>(&self, remote: Remote, egress: &'a mut Egress<'e>) -> Phy<'a, 'e> {
        Phy {
            egress,
            mac: remote.mac,
            ethertype: ethertype(remote.address),
            packet: None,
        }
    }

    fn time(&self, now: Instant) -> WireInstant {
        let since = now.duration_since(self.epoch) + Duration::from_secs(1);
        WireInstant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
