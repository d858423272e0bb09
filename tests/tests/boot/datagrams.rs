//! Datagrams as large as they can be, to the host and back: a file by TFTP (RFC 1350) in blocks that IP sends in fragments.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
};

use guest_kernels::Guest;

use crate::program::Boot;

/// The size of a block in bytes. With the headers it is larger than the link's packets.
const BLOCK: usize = 65500;

/// A server for one file, which is kept as it was sent.
struct Server {
    socket: UdpSocket,
    file: Vec<u8>,
    /// The number of blocks that have come.
    blocks: u16,
}

impl Server {
    fn serve(mut self) {
        let mut packet = vec![0; 1 << 16];
        while let Ok((len, from)) = self.socket.recv_from(&mut packet) {
            let ([_, operation, rest @ ..], true) = (&packet[..len], len >= 4) else {
                continue;
            };
            let number = u16::from_be_bytes([rest[0], rest[1]]);
            match operation {
                1 => self.agree(from),
                2 => {
                    (self.blocks, self.file) = (0, Vec::new());
                    self.agree(from);
                }
                3 => {
                    // One that is sent again is acknowledged again.
                    if number == self.blocks + 1 {
                        self.blocks = number;
                        self.file.extend(&rest[2..]);
                    }
                    self.send(from, 4, number, &[]);
                }
                _ => {
                    let (start, end) = (usize::from(number) * BLOCK, self.file.len());
                    if start <= end {
                        let block = &self.file[start..end.min(start + BLOCK)];
                        self.send(from, 3, number + 1, block);
                    }
                }
            }
        }
    }

    /// Agrees to blocks of that size (RFC 2348).
    fn agree(&self, to: SocketAddr) {
        let message = [b"\0\x06blksize\0", BLOCK.to_string().as_bytes(), b"\0"].concat();
        self.socket.send_to(&message, to).unwrap();
    }

    fn send(&self, to: SocketAddr, operation: u8, number: u16, data: &[u8]) {
        let message = [&[0, operation], &number.to_be_bytes()[..], data].concat();
        self.socket.send_to(&message, to).unwrap();
    }
}

#[test]
fn the_largest_datagrams_go_to_the_host_and_back() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = Server {
        socket,
        file: Vec::new(),
        blocks: 0,
    };
    thread::spawn(|| server.serve());
    let ended = boot.with("--net", "user,host-loopback").exec(&format!(
        "head -c 150000 /dev/urandom > /tmp/there
         tftp -p -b {BLOCK} -l /tmp/there -r file 10.0.2.2 {port}
         tftp -g -b {BLOCK} -l /tmp/back -r file 10.0.2.2 {port}
         cmp /tmp/there /tmp/back && echo the same"
    ));
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), "the same\n");
}
