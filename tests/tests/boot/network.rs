//! The user network, by Linux's own driver and busybox's programs, with servers on this host's loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use guest_kernels::Guest;
use socket2::SockRef;
use tests::report::report;

use crate::program::{Boot, Ended};

/// The bytes that are sent and fetched.
fn pattern() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(13);
    // busybox wget sends files up to a zero byte.
    std::iter::repeat_with(|| random.u8(1..))
        .take(8 << 20)
        .collect()
}

/// Answers each of `count` connections by `each`.
fn serve(
    count: usize,
    mut each: impl FnMut(TcpStream) + Send + 'static,
) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for _ in 0..count {
            each(listener.accept().unwrap().0);
        }
    });
    (port, server)
}

/// Reads the lines of a request's header.
fn read_header(reader: &mut impl BufRead) -> Vec<String> {
    let lines = reader.lines().map(Result::unwrap);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// Answers a request for a file, and compares what is sent with a request.
fn answer(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let header = read_header(&mut reader);
    let length = header.iter().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let body = match length {
        Some(length) => {
            let mut sent = vec![0; length];
            reader.read_exact(&mut sent).unwrap();
            format!("{}\n", sent == pattern()).into_bytes()
        }
        None => pattern(),
    };
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body).unwrap();
}

/// A file server for one file of one block (RFC 1350).
fn serve_tftp() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut request = [0; 600];
        while let Ok((len, from)) = socket.recv_from(&mut request) {
            if request[..len].starts_with(&[0, 1]) {
                socket.send_to(b"\0\x03\0\x01by datagrams\n", from).unwrap();
            }
        }
    });
    port
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn assert_lines(ended: &Ended, expected: &[&str]) {
    assert_eq!(ended.stderr, "");
    let text = ended.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, expected);
}

/// Fetches and sends a file, by connections and datagrams, and meets what is not there.
fn to_the_host(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let (port, server) = serve(3, answer);
    let (tftp, closed) = (serve_tftp(), closed_port());
    let ended = boot.with("--net", "user,host-loopback").exec(&format!(
        "ip addr show lo | grep -o 'inet 127.0.0.1/8'
         ip addr show eth0 | grep -o 'inet 10.0.2.15/24'
         ip route | grep -o 'default via 10.0.2.2'
         cat /etc/resolv.conf
         ping -c 1 -q 10.0.2.2 | grep -o ' 0% packet loss'
         wget -q -O /tmp/fetched http://10.0.2.2:{port}/
         wget -q -O - --post-file /tmp/fetched http://10.0.2.2:{port}/
         wget -q -O - http://10.0.2.2:{port}/ | cmp - /tmp/fetched && echo the same
         tftp -g -r file -l - 10.0.2.2 {tftp}
         wget -q http://10.0.2.2:{closed}/ 2>&1
         nc -w 60 127.0.0.1 {port} 2>&1"
    ));
    let refused = "wget: can't connect to remote host (10.0.2.2): Connection refused";
    let expected = [
        "inet 127.0.0.1/8",
        "inet 10.0.2.15/24",
        "default via 10.0.2.2",
        "nameserver 10.0.2.3",
        " 0% packet loss",
        "true",
        "the same",
        "by datagrams",
        refused,
        // The guest has a loopback of its own.
        "nc: can't connect to remote host (127.0.0.1): Connection refused",
    ];
    assert_lines(&ended, &expected);
    server.join().unwrap();
}

#[test]
fn debian_686_reaches_the_hosts_loopback() {
    to_the_host(Guest::Debian686);
}

#[test]
fn debian_686_pae_reaches_the_hosts_loopback() {
    to_the_host(Guest::Debian686Pae);
}

#[test]
fn the_hosts_loopback_is_out_of_reach_unless_asked_for() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ended = boot
        .with("--net", "user")
        .exec(&format!("nc 10.0.2.2 {port} 2>&1; nc 10.0.2.3 {port} 2>&1"));
    let refused =
        |address| format!("nc: can't connect to remote host ({address}): Connection refused");
    assert_lines(&ended, &[&refused("10.0.2.2"), &refused("10.0.2.3")]);
    assert!(listener.accept().is_err());
}

#[test]
fn the_guest_serves_a_published_port() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let published = closed_port();
    // The guest connects when its server is there, and then waits until this closes the connection.
    let (port, client) = serve(1, move |ready| {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(("127.0.0.1", published)).unwrap();
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            assert!(
                answer.ends_with("\r\n\r\nserved by the guest\n"),
                "{answer}"
            );
        }
        drop(ready);
    });
    let ended = boot
        .with("--net", "user,host-loopback")
        .with("--publish", &format!("{published}:80"))
        .exec(&format!(
            "echo served by the guest > /tmp/page
             httpd -p 80 -h /tmp
             nc 10.0.2.2 {port} < /dev/null
             echo done"
        ));
    assert_lines(&ended, &["done"]);
    client.join().unwrap();
}

/// Servers that vanish: before the answer, and in the middle of it.
#[test]
fn a_server_that_vanishes_is_a_clean_error() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let mut count = 0;
    let (port, server) = serve(2, move |mut stream| {
        count += 1;
        if count == 2 {
            let mut reader = BufReader::new(&stream);
            read_header(&mut reader);
            stream
                .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                .unwrap();
            stream.write_all(&[7; 100_000]).unwrap();
            // It ends by a reset.
            let socket = SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let ended = boot.with("--net", "user,host-loopback").exec(&format!(
        "wget -q -O /dev/null http://10.0.2.2:{port}/ 2> /tmp/first; echo $?
         wget -q -O /dev/null http://10.0.2.2:{port}/ 2> /tmp/second; echo $?
         grep -c '^wget: ' /tmp/first
         grep -c '^wget: ' /tmp/second
         ping -c 1 -q 10.0.2.2 | grep -o ' 0% packet loss'"
    ));
    assert_lines(&ended, &["1", "1", "1", "1", " 0% packet loss"]);
    server.join().unwrap();
}

/// The prefix comes by a router advertisement, and the guest makes its address of it.
#[test]
fn the_guest_reaches_the_hosts_loopback_by_ipv6() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        report("skipped: the host has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || answer(listener.accept().unwrap().0));
    let ended = boot.with("--net", "user,host-loopback").exec(&format!(
        "address() {{ ip -6 addr show dev eth0 | grep 'inet6 fec0::' | grep -v tentative; }}
         until address > /dev/null; do sleep 0.1; done
         ip -6 route | grep -o 'default via fe80::2'
         ping -6 -c 1 -q fec0::2 | grep -o ' 0% packet loss'
         wget -q -O - http://[fec0::2]:{port}/ | wc -c"
    ));
    let size = (8 << 20).to_string();
    assert_lines(&ended, &["default via fe80::2", " 0% packet loss", &size]);
    server.join().unwrap();
}

#[test]
fn a_thousand_short_connections_of_the_guest() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let (port, server) = serve(1000, |mut stream| {
        stream.write_all(b"x").unwrap();
    });
    let ended = boot.with("--net", "user,host-loopback").exec(&format!(
        "for i in $(seq 1000); do nc 10.0.2.2 {port} < /dev/null; done | wc -c"
    ));
    assert_lines(&ended, &["1000"]);
    server.join().unwrap();
}
