//! [`Checksum`]: the state of the checksum of TCP or UDP in a frame; and who computes which.

use smoltcp::{
    phy::{self, ChecksumCapabilities},
    wire::checksum,
};

/// The wire cannot damage a frame: checksums are computed for the guest, which checks them, but its own are not checked. Those
/// of TCP are left to the guest, see [`Checksum::Partial`].
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = phy::Checksum::Tx;
    checksums.udp = phy::Checksum::Tx;
    checksums.icmpv4 = phy::Checksum::Tx;
    checksums.icmpv6 = phy::Checksum::Tx;
    checksums
}

/// The state of the checksum of TCP or UDP in a frame. A partial one saves both sides a pass over the data, where the guest
/// trusts its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The frame has its checksum, or needs none.
    Complete,
    /// The field holds the sum over the pseudo header, and the rest is still to be added (VIRTIO 1.2, 5.1.6.2 Packet
    /// Transmission, VIRTIO_NET_HDR_F_NEEDS_CSUM).
    Partial {
        /// The offset in bytes of the transport's header in the frame, where the sum begins.
        start: u16,
        /// The offset in bytes of the field in the transport's header.
        field: u16,
    },
}

impl Checksum {
    /// Completes the checksum of a frame that this describes. Where the frame is too short for it nothing is done.
    pub fn complete(self, frame: &mut [u8]) {
        let Self::Partial { start, field } = self else {
            return;
        };
        let Some(segment) = frame.get_mut(usize::from(start)..) else {
            return;
        };
        let sum = !checksum::data(segment);
        let field = usize::from(field);
        if let Some(field) = segment.get_mut(field..field + 2) {
            // A UDP checksum of 0 would mean that there is none; 0xffff is as good in both protocols (RFC 768, Fields).
            let sum = if sum == 0 { u16::MAX } else { sum };
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_sums_verify() {
        let mut frame: Vec<u8> = (0..101).collect();
        frame[50..52].copy_from_slice(&0x1234u16.to_be_bytes());
        let partial = Checksum::Partial {
            start: 34,
            field: 16,
        };
        let before = checksum::data(&frame[34..]);
        partial.complete(&mut frame);
        // The field held 0x1234, now the complement of everything: together they are -0.
        assert_eq!(before, !u16::from_be_bytes([frame[50], frame[51]]));
        for start in [100, 101, 200] {
            let before = frame.clone();
            Checksum::Partial { start, field: 16 }.complete(&mut frame);
            assert_eq!(frame, before);
        }
    }
}
