//! Published ports.

use std::{
    env,
    fs::File,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    thread,
};

use net::{Config, Gateway, GatewayError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use smoltcp::socket::tcp::State;
use socket2::{Domain, Socket, Type};

use crate::{
    cable::Cable,
    guest::{Guest, LOOPBACK},
    packet,
};

fn published(ports: &[&str]) -> Config {
    Config {
        publish: ports.iter().map(|port| port.parse().unwrap()).collect(),
        ..Config::default()
    }
}

#[test]
fn the_guest_serves_connections() {
    let mut guest = Guest::start(&published(&["0:80"]));
    let address = guest.cable().published()[0];
    for number in 0..20_u8 {
        let socket = guest.listen(80);
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[number; 1000]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        });
        guest.until(|guest| guest.tcp(socket).is_active());
        let from = guest.tcp(socket).remote_endpoint().unwrap();
        assert_eq!(from.addr, net::GATEWAY.into());
        guest.until(|guest| guest.tcp(socket).may_recv());
        assert_eq!(guest.receive_all(socket), [number; 1000]);
        guest.send_all(socket, b"answer");
        guest.tcp(socket).close();
        guest.until(|guest| !guest.tcp(socket).is_active());
        assert_eq!(client.join().unwrap(), b"answer");
        guest.remove(socket);
    }
}

#[test]
fn a_port_where_nobody_listens_in_the_guest_resets() {
    let mut guest = Guest::start(&published(&["0:80"]));
    let address = guest.cable().published()[0];
    let client = thread::spawn(move || {
        // The host accepts before the guest is asked.
        TcpStream::connect(address).and_then(|mut stream| stream.read(&mut [0]))
    });
    guest.until(|_| client.is_finished());
    client.join().unwrap().unwrap_err();
}

#[test]
fn a_client_that_has_gone_is_gone_for_the_guest() {
    let mut guest = Guest::start(&published(&["0:80"]));
    let socket = guest.listen(80);
    drop(TcpStream::connect(guest.cable().published()[0]).unwrap());
    guest.until_state(socket, State::CloseWait);
}

#[test]
fn a_connection_that_waits_is_accepted_when_another_has_ended() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let mut guest = Guest::start(&Config {
        host_loopback: true,
        ..published(&["0:80"])
    });
    let mut open = guest.fill(&listener);
    let waiting = TcpStream::connect(guest.cable().published()[0]).unwrap();
    let socket = guest.listen(80);
    // Nothing else happens at the gateway afterwards.
    let last = open.pop().unwrap();
    guest.end(last);
    guest.until_state(socket, State::Established);
    drop(waiting);
}

/// The limit is of the process, so this test has one of its own.
#[test]
fn connections_wait_while_the_process_has_no_descriptors() {
    const ALONE: &str = "REPLEX_TEST_ALONE";
    const NAME: &str = "publish::connections_wait_while_the_process_has_no_descriptors";
    if env::var_os(ALONE).is_none() {
        let mut alone = Command::new(env::current_exe().unwrap());
        let status = alone.args(["--exact", NAME]).env(ALONE, "1").status();
        return assert!(status.unwrap().success());
    }
    let mut guest = Guest::start(&published(&["0:80"]));
    let address = guest.cable().published()[0];
    let socket = guest.listen(80);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, next.try_into().unwrap(), hard).unwrap();
    client.connect(&address.into()).unwrap();
    // When the gateway has refused the second connection, it is done with the first one and with what else it had heard of.
    for _ in 0..2 {
        let refused = guest.connect((net::GATEWAY, 9).into());
        guest.until_state(refused, State::Closed);
    }
    assert_eq!(guest.tcp(socket).state(), State::Listen);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    // Nothing but time passes.
    guest.until_state(socket, State::Established);
}

#[test]
fn the_guest_answers_datagrams() {
    let cable = Cable::plug(&published(&["0:53/udp"]));
    let clients: Vec<_> = (0..3)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut seen = Vec::new();
    for client in &clients {
        client.connect(cable.published()[0]).unwrap();
        client.send(b"question").unwrap();
        let (from, to, question) = cable.expect(packet::parse_udp);
        assert_eq!(question, b"question");
        assert_eq!(to, SocketAddr::from((net::GUEST, 53)));
        assert_eq!(from.ip(), net::GATEWAY);
        seen.push(from);
    }
    // Answered the other way round, and each gets its own.
    for (number, (client, from)) in clients.iter().zip(&seen).enumerate().rev() {
        cable.send(packet::udp((net::GUEST, 53).into(), *from, &[number as u8]));
        let mut answer = [0; 2];
        assert_eq!(client.recv(&mut answer).unwrap(), 1);
        assert_eq!(usize::from(answer[0]), number);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = published(&[&format!("{}:53/udp", address.port())]);
    let Err(error) = Gateway::new(&config) else {
        panic!("the port was free");
    };
    assert_eq!(error.to_string(), format!("cannot publish {address}"));
    assert!(matches!(error, GatewayError::Publish { .. }));
}
