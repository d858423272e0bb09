//! The network of another program, by the Unix socket of passt's protocol: one of the test's own, and passt where it is installed.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use guest_kernels::Guest;
use tests::{hang::Guarded, report::report};
use vmm::net::{Backend, Checksum, Config, Gateway, Waker, Wire};

use crate::program::Boot;

/// The guest's end of the wire, at the other side of a socket.
struct Socket {
    stream: UnixStream,
    received: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Wire for Socket {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        let next = self.received.lock().unwrap().pop_front();
        next.map(|next| *frame = next).is_some()
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn send(&mut self, frame: &mut [u8], checksum: Checksum) {
        checksum.complete(frame);
        let length = (frame.len() as u32).to_be_bytes();
        // The guest may be gone.
        let _ = self.stream.write_all(&[&length, &*frame].concat());
    }
}

/// Reads frames until the other side closes the connection.
fn read_frames(mut stream: UnixStream, received: &Mutex<VecDeque<Vec<u8>>>, waker: &Waker) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        received.lock().unwrap().push_back(frame);
        waker.wake();
    }
}

/// Serves a gateway at the first connection to the listener, until `closed` is set.
fn serve(listener: &UnixListener, closed: &AtomicBool) {
    let stream = listener.accept().unwrap().0;
    let mut gateway = Gateway::new(&Config {
        host_loopback: true,
        ..Config::default()
    })
    .unwrap();
    let received = Arc::<Mutex<VecDeque<_>>>::default();
    let mut wire = Socket {
        stream: stream.try_clone().unwrap(),
        received: Arc::clone(&received),
    };
    let (ours, waker) = (stream.try_clone().unwrap(), gateway.waker());
    let reader = thread::spawn(move || read_frames(ours, &received, &waker));
    while !closed.load(SeqCst) {
        gateway.turn(&mut wire);
        gateway.wait().unwrap();
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    reader.join().unwrap();
}

/// The guest gets its address and a page; then its network is unplugged.
#[test]
fn a_guest_on_another_programs_network() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passt.socket");
    let listener = UnixListener::bind(&path).unwrap();
    let closed = Arc::<AtomicBool>::default();
    let theirs = Arc::clone(&closed);
    let passt = thread::spawn(move || serve(&listener, &theirs));
    let pages = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = pages.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for last in [false, true] {
            let mut stream = pages.accept().unwrap().0;
            let length = stream.read(&mut [0; 4096]).unwrap();
            assert!(length > 0);
            closed.store(last, SeqCst);
            let _ = stream.write_all(&[&b"HTTP/1.0 200 OK\r\n\r\n"[..], &[7; 1 << 20]].concat());
        }
    });
    let ended = boot
        .with("--net", &format!("passt={}", path.display()))
        .exec(&format!(
            "ip addr show eth0 | grep -o 'inet 10.0.2.15/24'
             wget -q -O - http://10.0.2.2:{port}/ | wc -c
             cat /sys/class/net/eth0/carrier
             wget -q -O - http://10.0.2.2:{port}/ > /dev/null &
             until grep -q 0 /sys/class/net/eth0/carrier; do sleep 0.1; done
             ping -c 1 -W 1 10.0.2.2 > /dev/null || echo unplugged"
        ));
    let expected = ["inet 10.0.2.15/24", "1048576", "1", "unplugged"];
    assert_eq!(ended.text().lines().collect::<Vec<_>>(), expected);
    let complaint = format!(
        "{}: the other side has closed the connection; the guest's link is down",
        path.display()
    );
    assert!(ended.stderr.contains(&complaint), "{}", ended.stderr);
    passt.join().unwrap();
    server.join().unwrap();
}

/// Starts passt in the foreground, and waits for its socket.
fn start_passt(socket: &Path) -> Option<Guarded> {
    let mut passt = Command::new("passt");
    passt.args(["--foreground", "--one-off", "--quiet", "--socket"]);
    let mut child = passt.arg(socket).spawn().ok()?;
    while !socket.exists() {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    Some(Guarded::new(child))
}

#[test]
fn a_guest_on_the_network_of_passt() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    if Command::new("passt").arg("--version").output().is_err() {
        report("skipped: passt is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passt.socket");
    let Some(passt) = start_passt(&path) else {
        report("skipped: passt does not run here");
        return;
    };
    let ended = boot
        .with("--net", &format!("passt={}", path.display()))
        .exec("ip addr show eth0 | grep -c 'inet '; ip route | grep -c default");
    assert_eq!(ended.text(), "1\n1\n");
    passt.wait();
}
