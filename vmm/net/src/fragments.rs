//! Fragmentation of IP packets to the guest that are larger than the link's (RFC 791, 3.2 Fragmentation and Reassembly;
//! RFC 8200, 4.5 Fragment Header).

use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, IpRepr, Ipv4Packet, Ipv6Repr};

use crate::checksum::checksums;

/// The length in bytes of the fragment header of IPv6.
pub(crate) const FRAGMENT_HEADER: usize = 8;

/// A fragment of a packet: its place in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// The offset in bytes, a multiple of 8.
    pub(crate) offset: usize,
    pub(crate) len: usize,
    /// Whether others follow.
    pub(crate) more: bool,
}

/// Returns the fragments in which a packet with this header and payload is sent over a link for packets of `mtu` bytes.
pub(crate) fn fragments(header: &IpRepr, payload: usize, mtu: u16) -> Vec<Fragment> {
    let room = (usize::from(mtu) - header_len(header)) & !7;
    (0..payload)
        .step_by(room)
        .map(|offset| Fragment {
            offset,
            len: room.min(payload - offset),
            more: payload - offset > room,
        })
        .collect()
}

/// The length in bytes of the headers of each fragment.
pub(crate) fn header_len(header: &IpRepr) -> usize {
    match header {
        IpRepr::Ipv4(_) => IPV4_HEADER_LEN,
        IpRepr::Ipv6(_) => IPV6_HEADER_LEN + FRAGMENT_HEADER,
    }
}

/// Writes the headers of a fragment of the packet with this header and identification into `packet`.
pub(crate) fn emit(header: &IpRepr, fragment: Fragment, ident: u32, packet: &mut [u8]) {
    match header {
        IpRepr::Ipv4(repr) => {
            let mut repr = *repr;
            repr.payload_len = fragment.len;
            let mut packet = Ipv4Packet::new_unchecked(packet);
            repr.emit(&mut packet, &checksums());
            packet.set_ident(ident as u16);
            packet.set_dont_frag(false);
            packet.set_more_frags(fragment.more);
            packet.set_frag_offset(fragment.offset as u16);
            packet.fill_checksum();
        }
        IpRepr::Ipv6(repr) => {
            let outer = IpRepr::Ipv6(Ipv6Repr {
                next_header: IpProtocol::Ipv6Frag,
                payload_len: FRAGMENT_HEADER + fragment.len,
                ..*repr
            });
            outer.emit(&mut *packet, &checksums());
            let [high, low] = (fragment.offset as u16 | u16::from(fragment.more)).to_be_bytes();
            let start = [repr.next_header.into(), 0, high, low];
            packet[IPV6_HEADER_LEN..][..4].copy_from_slice(&start);
            packet[IPV6_HEADER_LEN + 4..][..4].copy_from_slice(&ident.to_be_bytes());
        }
    }
}
