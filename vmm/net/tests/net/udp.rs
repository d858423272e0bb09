//! Datagrams of the guest's, and questions to the resolver.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
};

use net::Config;
use smoltcp::{
    phy::ChecksumCapabilities,
    socket::tcp::State,
    wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol},
};

use crate::{
    cable::Cable,
    guest::{GUEST_V6, Guest, LOOPBACK, host_loopback},
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
