//! Cables that end at another program's socket: a passt of the test's.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use net::{Stream, StreamError};

use crate::{cable::Cable, hang::until};

/// A socket in a folder of its own.
struct Socket {
    folder: tempfile::TempDir,
}

impl Socket {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("passt.socket")
    }

    /// Connects a cable to it, and returns both ends.
    fn connect(&self) -> (Cable, UnixStream) {
        let listener = UnixListener::bind(self.path()).unwrap();
        let cable = Cable::plug_into(Stream::connect(&self.path()).unwrap());
        (cable, listener.accept().unwrap().0)
    }
}

fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    Some(frame)
}

fn write_frame(stream: &mut UnixStream, frame: &[u8]) {
    let length = (frame.len() as u32).to_be_bytes();
    stream.write_all(&[&length, frame].concat()).unwrap();
}

fn frame(random: &mut fastrand::Rng) -> Vec<u8> {
    let most = if random.u8(..8) == 0 { 65549 } else { 1514 };
    let len = random.usize(14..=most);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[test]
fn frames_go_both_ways_whole_and_in_order() {
    let socket = Socket::new();
    let (cable, mut stream) = socket.connect();
    let echo = thread::spawn(move || {
        while let Some(frame) = read_frame(&mut stream) {
            write_frame(&mut stream, &frame);
        }
    });
    let mut random = fastrand::Rng::with_seed(4);
    let frames: Vec<_> = (0..2000).map(|_| frame(&mut random)).collect();
    let mut received = 0;
    let mut check = |frame: Vec<u8>| {
        assert!(frame == frames[received], "frame {received}");
        received += 1;
        received
    };
    for frame in &frames {
        until(|| {
            cable.has_room()
                || cable
                    .receive(Duration::from_millis(1))
                    .map(&mut check)
                    .is_some()
        });
        cable.send(frame.clone());
    }
    while check(cable.expect(|frame| Some(frame.to_vec()))) < frames.len() {}
    drop(cable);
    echo.join().unwrap();
}

#[test]
fn lengths_and_frames_may_come_in_pieces() {
    let socket = Socket::new();
    let (cable, mut stream) = socket.connect();
    for byte in [&20u32.to_be_bytes()[..], &[9; 20]].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(cable.expect(|frame| Some(frame.to_vec())), [9; 20]);
}

/// Asserts that the link is down, and that the guest's frames go nowhere.
fn assert_down(cable: &Cable) {
    until(|| cable.is_down());
    for _ in 0..1000 {
        until(|| cable.has_room());
        cable.send(vec![1; 60]);
    }
    until(|| cable.has_room());
}

#[test]
fn the_link_is_down_when_the_other_side_has_gone() {
    let socket = Socket::new();
    let (cable, mut stream) = socket.connect();
    write_frame(&mut stream, &[7; 14]);
    assert_eq!(cable.expect(|frame| Some(frame.to_vec())), [7; 14]);
    assert!(!cable.is_down());
    drop(stream);
    assert_down(&cable);
}

#[test]
fn the_link_is_down_when_the_other_side_breaks_the_protocol() {
    for length in [0, 13, 65554, u32::MAX] {
        let socket = Socket::new();
        let (cable, mut stream) = socket.connect();
        write_frame(&mut stream, &[7; 14]);
        stream.write_all(&u32::to_be_bytes(length)).unwrap();
        // What came before is the guest's.
        assert_eq!(cable.expect(|frame| Some(frame.to_vec())), [7; 14]);
        assert_down(&cable);
    }
}

#[test]
fn a_socket_without_listener_is_named() {
    let socket = Socket::new();
    let path = socket.path();
    let refused = |error: StreamError| {
        assert_eq!(
            error.to_string(),
            format!("cannot connect to {}", path.display())
        );
        let source = std::error::Error::source(&error).unwrap();
        source.downcast_ref::<std::io::Error>().unwrap().kind()
    };
    let missing = Stream::connect(&path).err().unwrap();
    assert_eq!(refused(missing), std::io::ErrorKind::NotFound);
    drop(UnixListener::bind(&path).unwrap());
    let nobody = Stream::connect(&path).err().unwrap();
    assert_eq!(refused(nobody), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn frames_wait_while_the_other_side_reads_none() {
    let socket = Socket::new();
    let (cable, mut stream) = socket.connect();
    // More than the socket's buffer holds: in the end the cable is full.
    let mut sent = 0;
    let mut tries = 0;
    while tries < 100 {
        if cable.has_room() {
            cable.send(vec![sent as u8; 60000]);
            (sent, tries) = (sent + 1, 0);
            assert!(sent < 10_000, "no end");
        } else {
            thread::sleep(Duration::from_millis(1));
            tries += 1;
        }
    }
    for number in 0..sent {
        let frame = read_frame(&mut stream).unwrap();
        assert!(frame == vec![number as u8; 60000], "frame {number}");
    }
    assert!(!cable.is_down());
}
