//! [`Phy`]: the link of smoltcp's interface: one packet in, and the way to the guest out.

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
    wire::{EthernetAddress, EthernetProtocol},
};

use crate::{checksum::checksums, frame::Egress};

/// A link to the guest with one packet from it, or none.
pub(super) struct Phy<'a, 'e> {
    pub(super) egress: &'a mut Egress<'e>,
    pub(super) mac: EthernetAddress,
    pub(super) ethertype: EthernetProtocol,
    pub(super) packet: Option<&'a [u8]>,
}

impl<'e> Device for Phy<'_, 'e> {
    type RxToken<'t>
        = Rx<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Tx<'t, 'e>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_, 'e>)> {
        let packet = self.packet.take()?;
        let tx = Tx {
            egress: self.egress,
            mac: self.mac,
            ethertype: self.ethertype,
        };
        Some((Rx(packet), tx))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_, 'e>> {
        self.egress.has_room().then_some(Tx {
            egress: self.egress,
            mac: self.mac,
            ethertype: self.ethertype,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.egress.mtu.into();
        capabilities.checksum = checksums();
        capabilities
    }
}

/// The packet that came.
pub(super) struct Rx<'t>(&'t [u8]);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A packet to send.
pub(super) struct Tx<'t, 'e> {
    egress: &'t mut Egress<'e>,
    mac: EthernetAddress,
    ethertype: EthernetProtocol,
}

impl TxToken for Tx<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.egress.segment(self.mac, self.ethertype, len, f)
    }
}
