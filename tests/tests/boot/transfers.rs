//! A large file by the user network, both ways, with its checksum.
//!
//! `REPLEX_TRANSFER_MIB=200` is for larger ones, and prints how fast they were.

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use guest_kernels::Guest;
use sha2::{Digest, Sha256};
use tests::report::report;

use crate::program::Boot;

/// Its size in MiB unless the environment says otherwise.
const MIB: usize = 16;

/// The file, a piece of a MiB at a time.
fn pieces(mib: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(200);
    (0..mib).map(move |_| {
        let mut piece = vec![0; 1 << 20];
        random.fill(&mut piece);
        piece
    })
}

/// Answers one request with the file, and returns the time in seconds.
fn send(mut stream: TcpStream, mib: usize) -> f64 {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap();
    assert!(request[..length].starts_with(b"GET "));
    let start = Instant::now();
    let length = mib << 20;
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    for piece in pieces(mib) {
        stream.write_all(&piece).unwrap();
    }
    start.elapsed().as_secs_f64()
}

/// Takes all bytes, and returns their checksum and the time in seconds.
fn take(mut stream: TcpStream) -> (String, f64) {
    let mut sum = Sha256::new();
    let start = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return (hexadecimal(sum), start.elapsed().as_secs_f64()),
            len => sum.update(&buffer[..len]),
        }
    }
}

fn hexadecimal(sum: Sha256) -> String {
    sum.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn there_and_back(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let asked = env::var("REPLEX_TRANSFER_MIB").ok();
    let mib = asked
        .as_ref()
        .map_or(MIB, |asked| asked.parse::<usize>().unwrap());
    let mut sum = Sha256::new();
    pieces(mib).for_each(|piece| sum.update(piece));
    let sum = hexadecimal(sum);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let sent = send(listener.accept().unwrap().0, mib);
        (sent, take(listener.accept().unwrap().0))
    });
    let ended = boot
        .with("--net", "user,host-loopback")
        .with("--mem", &format!("{}M", 256 + 2 * mib))
        .exec(&format!(
            "wget -q -O /tmp/file http://10.0.2.2:{port}/
             sha256sum < /tmp/file
             nc 10.0.2.2 {port} < /tmp/file"
        ));
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), format!("{sum}  -\n"));
    let (down, (taken, up)) = server.join().unwrap();
    assert_eq!(taken, sum);
    if asked.is_some() {
        let speed = |seconds: f64| mib as f64 / seconds;
        let (down, up) = (speed(down), speed(up));
        report(&format!(
            "{guest}: {mib} MiB, to the guest {down:.0} MiB/s, from it {up:.0} MiB/s"
        ));
    }
}

#[test]
fn debian_686_transfers_a_large_file() {
    there_and_back(Guest::Debian686);
}

#[test]
fn debian_686_pae_transfers_a_large_file() {
    there_and_back(Guest::Debian686Pae);
}
