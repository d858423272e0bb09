//! Hostile frames: the gateway survives them, and serves the next guest.
//!
//! A fixed seed by default; `REPLEX_FUZZ_SECONDS=600` goes on for that long, with new seeds, and `REPLEX_FUZZ_SEED=0x…` repeats one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use net::{Backend, Checksum, Config, Gateway, Wire};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, TcpControl, TcpPacket,
        TcpRepr, TcpSeqNumber,
    },
};

use crate::{guest::host_loopback, packet};

/// A wire whose guest sends what it is told, and keeps the last frame of each connection that it gets.
#[derive(Default)]
struct Mouth {
    frame: Option<Vec<u8>>,
    /// The sequence and acknowledgement numbers of the gateway's last segment.
    heard: Option<(TcpSeqNumber, Option<TcpSeqNumber>)>,
    room: bool,
    sent: usize,
}

impl Wire for Mouth {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        match self.frame.take() {
            Some(next) => {
                *frame = next;
                true
            }
            None => false,
        }
    }

    fn has_room(&mut self) -> bool {
        self.room
    }

    fn send(&mut self, frame: &mut [u8], _: Checksum) {
        self.sent += 1;
        let Some(packet) = packet::parse_ip(frame) else {
            return;
        };
        if packet.protocol == IpProtocol::Tcp {
            let segment = TcpPacket::new_checked(packet.payload).unwrap();
            self.heard = Some((
                segment.seq_number(),
                segment.ack().then(|| segment.ack_number()),
            ));
        }
    }
}

struct Fuzzer {
    random: fastrand::Rng,
    mouth: Mouth,
    gateway: Gateway,
    /// Ports of the host's loopback where somebody listens.
    tcp_port: u16,
    udp_port: u16,
    /// The guest's next sequence number.
    next: u32,
}

impl Fuzzer {
    fn pass(&mut self, frame: Vec<u8>) {
        self.mouth.room = self.random.u8(..) < 250;
        self.mouth.frame = Some(frame);
        self.gateway.waker().wake();
        self.gateway.wait().unwrap();
        self.gateway.turn(&mut self.mouth);
        self.mouth.frame = None;
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.random.usize(..=most);
        std::iter::repeat_with(|| self.random.u8(..))
            .take(len)
            .collect()
    }

    fn port(&mut self) -> u16 {
        *self
            .random
            .choice(&[0, 1, 53, 67, self.tcp_port, self.udp_port, 49152, 65535])
            .unwrap()
    }

    fn destination(&mut self) -> SocketAddr {
        let address = self
            .random
            .choice(&[
                "10.0.2.2",
                "10.0.2.3",
                "127.0.0.1",
                "0.0.0.0",
                "10.0.2.15",
                "255.255.255.255",
                "224.0.0.1",
            ])
            .unwrap();
        SocketAddr::new(address.parse().unwrap(), self.port())
    }

    fn source(&mut self) -> SocketAddr {
        let port = self.random.u16(20000..20004);
        let address = match self.random.u8(..) {
            0 => "0.0.0.0",
            1 => "10.0.2.2",
            2 => "127.0.0.1",
            _ => "10.0.2.15",
        };
        SocketAddr::new(address.parse().unwrap(), port)
    }

    fn sequence(&mut self, near: u32) -> TcpSeqNumber {
        let number = match self.random.u8(..8) {
            0 => self.random.u32(..),
            1 => near.wrapping_add(self.random.u32(..1 << 20)),
            2 => near.wrapping_sub(self.random.u32(..1 << 20)),
            3 => near.wrapping_add(0x7fff_fffe + self.random.u32(..4)),
            _ => near.wrapping_add(self.random.u32(..3)),
        };
        TcpSeqNumber(number as i32)
    }

    /// A segment that may belong to a connection: it follows what the gateway has said, more or less.
    fn segment(&mut self) -> Vec<u8> {
        let heard = self.mouth.heard.unwrap_or_default();
        let (control, acks) = match self.random.u8(..16) {
            0..=3 => (TcpControl::Syn, self.random.u8(..8) == 0),
            4 => (TcpControl::Fin, true),
            5 => (TcpControl::Rst, self.random.bool()),
            6..=8 => (TcpControl::Psh, true),
            _ => (TcpControl::None, self.random.u8(..16) != 0),
        };
        if let Some(TcpSeqNumber(number)) = heard.1 {
            self.next = number as u32;
        }
        let most = if self.random.u8(..8) == 0 { 60000 } else { 40 };
        let payload = self.bytes(most);
        let (source, destination) = if self.random.u8(..16) == 0 {
            (self.source(), self.destination())
        } else {
            let source = (net::GUEST, self.random.u16(20000..20002)).into();
            (source, (net::GATEWAY, self.tcp_port).into())
        };
        let segment = TcpRepr {
            src_port: source.port(),
            dst_port: destination.port(),
            control,
            seq_number: self.sequence(self.next),
            ack_number: acks.then(|| self.sequence((heard.0.0 as u32).wrapping_add(1))),
            window_len: *self.random.choice(&[0, 1, 100, 65535]).unwrap(),
            window_scale: (control == TcpControl::Syn && self.random.bool())
                .then(|| self.random.u8(..)),
            max_seg_size: (control == TcpControl::Syn)
                .then(|| *self.random.choice(&[0, 1, 48, 536, 65535]).unwrap()),
            sack_permitted: control == TcpControl::Syn && self.random.bool(),
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &payload,
        };
        let mut bytes = vec![0; segment.buffer_len()];
        segment.emit(
            &mut TcpPacket::new_unchecked(bytes.as_mut_slice()),
            &source.ip().into(),
            &destination.ip().into(),
            &ChecksumCapabilities::default(),
        );
        packet::ip(source.ip(), destination.ip(), IpProtocol::Tcp, 64, &bytes)
    }

    fn datagram(&mut self) -> Vec<u8> {
        let payload = self.bytes(600);
        let (source, destination) = (self.source(), self.destination());
        packet::udp(source, destination, &payload)
    }

    /// A fragment of a datagram, of which others may come.
    fn fragment(&mut self) -> Vec<u8> {
        let payload = self.bytes(200);
        let (from, to) = match self.random.bool() {
            true => (net::GUEST.into(), net::GATEWAY.into()),
            false => (crate::guest::GUEST_V6.into(), net::GATEWAY_V6.into()),
        };
        let port = self.port();
        let (size, ident) = (8 * self.random.usize(1..20), self.random.u16(..20));
        let (from, to) = (SocketAddr::new(from, 20000), SocketAddr::new(to, port));
        let fragments = packet::fragments(from, to, &payload, size, ident);
        self.random.choice(fragments).unwrap()
    }

    /// Noise behind a header that leads somewhere.
    fn noise(&mut self) -> Vec<u8> {
        let ethertype = *self
            .random
            .choice(&[
                EthernetProtocol::Arp,
                EthernetProtocol::Ipv4,
                EthernetProtocol::Ipv6,
            ])
            .unwrap();
        let payload = self.bytes(200);
        match self.random.u8(..4) {
            0 => payload,
            1 => packet::frame(EthernetAddress::BROADCAST, ethertype, &payload),
            2 => {
                let protocol = self.random.u8(..).into();
                let (source, destination) = (self.source(), self.destination());
                packet::ip(source.ip(), destination.ip(), protocol, 255, &payload)
            }
            _ => {
                let protocol = *self
                    .random
                    .choice(&[
                        IpProtocol::Icmpv6,
                        IpProtocol::Tcp,
                        IpProtocol::Udp,
                        IpProtocol::HopByHop,
                    ])
                    .unwrap();
                let to = *self
                    .random
                    .choice(&[net::GATEWAY_V6, net::RESOLVER_V6])
                    .unwrap();
                packet::ip(
                    crate::guest::GUEST_V6.into(),
                    to.into(),
                    protocol,
                    255,
                    &payload,
                )
            }
        }
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = match self.random.u8(..8) {
            0 => self.noise(),
            1 if self.random.bool() => self.fragment(),
            1 => self.datagram(),
            _ => self.segment(),
        };
        if self.random.u8(..4) == 0 && !frame.is_empty() {
            for _ in 0..self.random.usize(1..4) {
                // Mostly in the headers.
                let most = if self.random.bool() {
                    frame.len().min(80)
                } else {
                    frame.len()
                };
                let at = self.random.usize(..most);
                frame[at] = self.random.u8(..);
            }
        }
        if self.random.u8(..16) == 0 {
            let len = self.random.usize(..=frame.len());
            frame.truncate(len);
        }
        // Alone, a changed address may lead out of this host.
        if leads_out(&frame) { Vec::new() } else { frame }
    }
}

/// Whether a frame is for an address outside the guest's network, which a test sends nothing to.
fn leads_out(bytes: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else {
        return false;
    };
    let payload = frame.payload();
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => match payload.get(16..20) {
            // The guest's network, and what leads nowhere.
            Some([10, 0, 2, _] | [0 | 127 | 224, ..] | [255, 255, 255, 255]) | None => false,
            Some(_) => true,
        },
        EthernetProtocol::Ipv6 => payload
            .get(24..26)
            .is_some_and(|network| network != [0xfe, 0xc0]),
        _ => false,
    }
}

/// Answers everything on the host's loopback, until the process ends.
fn serve() -> (u16, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ports = (
        listener.local_addr().unwrap().port(),
        socket.local_addr().unwrap().port(),
    );
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                // Some finish first, some answer, some just go.
                let _ = match number % 3 {
                    0 => stream.write_all(&[7; 100_000]),
                    1 => stream
                        .read(&mut [0; 10])
                        .and_then(|len| stream.write_all(&[8; 10][..len])),
                    _ => Ok(()),
                };
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    ports
}

fn fuzz(seed: u64, frames: usize, (tcp_port, udp_port): (u16, u16)) -> usize {
    let config = Config {
        // No question leaves this host.
        resolv_conf: "/dev/null".into(),
        ..host_loopback()
    };
    let mut fuzzer = Fuzzer {
        random: fastrand::Rng::with_seed(seed),
        mouth: Mouth::default(),
        gateway: Gateway::new(&config).unwrap(),
        tcp_port,
        udp_port,
        next: 0,
    };
    for _ in 0..frames {
        let frame = fuzzer.frame();
        fuzzer.pass(frame);
    }
    fuzzer.mouth.sent
}

#[test]
fn hostile_frames_are_survived() {
    let ports = serve();
    let mut sent = 0;
    for seed in 0..4 {
        sent += fuzz(seed, 5000, ports);
    }
    assert!(sent > 0, "the gateway answers some");
    if let Ok(seed) = std::env::var("REPLEX_FUZZ_SEED") {
        let digits = seed.trim_start_matches("0x");
        fuzz(u64::from_str_radix(digits, 16).unwrap(), 20_000, ports);
    }
    let Ok(seconds) = std::env::var("REPLEX_FUZZ_SECONDS") else {
        return;
    };
    let (start, length) = (
        Instant::now(),
        Duration::from_secs(seconds.parse().unwrap()),
    );
    let mut frames = 0;
    while start.elapsed() < length {
        let seed = fastrand::u64(..);
        println!("seed {seed:#x}, {frames} frames so far, {sent} answers");
        sent += fuzz(seed, 20_000, ports);
        frames += 20_000;
    }
}
