//! The card as a driver sees it, with a gateway behind it.

use sbe::Width;

use super::*;
use crate::devices::virtio::tests::{
    driver::{BUFFER, CONFIG, Driver, NEEDS_RESET, SIZE, WRITE},
    echo::wait_for_used,
};

/// Where the driver has its transmit queue.
const TABLE: u64 = 0x12_0000;
const AVAILABLE: u64 = 0x12_1000;
const USED: u64 = 0x12_2000;
/// Where it has a frame to send.
const FRAME: u64 = 0x13_0000;

const HEADER: usize = 12;

/// Who has 10.0.2.2? (RFC 826, Packet format)
const ARP_REQUEST: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, // Ethernet
    0, 1, 8, 0, 6, 4, 0, 1, // request
    0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, // from
    0, 0, 0, 0, 0, 0, 10, 0, 2, 2, // to
];

fn card() -> Driver {
    let card = Net::new(&Config::default()).unwrap();
    let mut driver = Driver::new(Box::new(card));
    driver.start(1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU, 0);
    driver.place_queue_at(1, SIZE, [TABLE, AVAILABLE, USED]);
    driver
}

/// Offers `room` bytes for a frame from the gateway.
fn offer_room(driver: &mut Driver, room: u32) {
    driver.request(&[(BUFFER, room, WRITE, 0)]);
}

/// Sends the bytes as the first request of the transmit queue.
fn send(driver: &mut Driver, bytes: &[u8]) {
    driver.store(FRAME, bytes);
    driver.table(TABLE, &[(FRAME, bytes.len() as u32, 0, 0)]);
    driver.store(AVAILABLE + 2, &[1, 0]);
    driver.notify(1);
}

fn arp_request() -> Vec<u8> {
    [&[0; HEADER][..], &ARP_REQUEST].concat()
}

#[test]
fn the_configuration_has_address_and_mtu() {
    let mut driver = card();
    assert_eq!(driver.read(CONFIG, Width::Dword), 0x1200_5452);
    assert_eq!(driver.read(CONFIG + 4, Width::Word), 0x5634);
    assert_eq!(driver.read(CONFIG + 10, Width::Word), 65520);
}

#[test]
fn frames_go_to_the_gateway_and_come_from_it() {
    let mut driver = card();
    offer_room(&mut driver, 2048);
    send(&mut driver, &arp_request());
    wait_for_used(&mut driver, 1);
    assert_eq!(driver.used_element(0), (0, (HEADER + 42) as u32));
    let received = driver.bytes(BUFFER, HEADER + 42);
    // One buffer, and nothing to be done.
    assert_eq!(received[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let reply = &received[HEADER..];
    assert_eq!(reply[..6], Config::DEFAULT_MAC);
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(reply[28..32], [10, 0, 2, 2]);
    assert_eq!(driver.u16_at(USED + 2), 1);
}

#[test]
fn a_buffer_that_is_too_short_comes_back_empty() {
    let mut driver = card();
    offer_room(&mut driver, 50);
    send(&mut driver, &arp_request());
    wait_for_used(&mut driver, 1);
    assert_eq!(driver.used_element(0), (0, 0));
}

#[test]
fn a_frame_without_its_header_is_malformed() {
    let mut driver = card();
    offer_room(&mut driver, 2048);
    send(&mut driver, &[0; HEADER - 1]);
    while driver.status() & NEEDS_RESET == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn frames_of_every_length_are_survived() {
    for len in [0, 1, 13, 14, 15, 60000, 70000] {
        let mut driver = card();
        offer_room(&mut driver, 2048);
        send(&mut driver, &vec![0; HEADER + len]);
        while driver.u16_at(USED + 2) == 0 {
            std::thread::yield_now();
        }
        // It still serves.
        driver.store(FRAME, &arp_request());
        driver.table(TABLE, &[(FRAME, (HEADER + 42) as u32, 0, 0)]);
        driver.store(AVAILABLE + 2, &[2, 0]);
        driver.notify(1);
        wait_for_used(&mut driver, 1);
        assert_eq!(driver.used_element(0), (0, (HEADER + 42) as u32));
    }
}
