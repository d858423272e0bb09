//! [`Guest`]: a TCP/IP stack at the guest's end of a cable.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use net::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv6Address},
};

use crate::{cable::Cable, hang::HUNG};

/// The guest's Ethernet address.
pub const MAC: EthernetAddress = EthernetAddress(Config::DEFAULT_MAC);
/// The guest's IPv6 address.
pub const GUEST_V6: Ipv6Address = Ipv6Address::new(0xfec0, 0, 0, 0, 0, 0, 0, 0x15);

/// A guest with a stack.
pub struct Guest {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    epoch: Instant,
    next_port: u16,
}

struct Port {
    cable: Cable,
    mtu: usize,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a Cable);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.cable.receive(Duration::ZERO)?;
        Some((Rx(frame), Tx(&self.cable)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        self.cable.has_room().then_some(Tx(&self.cable))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

impl Guest {
    /// Starts a gateway and a guest with the address that DHCP would give it.
    pub fn start(config: &Config) -> Self {
        let mut port = Port {
            cable: Cable::plug(config),
            mtu: config.mtu.into(),
        };
        let mut options = smoltcp::iface::Config::new(HardwareAddress::Ethernet(MAC));
        options.random_seed = 1;
        let epoch = Instant::now();
        let mut interface = Interface::new(options, &mut port, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(net::GUEST.into(), 24)).unwrap();
            addresses.push(IpCidr::new(GUEST_V6.into(), 64)).unwrap();
        });
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route(net::GATEWAY).unwrap();
        routes.add_default_ipv6_route(net::GATEWAY_V6).unwrap();
        Self {
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            epoch,
            next_port: 20000,
        }
    }

    /// The guest's end of the cable.
    pub fn cable(&self) -> &Cable {
        &self.port.cable
    }

    fn add(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 128 << 10]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    /// Begins to connect to an address.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let handle = self.add();
        self.next_port = if self.next_port == u16::MAX {
            20000
        } else {
            self.next_port + 1
        };
        let from = self.next_port;
        self.sockets
            .get_mut::<Socket<'_>>(handle)
            .connect(self.interface.context(), to, from)
            .unwrap();
        handle
    }

    /// Begins to connect to a port of the host's loopback, by the gateway.
    pub fn connect_loopback(&mut self, port: u16) -> SocketHandle {
        self.connect((net::GATEWAY, port).into())
    }

    /// Opens connections to the listener on the host's loopback until one is refused. Returns both ends of those that are open.
    pub fn fill(&mut self, listener: &TcpListener) -> Vec<(SocketHandle, TcpStream)> {
        // Each is two descriptors of this process.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(4096)), hard).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut open = Vec::new();
        loop {
            let socket = self.connect_loopback(port);
            self.until(|guest| guest.tcp(socket).state() != State::SynSent);
            if self.tcp(socket).state() == State::Closed {
                self.remove(socket);
                return open;
            }
            // The backlog is short: take each at once.
            open.push((socket, listener.accept().unwrap().0));
            assert!(open.len() <= 600, "no limit");
        }
    }

    /// Lets a connection end from the peer's side.
    pub fn end(&mut self, (socket, stream): (SocketHandle, TcpStream)) {
        drop(stream);
        self.until_state(socket, State::CloseWait);
        self.tcp(socket).close();
        self.until(|guest| !guest.tcp(socket).is_active());
    }

    /// Listens at a port.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.add();
        self.tcp(handle).listen(port).unwrap();
        handle
    }

    /// A socket.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Forgets a socket.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Moves packets until `done`, which is asked after each round.
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        loop {
            let now = smoltcp::time::Instant::from_micros(self.epoch.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.port, &mut self.sockets);
            if done(self) {
                return;
            }
            assert!(start.elapsed() < HUNG, "hung");
            assert!(self.port.cable.is_alive(), "the gateway has ended");
            // The gateway says nothing when it has room again.
            self.port.cable.wait(Duration::from_millis(2));
        }
    }

    /// Moves packets until the socket is in the state.
    pub fn until_state(&mut self, handle: SocketHandle, state: State) {
        self.until(|guest| guest.tcp(handle).state() == state);
    }

    /// Sends all of `data`.
    pub fn send_all(&mut self, handle: SocketHandle, data: &[u8]) {
        let mut sent = 0;
        self.until(|guest| {
            sent += guest.tcp(handle).send_slice(&data[sent..]).unwrap();
            sent == data.len()
        });
    }

    /// Receives until the other side has finished.
    pub fn receive_all(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut data = Vec::new();
        self.until(|guest| {
            let socket = guest.tcp(handle);
            while socket.can_recv() {
                socket
                    .recv(|part| {
                        data.extend_from_slice(part);
                        (part.len(), ())
                    })
                    .unwrap();
            }
            !socket.may_recv() && socket.state() != State::SynSent
        });
        data
    }
}

/// An address on the host's loopback.
pub const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Options with which the gateway's address leads to the host's loopback.
pub fn host_loopback() -> Config {
    Config {
        host_loopback: true,
        ..Config::default()
    }
}
