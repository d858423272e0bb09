//! A hostile driver: random rings, requests, registers and resets. The device survives, and serves the next driver.
//!
//! A fixed seed by default; `REPLEX_FUZZ_SECONDS=600` goes on for that long with each device, with new seeds, and
//! `REPLEX_FUZZ_SEED=0x…` repeats one, as far as the device's thread comes at the same times.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fuse::{Config, Server};
use sbe::Width;

use super::{
    driver::{
        BASE, DRIVER_OK, Descriptor, Driver, INDIRECT, ISR, NEEDS_RESET, NEXT, NOTIFY, RAM, STATUS,
        VERSION_1, WRITE,
    },
    fuzz::more_seeds,
};
use crate::devices::virtio::{ConsolePort, Disk, Fs, Net, Rng, VirtioConsole, VirtioDevice};

/// The places of the rings of queue n, at n times [`STRIDE`]: descriptors, available and used ring, and tables elsewhere.
const RINGS: u64 = 0x20_0000;
const STRIDE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const TABLES: u64 = 0x3000;
/// Memory for buffers.
const BUFFERS: u64 = 0x30_0000;
const BUFFERS_LEN: u64 = 0x4_0000;
/// The number of descriptors of a queue.
const SIZE: u16 = 16;
/// The number of steps with one seed.
const STEPS: usize = 2000;
/// The configuration register with the place of the function's ports.
const BAR: u32 = 0x10;
/// The time after which a device has hung.
const HUNG: Duration = Duration::from_secs(300);

/// A kind of device, and how its driver sees that it works.
struct Kind {
    queues: u16,
    /// The features of the device type that are sometimes accepted.
    features: u64,
    /// Makes a device with what it needs in a folder.
    make: fn(&Path) -> Box<dyn VirtioDevice>,
    /// Requests that are begun with: each a header.
    headers: fn(&mut fastrand::Rng) -> Vec<u8>,
    /// A well-formed request: what is readable of it, the room, and its queue. If there are two queues the other one has room.
    request: (&'static [u8], u32, u16),
}

struct Fuzzer<'a> {
    kind: &'a Kind,
    random: fastrand::Rng,
    driver: Driver,
    available: Vec<u16>,
}

impl Fuzzer<'_> {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.random.u8(..))
            .take(len)
            .collect()
    }

    /// The address of something.
    fn address(&mut self) -> u64 {
        let within = self.random.u64(..BUFFERS_LEN);
        match self.random.u8(..32) {
            0 => self.random.u64(..),
            1 => RAM - self.random.u64(..32),
            2 => RINGS + self.random.u64(..2 * STRIDE),
            3 => 0xa_0000 + self.random.u64(..0x6_0000),
            4..8 => BUFFERS,
            _ => BUFFERS + within,
        }
    }

    fn descriptor(&mut self, queue: u16, at: u16) -> Descriptor {
        let len = match self.random.u8(..16) {
            0 => self.random.u32(..),
            1..4 => self.random.u32(..0x1_0000),
            4..8 => *self.random.choice(&[0, 1, 12, 16, 40, 512]).unwrap(),
            _ => self.random.u32(..1024),
        };
        if self.random.u8(..8) == 0 {
            let table = RINGS + STRIDE * u64::from(queue) + TABLES;
            let len = 16 * self.random.u32(..20) + u32::from(self.random.u8(..8) == 0);
            return (table + 16 * self.random.u64(..4), len, INDIRECT, 0);
        }
        let more = self.random.u8(..3) != 0;
        let next = match self.random.u8(..16) {
            0 => self.random.u16(..),
            1 => self.random.u16(..SIZE),
            _ => at + 1,
        };
        let mut flags = if more { NEXT } else { 0 };
        // Later ones are written to more often, as they should be.
        if self.random.u16(..SIZE) < at * 3 {
            flags |= WRITE;
        }
        if self.random.u8(..64) == 0 {
            flags ^= self.random.u16(..8);
        }
        (self.address(), len, flags, next)
    }

    fn fill_tables(&mut self, queue: u16) {
        let base = RINGS + STRIDE * u64::from(queue);
        for (table, count) in [(base, SIZE), (base + TABLES, 24)] {
            let descriptors: Vec<_> = (0..count).map(|at| self.descriptor(queue, at)).collect();
            self.driver.table(table, &descriptors);
        }
        let header = (self.kind.headers)(&mut self.random);
        self.driver.store(BUFFERS, &header);
    }

    /// Makes a chain available.
    fn offer(&mut self, queue: u16) {
        let ring = RINGS + STRIDE * u64::from(queue) + AVAILABLE;
        let head = match self.random.u8(..32) {
            0 => self.random.u16(..),
            1..16 => 0,
            _ => self.random.u16(..SIZE),
        };
        let index = &mut self.available[usize::from(queue)];
        let slot = ring + 4 + 2 * u64::from(*index % SIZE);
        *index = index.wrapping_add(1);
        if self.random.u8(..128) == 0 {
            *index = self.random.u16(..);
        }
        let index = *index;
        self.driver.store(slot, &head.to_le_bytes());
        self.driver.store(ring + 2, &index.to_le_bytes());
    }

    /// Changes what the driver wants to be told: by flags, or by an index.
    fn change_wishes(&mut self, queue: u16) {
        let ring = RINGS + STRIDE * u64::from(queue) + AVAILABLE;
        let wish = self.random.u16(..).to_le_bytes();
        let place = if self.random.bool() {
            ring
        } else {
            ring + 4 + 2 * u64::from(SIZE)
        };
        self.driver.store(place, &wish);
    }

    /// Resets the device and starts it with some features. Returns whether it agrees with them.
    fn start(&mut self) -> bool {
        let rings = *self.random.choice(&[0, 1 << 28, 1 << 29, 3 << 28]).unwrap();
        let own = self.kind.features & self.random.u64(..);
        if !self.driver.negotiate(VERSION_1 | rings | own) {
            return false;
        }
        self.place_queues();
        true
    }

    /// Places the queues with cleared rings and tables, and lets the device begin.
    fn place_queues(&mut self) {
        for queue in 0..self.kind.queues {
            let base = RINGS + STRIDE * u64::from(queue);
            self.driver
                .store(base, &vec![0; (TABLES + 0x1000) as usize]);
            let places = [base, base + AVAILABLE, base + USED];
            self.driver.place_queue_at(queue, SIZE, places);
        }
        self.available.fill(0);
        self.driver.write(STATUS, Width::Byte, DRIVER_OK);
    }

    fn step(&mut self) {
        let queue = self.random.u16(..self.kind.queues);
        match self.random.u8(..64) {
            0 => drop(self.start()),
            1 => self.driver.write(STATUS, Width::Byte, 0),
            2 => {
                let register = self.random.u16(..0x100);
                let value = self.random.u32(..);
                self.driver.write(register, Width::Dword, value);
            }
            3 => {
                let register = self.random.u16(..0x100);
                let value = self.random.u16(..).into();
                self.driver.write(register, Width::Word, value);
            }
            4 => {
                // The bus master bit, among others.
                let command = self.random.u32(..8);
                self.driver.pci_write(4, command | 1);
            }
            5 => drop(self.driver.board.save()),
            6 => {
                // Places of the function's ports, the window to its registers, and all other registers.
                let register = 4 * self.random.u32(..64);
                let value = self.random.u32(..);
                self.driver.pci_write(register, value);
            }
            7..10 => self.change_wishes(queue),
            10..14 => {
                let (address, len) = (self.address(), self.random.usize(..64));
                let bytes = self.bytes(len);
                if (BUFFERS..RAM - 64).contains(&address) {
                    self.driver.store(address, &bytes);
                }
            }
            14..30 => self.fill_tables(queue),
            30..58 => {
                self.offer(queue);
                let register = u32::from(queue);
                self.driver.write(NOTIFY, Width::Word, register);
            }
            _ => {
                self.driver.read(ISR, Width::Byte);
                self.driver.board.advance_devices();
            }
        }
        if self.random.u8(..4) == 0 && self.driver.status() & NEEDS_RESET != 0 {
            self.start();
        }
    }

    /// Asserts that the device serves a driver that knows the rules.
    fn assert_serves(&mut self, seed: u64) {
        let (readable, room, queue) = self.kind.request;
        self.driver.pci_write(BAR, BASE.into());
        assert!(self.driver.negotiate(VERSION_1), "seed {seed:#x}");
        self.place_queues();
        self.driver.store(BUFFERS, readable);
        for number in 0..self.kind.queues {
            let base = RINGS + STRIDE * u64::from(number);
            let mut chain = vec![];
            if number == queue && !readable.is_empty() {
                let flags = if room > 0 { NEXT } else { 0 };
                chain.push((BUFFERS, readable.len() as u32, flags, 1));
            }
            if number != queue || room > 0 {
                chain.push((BUFFERS + 0x1000, room.max(2048), WRITE, 0));
            }
            self.driver.table(base, &chain);
            if number == queue || self.kind.queues == 2 && room == 0 {
                self.driver.store(base + AVAILABLE + 2, &[1, 0]);
                self.driver.write(NOTIFY, Width::Word, number.into());
            }
        }
        let used = RINGS + STRIDE * u64::from(queue) + USED + 2;
        let start = Instant::now();
        while self.driver.u16_at(used) != 1 {
            assert!(start.elapsed() < HUNG, "seed {seed:#x}");
            assert_eq!(self.driver.status() & NEEDS_RESET, 0, "seed {seed:#x}");
            self.driver.board.advance_devices();
            thread::yield_now();
        }
    }
}

/// Drives a device by one seed.
fn drive(kind: &Kind, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut fuzzer = Fuzzer {
        kind,
        random: fastrand::Rng::with_seed(seed),
        driver: Driver::new((kind.make)(folder.path())),
        available: vec![0; kind.queues.into()],
    };
    fuzzer.start();
    for step in 0..STEPS {
        fuzzer.step();
        if step % 500 == 499 {
            fuzzer.assert_serves(seed);
            fuzzer.start();
        }
    }
}

fn fuzz(kind: &Kind) {
    for seed in 0..4 {
        drive(kind, seed);
    }
    more_seeds(|seed| drive(kind, seed));
}

#[test]
fn an_entropy_device_survives() {
    fuzz(&Kind {
        queues: 1,
        features: 0,
        make: |_| Box::<Rng>::default(),
        headers: |_| Vec::new(),
        request: (&[], 64, 0),
    });
}

/// Types of requests (VIRTIO 1.2, 5.2.6 Device Operation): read, write, flush, get ID, discard, write zeroes.
const TYPES: [u32; 6] = [0, 1, 4, 8, 11, 13];

fn disk(folder: &Path, name: &str) -> Box<dyn VirtioDevice> {
    let path = folder.join("image");
    fs::write(&path, vec![7; 256 << 10]).unwrap();
    let config = format!("{}{name}", path.display()).parse().unwrap();
    Box::new(Disk::open(&config).unwrap())
}

fn disk_header(random: &mut fastrand::Rng) -> Vec<u8> {
    let kind = random.choice(TYPES).unwrap();
    let sector = match random.u8(..8) {
        0 => random.u64(..),
        _ => random.u64(..520),
    };
    let header = u64::from(kind).to_le_bytes();
    // A segment of a discard may follow at once.
    let (sectors, flags) = (random.u32(..600), random.u32(..2));
    [
        &header[..],
        &sector.to_le_bytes(),
        &random.u64(..600).to_le_bytes(),
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

#[test]
fn a_disk_survives() {
    for make in [
        (|folder| disk(folder, "")) as fn(&Path) -> _,
        |folder| disk(folder, ",snapshot"),
        |folder| disk(folder, ",ro"),
    ] {
        fuzz(&Kind {
            queues: 1,
            features: u64::from(u32::MAX >> 8),
            make,
            headers: disk_header,
            request: (&[0; 16], 513, 0),
        });
    }
}

/// A card whose cable leads to a socket where all frames come back.
fn card(folder: &Path) -> Box<dyn VirtioDevice> {
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let card = Net::connect_to(&path).unwrap();
    let mut stream = listener.accept().unwrap().0;
    thread::spawn(move || {
        let mut buffer = vec![0; 0x1_0000];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    });
    Box::new(card)
}

#[test]
fn a_network_card_survives() {
    fuzz(&Kind {
        queues: 2,
        features: u64::from(u32::MAX >> 8),
        make: card,
        headers: |random| {
            let len = random.usize(..100);
            [
                &[0; 12][..],
                &std::iter::repeat_with(|| random.u8(..))
                    .take(len)
                    .collect::<Vec<_>>(),
            ]
            .concat()
        },
        request: (&[0; 12 + 60], 0, 1),
    });
}

/// A console with a terminal and two ports.
fn console(_: &Path) -> Box<dyn VirtioDevice> {
    let zeroes = || File::open("/dev/zero").unwrap();
    let sink = || File::options().write(true).open("/dev/null").unwrap();
    Box::new(VirtioConsole::new(vec![
        ConsolePort::console("tty").input(zeroes()).output(sink()),
        ConsolePort::generic("in").input(zeroes()),
        ConsolePort::generic("out").output(sink()),
    ]))
}

#[test]
fn a_console_survives() {
    fuzz(&Kind {
        queues: 8,
        features: 0b11,
        make: console,
        // Control messages (VIRTIO 1.2, 5.3.6.2 Multiport Device Operation): port, event and value.
        headers: |random| {
            let (port, event, value) = (random.u32(..4), random.u16(..9), random.u16(..2));
            let rest = [event.to_le_bytes(), value.to_le_bytes()].concat();
            [&port.to_le_bytes(), &rest[..]].concat()
        },
        // The driver is ready.
        request: (&[0, 0, 0, 0, 0, 0, 1, 0], 0, 3),
    });
}

/// INIT (fuse.h, struct fuse_in_header and fuse_init_in): 104 bytes, number 26, version 7.38.
const FUSE_INIT: [u8; 56] = {
    let mut request = [0; 56];
    request[0] = 56;
    request[4] = 26;
    request[40] = 7;
    request[44] = 38;
    request
};

fn fuse_header(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut request = match random.u8(..4) {
        0 => FUSE_INIT.to_vec(),
        _ => {
            let len = random.u8(40..200);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(len.into())
                .collect();
            bytes[..16].fill(0);
            (bytes[0], bytes[4]) = (len, random.u8(1..50));
            // A node that there is.
            bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
            bytes
        }
    };
    if random.u8(..16) == 0 {
        let at = random.usize(..40);
        request[at] = random.u8(..);
    }
    request
}

#[test]
fn a_shared_directory_survives() {
    fuzz(&Kind {
        queues: 2,
        features: 0,
        make: |folder| {
            for name in ["a", "b"] {
                fs::write(folder.join(name), name).unwrap();
            }
            // So that no request fills the host's disk.
            let config = Config {
                read_only: true,
                ..Config::default()
            };
            Box::new(Fs::new("tag", Server::new(folder, config).unwrap()).unwrap())
        },
        headers: fuse_header,
        request: (&FUSE_INIT, 256, 1),
    });
}
