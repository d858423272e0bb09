//! A client of gdb's remote serial protocol (Debugging with GDB, E "gdb Remote Serial Protocol").

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use vmm::gdb::Address;

use crate::support::PATIENCE;

/// Number of EIP.
pub const EIP: usize = 8;
const CTRL_C: &[u8] = &[3];

trait Connection: Read + Write + Send {
    fn set_patience(&self, patience: Duration);
}

impl Connection for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }
}

impl Connection for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }
}

pub struct Client {
    stream: Box<dyn Connection>,
}

impl Client {
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// Connects if somebody listens.
    pub fn try_connect(address: &Address) -> Option<Self> {
        let stream: Box<dyn Connection> = match address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).ok()?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).ok()?),
        };
        stream.set_patience(PATIENCE);
        Some(Self { stream })
    }

    /// Sends bytes as they are. The other side may have gone.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.try_raw(bytes);
    }

    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, contents: impl AsRef<[u8]>) {
        self.raw(&framed(contents.as_ref()));
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Contents of the next packet, whose checksum is right.
    pub fn receive(&mut self) -> String {
        self.try_receive().unwrap()
    }

    pub fn try_receive(&mut self) -> io::Result<String> {
        loop {
            match self.byte()? {
                b'$' => break,
                other => assert_eq!(other, b'+', "between packets"),
            }
        }
        let mut contents = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => contents.push(byte),
            }
        }
        let sum = [self.byte()?, self.byte()?];
        let framed = framed(&contents);
        assert!(framed.ends_with(&sum), "{framed:?} {sum:?}");
        Ok(String::from_utf8(expanded(&contents)).unwrap())
    }

    pub fn ask(&mut self, contents: impl AsRef<[u8]>) -> String {
        self.send(contents);
        self.receive()
    }

    /// Fails unless nothing comes in `wait`.
    pub fn assert_silent(&mut self, wait: Duration) {
        self.stream.set_patience(wait);
        let error = self.byte().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        self.stream.set_patience(PATIENCE);
    }

    /// Fails unless the connection has ended.
    pub fn assert_closed(&mut self) {
        loop {
            match self.byte() {
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "still open");
                    return;
                }
            }
        }
    }

    /// Sends a request that is answered with OK.
    #[track_caller]
    pub fn order(&mut self, contents: impl AsRef<[u8]>) {
        assert_eq!(self.ask(contents), "OK");
    }

    /// Goes on until the machine stops.
    pub fn go_on(&mut self) -> String {
        self.ask("vCont;c")
    }

    pub fn step(&mut self) -> String {
        self.ask("vCont;s")
    }

    pub fn interrupt(&mut self) -> String {
        self.raw(CTRL_C);
        self.receive()
    }

    /// A register by its number, up to 32 bits of it.
    pub fn register(&mut self, number: usize) -> u32 {
        let bytes = unhex(&self.ask(format!("p{number:x}")));
        u32::from_le_bytes(*bytes.first_chunk().unwrap())
    }

    pub fn set_register(&mut self, number: usize, value: &[u8]) {
        self.order(format!("P{number:x}={}", hex(value)));
    }

    pub fn eip(&mut self) -> u32 {
        self.register(EIP)
    }

    pub fn read(&mut self, address: u32, len: usize) -> Vec<u8> {
        unhex(&self.ask(format!("m{address:x},{len:x}")))
    }

    pub fn read_word(&mut self, address: u32) -> u32 {
        u32::from_le_bytes(self.read(address, 4).try_into().unwrap())
    }

    pub fn write(&mut self, address: u32, bytes: &[u8]) {
        self.order(format!("M{address:x},{:x}:{}", bytes.len(), hex(bytes)));
    }

    /// The text that a monitor command shows.
    pub fn monitor(&mut self, command: &str) -> String {
        self.send(format!("qRcmd,{}", hex(command.as_bytes())));
        let mut shown = String::new();
        loop {
            let packet = self.receive();
            match packet.strip_prefix('O') {
                Some("K") => return shown,
                Some(text) => shown.push_str(&String::from_utf8(unhex(text)).unwrap()),
                None => panic!("{packet}"),
            }
        }
    }

    /// Kills the machine.
    pub fn kill(mut self) {
        self.send("k");
    }
}

/// Takes back run-length encoding (E.1 "Overview"): behind `*`, the number of repetitions plus 29.
fn expanded(contents: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = contents.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'*' => {
                let times = usize::from(bytes.next().unwrap() - 29);
                let last = *plain.last().unwrap();
                plain.resize(plain.len() + times, last);
            }
            byte => plain.push(byte),
        }
    }
    plain
}

pub fn framed(contents: &[u8]) -> Vec<u8> {
    let sum = contents
        .iter()
        .fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    [b"$", contents, format!("#{sum:02x}").as_bytes()].concat()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
pub fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(digits))
        .collect()
}
