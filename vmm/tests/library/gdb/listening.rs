//! Addresses where the stub cannot listen.

use std::{fs, io, net::TcpListener, os::unix::net::UnixListener, path::Path};

use vmm::gdb::{Address, Gdb, Start};

use crate::support::{COUNT, ENGINES, machine};

fn listen(address: &Address) -> io::Result<Gdb> {
    let vm = machine(ENGINES[0], COUNT);
    Gdb::listen(address, vm.control(), Start::Run)
}

fn refusal(address: &Address) -> io::Error {
    match listen(address) {
        Ok(_) => panic!("listens at {address}"),
        Err(error) => error,
    }
}

fn unix(path: &Path) -> Address {
    Address::Unix(path.to_owned())
}

#[test]
fn files_that_are_no_sockets_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &folder.path().to_owned()] {
        assert_eq!(refusal(&unix(path)).kind(), io::ErrorKind::AddrInUse);
    }
    assert_eq!(fs::read_to_string(&link).unwrap(), "precious");
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(listen(&unix(&path)).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb");
    let _first = listen(&unix(&path)).unwrap();
    assert_eq!(refusal(&unix(&path)).kind(), io::ErrorKind::AddrInUse);
    assert!(path.exists());
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let long = unix(&folder.path().join("x".repeat(200)));
    assert_eq!(refusal(&long).kind(), io::ErrorKind::InvalidInput);
    let nowhere = unix(&folder.path().join("none/gdb"));
    assert_eq!(refusal(&nowhere).kind(), io::ErrorKind::NotFound);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Address::Tcp(listener.local_addr().unwrap());
    assert_eq!(refusal(&taken).kind(), io::ErrorKind::AddrInUse);
}
