//! Datagrams of the guest's, and questions to the resolver.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    thread,
};

use net::{Backend, Checksum, Config, Gateway, Wire};
use smoltcp::{
    phy::ChecksumCapabilities,
    socket::tcp::State,
    wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol},
};

use crate::{
    cable::Cable,
    guest::{GUEST_V6, Guest, LOOPBACK, host_loopback},
    hang::until,
    packet,
};

fn guest(port: u16) -> SocketAddr {
    (net::GUEST, port).into()
}

/// Answers `count` datagrams on the host's loopback with their bytes reversed.
fn serve(address: &str, count: usize) -> (u16, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        for _ in 0..count {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[..len].reverse();
            socket.send_to(&buffer[..len], from).unwrap();
        }
    });
    (port, thread)
}

#[test]
fn datagrams_are_answered() {
    let (port, server) = serve("127.0.0.1:0", 4);
    let cable = Cable::plug(&host_loopback());
    let to = (net::GATEWAY, port).into();
    for (source, len) in [(4000, 3), (4000, 0), (4001, 1400), (4002, 60000)] {
        let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
        cable.send(packet::udp(guest(source), to, &data));
        let answer = cable.expect(packet::parse_udp);
        let expected: Vec<u8> = data.into_iter().rev().collect();
        assert!(answer == (to, guest(source), expected), "from {source}");
    }
    server.join().unwrap();
}

#[test]
fn datagrams_are_answered_by_ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return; // a host without IPv6
    }
    let (port, server) = serve("[::1]:0", 1);
    let cable = Cable::plug(&host_loopback());
    let (from, to) = ((GUEST_V6, 4000).into(), (net::GATEWAY_V6, port).into());
    cable.send(packet::udp(from, to, b"six"));
    assert_eq!(cable.expect(packet::parse_udp), (to, from, b"xis".to_vec()));
    server.join().unwrap();
}

/// Takes packets until the fragments of one with a UDP datagram are there, none larger than `mtu`, and returns its payload.
fn reassemble(cable: &Cable, mtu: usize) -> Vec<u8> {
    let mut pieces = BTreeMap::new();
    let mut ident = None;
    let mut end = None;
    loop {
        let (this, offset, more, data) = cable.expect(|frame| {
            assert!(frame.len() <= 14 + mtu, "{} bytes", frame.len());
            packet::parse_fragment(frame)
        });
        assert_eq!(*ident.get_or_insert(this), this);
        assert!(offset % 8 == 0 && (!more || data.len() % 8 == 0));
        if !more {
            end = Some(offset + data.len());
        }
        pieces.insert(offset, data);
        let datagram: Vec<u8> = pieces.values().flatten().copied().collect();
        if Some(datagram.len()) == end {
            return datagram[8..].to_vec();
        }
    }
}

#[test]
fn answers_larger_than_the_link_come_in_fragments() {
    let guest_v6 = |port| SocketAddr::from((GUEST_V6, port));
    let mut ways = vec![(
        "127.0.0.1:0",
        guest(4000),
        IpAddr::from(net::GATEWAY),
        65507,
    )];
    if UdpSocket::bind("[::1]:0").is_ok() {
        ways.push(("[::1]:0", guest_v6(4000), net::GATEWAY_V6.into(), 65487));
    }
    for (address, from, gateway, most) in ways {
        for (mtu, lengths) in [
            (1500, [1473, 1481, 2953, 60000]),
            (Config::DEFAULT_MTU, [most; 4]),
        ] {
            let (port, server) = serve(address, 4);
            let cable = Cable::plug(&Config {
                mtu,
                ..host_loopback()
            });
            for len in lengths {
                let data: Vec<u8> = (0..len).map(|byte| (byte / 7) as u8).collect();
                cable.send(packet::udp(from, (gateway, port).into(), &data));
                let expected: Vec<u8> = data.into_iter().rev().collect();
                let answer = reassemble(&cable, mtu.into());
                assert!(answer == expected, "{address}, {len}");
            }
            server.join().unwrap();
        }
    }
}

#[test]
fn datagrams_in_fragments_are_put_together() {
    let mut ways = vec![("127.0.0.1:0", guest(4000), IpAddr::from(net::GATEWAY))];
    if UdpSocket::bind("[::1]:0").is_ok() {
        ways.push(("[::1]:0", (GUEST_V6, 4000).into(), net::GATEWAY_V6.into()));
    }
    for (address, from, gateway) in ways {
        let (port, server) = serve(address, 8);
        let cable = Cable::plug(&host_loopback());
        let to = SocketAddr::new(gateway, port);
        let mut random = fastrand::Rng::with_seed(8);
        for (ident, len) in (1..).zip([9, 17, 100, 1473, 5000, 30000, 60000, 65000]) {
            let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            let size = random.usize(1..200) * 8;
            let mut fragments = packet::fragments(from, to, &data, size, ident);
            random.shuffle(&mut fragments);
            // One that overlaps others breaks the datagram, whose other fragments then wait for more.
            let broken = packet::fragments(from, to, &data, 16, ident + 100);
            for fragment in broken.iter().take(1).cycle().take(2).chain(&fragments) {
                until(|| cable.has_room());
                cable.send(fragment.clone());
            }
            let expected: Vec<u8> = data.into_iter().rev().collect();
            let (answered, _, answer) = cable.expect(packet::parse_udp);
            assert_eq!(answered, to);
            assert!(answer == expected, "{address}, {len}");
        }
        server.join().unwrap();
    }
}

#[test]
fn a_guest_may_lower_the_mtu_and_raise_it_again() {
    let (port, server) = serve("127.0.0.1:0", 3);
    let mut gateway = Gateway::new(&host_loopback()).unwrap();
    let data = [5; 3000];
    for (limit, mtu, fragments) in [(0, 1280, 3), (1500, 1500, 3), (u16::MAX, 65520, 1)] {
        gateway.limit_mtu(limit);
        assert_eq!(gateway.mtu(), mtu);
        let mut wire = Collected {
            sent: Some(packet::udp(guest(4000), (net::GATEWAY, port).into(), &data)),
            received: Vec::new(),
        };
        gateway.waker().wake();
        while wire.received.len() < fragments {
            gateway.wait().unwrap();
            gateway.turn(&mut wire);
        }
        assert_eq!(wire.received.len(), fragments);
        assert!(
            wire.received
                .iter()
                .all(|len| *len <= 14 + usize::from(mtu))
        );
    }
    server.join().unwrap();
}

/// A wire that has a frame of the guest's, and collects the lengths of the gateway's.
struct Collected {
    sent: Option<Vec<u8>>,
    received: Vec<usize>,
}

impl Wire for Collected {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        self.sent.take().map(|sent| *frame = sent).is_some()
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn send(&mut self, frame: &mut [u8], _: Checksum) {
        self.received.push(frame.len());
    }
}

/// Takes an ICMP error out of a frame: the destination and the first bytes of what did not arrive.
fn unreachable_port(frame: &[u8]) -> Option<(std::net::Ipv4Addr, Vec<u8>)> {
    let packet = packet::parse_ip(frame).filter(|packet| packet.protocol == IpProtocol::Icmp)?;
    let message = Icmpv4Packet::new_checked(packet.payload).unwrap();
    let Icmpv4Repr::DstUnreachable {
        reason,
        header,
        data,
    } = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap()
    else {
        return None;
    };
    assert_eq!(reason, Icmpv4DstUnreachable::PortUnreachable);
    Some((header.dst_addr, data[..4].to_vec()))
}

#[test]
fn nobody_at_the_port_is_an_icmp_error() {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let cable = Cable::plug(&host_loopback());
    cable.send(packet::udp(guest(4000), (net::GATEWAY, port).into(), b"x"));
    let [high, low] = port.to_be_bytes();
    let expected = (net::GATEWAY, vec![0x0f, 0xa0, high, low]);
    assert_eq!(cable.expect(unreachable_port), expected);
}

#[test]
fn loopback_is_unreachable_unless_asked_for() {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    let cable = Cable::plug(&Config::default());
    for address in [[10, 0, 2, 2], [127, 0, 0, 1]] {
        cable.send(packet::udp(guest(4000), (address, port).into(), b"x"));
        assert_eq!(
            cable.expect(unreachable_port).0,
            std::net::Ipv4Addr::from(address)
        );
    }
    assert!(socket.recv(&mut [0]).is_err());
}

#[test]
fn questions_go_to_the_resolvers_of_the_file() {
    let (first, first_server) = serve("127.0.0.1:0", 1);
    let (second, second_server) = serve("127.0.0.1:0", 2);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("nameserver [127.0.0.1]:{first}\nnameserver [127.0.0.1]:{second}\n");
    fs::write(file.path(), text).unwrap();
    let cable = Cable::plug(&Config {
        resolv_conf: file.path().into(),
        ..Config::default()
    });
    let resolver = (net::RESOLVER, 53).into();
    // The first resolver answers once; the question is asked again, of the second.
    for question in [[0, 1, 2], [0, 1, 2]] {
        cable.send(packet::udp(guest(4000), resolver, &question));
        assert_eq!(
            cable.expect(packet::parse_udp),
            (resolver, guest(4000), vec![2, 1, 0])
        );
    }
    first_server.join().unwrap();

    fs::write(file.path(), format!("nameserver [127.0.0.1]:{second}\n")).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    file.as_file().set_modified(later).unwrap();
    cable.send(packet::udp(guest(4001), resolver, &[7, 8, 9]));
    assert_eq!(
        cable.expect(packet::parse_udp),
        (resolver, guest(4001), vec![9, 8, 7])
    );
    second_server.join().unwrap();
}

#[test]
fn the_resolver_is_reached_by_tcp() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = format!(
        "nameserver [127.0.0.1]:{}\n",
        listener.local_addr().unwrap().port()
    );
    fs::write(file.path(), address).unwrap();
    let server = thread::spawn(move || {
        listener
            .accept()
            .unwrap()
            .0
            .write_all(b"long answer")
            .unwrap()
    });
    let mut guest = Guest::start(&Config {
        resolv_conf: file.path().into(),
        ..Config::default()
    });
    let socket = guest.connect((net::RESOLVER, 53).into());
    guest.until_state(socket, State::CloseWait);
    assert_eq!(guest.receive_all(socket), b"long answer");
    server.join().unwrap();
}
