//! The user network from a program that uses the library: names are resolved by the resolvers that a file of its own names.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    thread,
};

use guest_kernels::{ALIGNMENT, Guest, Stage, fetch, modules_archive};
use tests::hang::PATIENCE;
use vmm::{
    BootSource, Kernel, Machine, Vm, VmConfig,
    console::pipe,
    devices::{
        pci::PciHost,
        virtio::{Net, VirtioDevices},
    },
    loader::{Cache, linux_cmdline},
    net::Config,
    tsc::TscMeter,
};

use crate::guests;

const PROMPT: &str = "root@replex:~# ";

/// The name that the resolver knows.
const NAME: &str = "host.test";

/// Answers a question for the address of [`NAME`] with that of the gateway (RFC 1035, 4. Messages). Other types have none.
fn answer(question: &[u8]) -> Vec<u8> {
    let labels: Vec<u8> = NAME
        .split('.')
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .chain([0])
        .collect();
    let end = 12 + labels.len() + 4;
    let is_known = question[12..].starts_with(&labels);
    let address = is_known && question[end - 4..end] == [0, 1, 0, 1];
    let (rcode, count) = (if is_known { 0 } else { 3 }, u8::from(address));
    let header = [0x81, 0x80 | rcode, 0, 1, 0, count, 0, 0, 0, 0];
    let mut message = [&question[..2], &header, &question[12..end]].concat();
    if address {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(Ipv4Addr::octets(&vmm::net::GATEWAY));
    }
    message
}

/// A resolver on the host's loopback, for as long as the process lives. Returns its port.
fn serve_names() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut question = [0; 600];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            socket.send_to(&answer(&question[..len]), from).unwrap();
        }
    });
    port
}

/// A machine with the card, and its driver.
fn boot(guest: Guest, card: Net) -> Vm {
    let mut devices = VirtioDevices::default();
    devices.add("network", Box::new(card));
    let tsc = TscMeter::start();
    let mut progress = |_: &Stage| ();
    let modules = modules_archive(guest, &devices.linux_modules(), &mut progress).unwrap();
    let images = fetch(guest, &mut progress).unwrap();
    let kernel = fs::read(&images.kernel).unwrap();
    let kernel = Kernel::read(kernel, Cache::of_user().as_ref(), &mut |_| ()).unwrap();
    let mut initrd = fs::read(&images.initrd).unwrap();
    initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
    initrd.extend(modules);
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &linux_cmdline(tsc.khz()),
    };
    let mut vm = Vm::boot(&VmConfig::default(), &source).unwrap();
    let host = devices.into_host(&vmm::Threads::default()).unwrap();
    vm.attach(PciHost::resources(), host).unwrap();
    vm
}

#[test]
fn the_guest_resolves_names_by_the_hosts_file() {
    let guest = Guest::Debian686Pae;
    if guests::release(guest).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nfound by name\n")
            .unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let nameserver = format!("nameserver [127.0.0.1]:{}\n", serve_names());
    fs::write(file.path(), nameserver).unwrap();
    let card = Net::new(&Config {
        host_loopback: true,
        resolv_conf: file.path().into(),
        ..Config::default()
    });
    let (line, mut terminal) = pipe().unwrap();
    let (machine, _) = Machine::start(boot(guest, card.unwrap()), line).unwrap();
    terminal.read_until(PROMPT, PATIENCE).unwrap();
    terminal.send(format!(
        "wget -q -O - http://{NAME}:{port}/; wget -q -O - http://other.test/; echo e'n'd\r"
    ));
    let shown = terminal.read_until("end", PATIENCE).unwrap();
    assert!(shown.contains("found by name"), "{shown}");
    assert!(shown.contains("bad address 'other.test'"), "{shown}");
    let request = server.join().unwrap();
    assert!(
        request.contains(&format!("Host: {NAME}:{port}")),
        "{request}"
    );
    machine.stop();
    machine.join().unwrap();
}
