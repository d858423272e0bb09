//! Connections of the guest's.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use net::Config;
use smoltcp::socket::tcp::State;
use socket2::SockRef;

use crate::guest::{Guest, LOOPBACK, host_loopback};

/// Bytes that are the same in each run.
fn pattern(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Serves `count` connections on the host's loopback, one after the other, and returns the port.
fn serve(
    count: usize,
    mut each: impl FnMut(TcpStream) + Send + 'static,
) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        for _ in 0..count {
            each(listener.accept().unwrap().0);
        }
    });
    (port, thread)
}

#[test]
fn downloads_arrive_whole() {
    for mtu in [Config::DEFAULT_MTU, 1500] {
        let data = pattern(8 << 20);
        let sent = data.clone();
        let (port, server) = serve(1, move |mut stream| stream.write_all(&sent).unwrap());
        let mut guest = Guest::start(&Config {
            mtu,
            ..host_loopback()
        });
        let socket = guest.connect_loopback(port);
        let received = guest.receive_all(socket);
        assert!(
            received == data,
            "{} bytes of {}",
            received.len(),
            data.len()
        );
        guest.tcp(socket).close();
        guest.until(|guest| !guest.tcp(socket).is_active());
        server.join().unwrap();
    }
}

#[test]
fn uploads_arrive_whole() {
    for mtu in [Config::DEFAULT_MTU, 1500] {
        let data = pattern(8 << 20);
        let expected = data.clone();
        let (port, server) = serve(1, move |mut stream| {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(received == expected, "{} bytes", received.len());
        });
        let mut guest = Guest::start(&Config {
            mtu,
            ..host_loopback()
        });
        let socket = guest.connect_loopback(port);
        guest.until_state(socket, State::Established);
        guest.send_all(socket, &data);
        guest.tcp(socket).close();
        guest.until(|guest| !guest.tcp(socket).is_active());
        server.join().unwrap();
    }
}

#[test]
fn a_thousand_short_connections() {
    let (port, server) = serve(1000, |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&[byte[0] ^ 0xff]).unwrap();
    });
    let mut guest = Guest::start(&host_loopback());
    for number in 0..1000_u32 {
        let byte = number as u8;
        let socket = guest.connect_loopback(port);
        guest.until_state(socket, State::Established);
        guest.send_all(socket, &[byte]);
        assert_eq!(guest.receive_all(socket), [byte ^ 0xff]);
        guest.tcp(socket).close();
        guest.until(|guest| !guest.tcp(socket).is_active());
        guest.remove(socket);
    }
    server.join().unwrap();
}

#[test]
fn connections_beyond_the_limit_are_refused_and_room_comes_back() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::start(&host_loopback());
    let mut open = guest.fill(&listener);
    let last = open.pop().unwrap();
    guest.end(last);
    let again = guest.connect_loopback(port);
    guest.until(|guest| guest.tcp(again).state() != State::SynSent);
    assert_eq!(guest.tcp(again).state(), State::Established);
}

#[test]
fn the_guest_may_finish_first() {
    let (port, server) = serve(1, |mut stream| {
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        stream
            .write_all(question.to_uppercase().as_bytes())
            .unwrap();
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until_state(socket, State::Established);
    guest.send_all(socket, b"half closed");
    guest.tcp(socket).close();
    assert_eq!(guest.receive_all(socket), b"HALF CLOSED");
    server.join().unwrap();
}

#[test]
fn the_peer_may_finish_first() {
    let (port, server) = serve(1, |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "good bye");
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    assert_eq!(guest.receive_all(socket), b"hello");
    assert_eq!(guest.tcp(socket).state(), State::CloseWait);
    guest.send_all(socket, b"good bye");
    guest.tcp(socket).close();
    guest.until(|guest| !guest.tcp(socket).is_active());
    server.join().unwrap();
}

#[test]
fn a_reset_of_the_peer_resets_the_guest() {
    let (port, server) = serve(1, |stream| {
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until_state(socket, State::Closed);
    server.join().unwrap();
}

#[test]
fn a_peer_that_goes_with_bytes_unread_resets_the_guest() {
    let (full, is_full) = std::sync::mpsc::channel();
    let (port, server) = serve(1, move |stream| {
        is_full.recv().unwrap();
        drop(stream);
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until_state(socket, State::Established);
    // Until nobody has room any more: the window is closed for a while.
    let mut unchanged = 0;
    guest.until(|guest| {
        let sent = guest.tcp(socket).send_slice(&[0; 65536]).unwrap();
        unchanged = if sent == 0 { unchanged + 1 } else { 0 };
        unchanged == 100
    });
    full.send(()).unwrap();
    guest.until_state(socket, State::Closed);
    server.join().unwrap();
    // The gateway serves others.
    let (port, server) = serve(1, |mut stream| stream.write_all(b"x").unwrap());
    let socket = guest.connect_loopback(port);
    assert_eq!(guest.receive_all(socket), b"x");
    server.join().unwrap();
}

#[test]
fn a_reset_of_the_guest_resets_the_peer() {
    let (port, server) = serve(1, |mut stream| {
        stream.write_all(b"x").unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until(|guest| guest.tcp(socket).can_recv());
    guest.tcp(socket).abort();
    guest.until(|_| server.is_finished());
    server.join().unwrap();
}

#[test]
fn refusal_reaches_the_guest() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until_state(socket, State::Closed);
}

#[test]
fn loopback_is_refused_unless_asked_for() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let mut guest = Guest::start(&Config::default());
    for address in ["10.0.2.2", "127.0.0.1", "0.0.0.1", "10.0.2.3"] {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let socket = guest.connect(to);
        guest.until_state(socket, State::Closed);
        guest.remove(socket);
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_guest_that_reads_nothing_stops_the_peer() {
    let (port, server) = serve(1, |mut stream| {
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut sent = 0;
        let data = vec![0; 1 << 20];
        while sent < 256 << 20 {
            match stream.write(&data) {
                Ok(len) => sent += len,
                Err(_) => return,
            }
        }
        panic!("the peer could send {sent} bytes");
    });
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect_loopback(port);
    guest.until_state(socket, State::Established);
    guest.until(|_| server.is_finished());
    server.join().unwrap();
}

#[test]
fn ipv6_connects_to_the_loopback() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return; // a host without IPv6
    };
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(b"six").unwrap());
    let mut guest = Guest::start(&host_loopback());
    let socket = guest.connect((net::GATEWAY_V6, port).into());
    assert_eq!(guest.receive_all(socket), b"six");
    server.join().unwrap();
}
