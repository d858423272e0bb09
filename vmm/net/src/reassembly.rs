//! [`Reassembly`]: IP packets of the guest's that come in fragments (RFC 791, 3.2 Fragmentation and Reassembly; RFC 8200, 4.5
//! Fragment Header).

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use smoltcp::wire::{
    EthernetProtocol, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use crate::fragments::FRAGMENT_HEADER;

/// The number of packets of which fragments are kept. The oldest one makes room for another.
const MAX_PACKETS: usize = 16;

/// The time after which the fragments of a packet are dropped (RFC 1122, 3.3.2 Reassembly: 60 seconds at least).
const TIMEOUT: Duration = Duration::from_secs(60);

/// The largest payload of a packet in bytes.
const MAX_PAYLOAD: usize = 65535;

/// The packet that a fragment belongs to.
type Key = (IpAddr, IpAddr, u8, u32);

/// A fragment.
struct Fragment<'a> {
    key: Key,
    /// The header of the packet, of which some fields are those of the fragment.
    header: &'a [u8],
    offset: usize,
    more: bool,
    data: &'a [u8],
}

/// The fragments of a packet.
struct Packet {
    key: Key,
    since: Instant,
    /// The header, from the first fragment.
    header: Vec<u8>,
    /// The payloads of the fragments, by offset.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// The length of the payload, once the last fragment is there.
    len: Option<usize>,
}

/// The packets of which some fragments are there.
#[derive(Default)]
pub(crate) struct Reassembly(VecDeque<Packet>);

impl Reassembly {
    /// Takes a packet of the guest's, and returns nothing if it is whole. Of a fragment, returns the packet that it completes,
    /// empty while it completes none.
    pub(crate) fn take(
        &mut self,
        ethertype: EthernetProtocol,
        packet: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let fragment = match ethertype {
            EthernetProtocol::Ipv4 => parse_v4(packet),
            EthernetProtocol::Ipv6 => parse_v6(packet),
            _ => None,
        }?;
        Some(self.add(&fragment, now).unwrap_or_default())
    }

    fn add(&mut self, fragment: &Fragment<'_>, now: Instant) -> Option<Vec<u8>> {
        self.0
            .retain(|packet| now.duration_since(packet.since) < TIMEOUT);
        let known = self.0.iter().position(|packet| packet.key == fragment.key);
        let at = known.unwrap_or_else(|| {
            if self.0.len() == MAX_PACKETS {
                self.0.pop_front();
            }
            self.0.push_back(Packet::new(fragment.key, now));
            self.0.len() - 1
        });
        let packet = &mut self.0[at];
        let fits = packet.add(fragment);
        if !fits || packet.is_whole() {
            let packet = self.0.remove(at)?;
            return fits.then(|| packet.whole());
        }
        None
    }
}

impl Packet {
    fn new(key: Key, since: Instant) -> Self {
        Self {
            key,
            since,
            header: Vec::new(),
            pieces: BTreeMap::new(),
            len: None,
        }
    }

    /// Adds a fragment. Returns whether it can belong to those that are there: overlapping ones cannot (RFC 5722).
    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let end = fragment.offset + fragment.data.len();
        let before = self.pieces.range(..end).next_back();
        let overlaps = before.is_some_and(|(start, piece)| start + piece.len() > fragment.offset);
        let cut_wrong = fragment.more && !fragment.data.len().is_multiple_of(8);
        let beyond = self.len.is_some_and(|len| end > len || !fragment.more);
        if overlaps || cut_wrong || beyond || fragment.data.is_empty() || end > MAX_PAYLOAD {
            return false;
        }
        if !fragment.more {
            self.len = Some(end);
        }
        if fragment.offset == 0 {
            self.header = fragment.header.to_vec();
        }
        self.pieces.insert(fragment.offset, fragment.data.to_vec());
        let last = self.pieces.last_key_value();
        let last = last.map_or(0, |(start, piece)| start + piece.len());
        self.len.is_none_or(|len| last <= len)
    }

    fn is_whole(&self) -> bool {
        let present: usize = self.pieces.values().map(Vec::len).sum();
        self.len == Some(present)
    }

    /// The packet; empty if it is larger than IP has them.
    fn whole(self) -> Vec<u8> {
        let payload: Vec<u8> = self.pieces.into_values().flatten().collect();
        let mut bytes = [self.header, payload].concat();
        let len = bytes.len();
        match self.key.0 {
            IpAddr::V4(_) if len > MAX_PAYLOAD => return Vec::new(),
            IpAddr::V4(_) => {
                let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
                packet.set_header_len(IPV4_HEADER_LEN as u8);
                packet.set_total_len(len as u16);
                packet.set_more_frags(false);
            }
            IpAddr::V6(_) => {
                let mut packet = Ipv6Packet::new_unchecked(bytes.as_mut_slice());
                packet.set_payload_len((len - IPV6_HEADER_LEN) as u16);
                packet.set_next_header(self.key.2.into());
            }
        }
        bytes
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Fragment<'_>> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let (more, offset) = (packet.more_frags(), usize::from(packet.frag_offset()));
    // Options are left out, which nobody reads.
    (more || offset != 0).then(|| Fragment {
        key: (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            packet.next_header().into(),
            packet.ident().into(),
        ),
        header: &bytes[..IPV4_HEADER_LEN],
        offset,
        more,
        data: packet.payload(),
    })
}

fn parse_v6(bytes: &[u8]) -> Option<Fragment<'_>> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    if packet.next_header() != IpProtocol::Ipv6Frag {
        return None;
    }
    let (fragment, data) = packet.payload().split_first_chunk::<FRAGMENT_HEADER>()?;
    let [next, _, high, low, ident @ ..] = *fragment;
    let place = u16::from_be_bytes([high, low]);
    Some(Fragment {
        key: (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            next,
            u32::from_be_bytes(ident),
        ),
        header: &bytes[..IPV6_HEADER_LEN],
        offset: usize::from(place & !7),
        more: place & 1 != 0,
        data,
    })
}
