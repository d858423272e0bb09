//! The card as a driver sees it, with a gateway behind it.

use sbe::Width;

use super::*;
use crate::devices::virtio::tests::{
    driver::{BUFFER, CONFIG, Driver, ISR, NEEDS_RESET, SIZE, WRITE},
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

const MTU: u64 = 1 << VIRTIO_NET_F_MTU;

fn card() -> Driver {
    card_with(MTU)
}

fn card_with(features: u64) -> Driver {
    start(Net::new(&Config::default()).unwrap(), features)
}

fn start(card: Net, features: u64) -> Driver {
    let mut driver = Driver::new(Box::new(card));
    driver.start(1 << VIRTIO_NET_F_MAC | features, 0);
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
    assert_eq!(driver.read(CONFIG + 6, Width::Word), 1, "the link is up");
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

/// A frame of the guest's with an IPv4 packet to the gateway, behind the card's header. Nobody checks its checksums.
fn packet(protocol: u8, source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let ip = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    let ethernet = [&ARP_REQUEST[..12], &[8, 0]].concat();
    [
        &[0; HEADER][..],
        &ethernet,
        &ip,
        &source,
        &[10, 0, 2, 2],
        payload,
    ]
    .concat()
}

/// The frame that the gateway answers with, and the header before it.
fn answer(driver: &mut Driver, frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    offer_room(driver, 4096);
    send(driver, frame);
    wait_for_used(driver, 1);
    let (_, len) = driver.used_element(0);
    let mut header = driver.bytes(BUFFER, len as usize);
    let frame = header.split_off(HEADER);
    (header, frame)
}

/// A client's discovery (RFC 2131, 2. Protocol Summary).
fn dhcp_discover() -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&Config::DEFAULT_MAC);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let [high, low] = (8 + message.len() as u16).to_be_bytes();
    let udp = [0, 68, 0, 67, high, low, 0, 0];
    packet(17, [0; 4], &[&udp[..], &message].concat())
}

#[test]
fn a_driver_that_is_told_of_no_mtu_gets_packets_of_ethernet() {
    for (features, mtu) in [(MTU, 65520u16), (0, 1500)] {
        let mut driver = card_with(features);
        let (_, frame) = answer(&mut driver, &dhcp_discover());
        let [high, low] = mtu.to_be_bytes();
        let option = [26, 2, high, low];
        assert!(
            frame.windows(4).any(|bytes| bytes == option),
            "{features:#x}"
        );
    }
}

/// The ones' complement sum of a TCP segment in a frame, with its pseudo header.
fn tcp_sum(frame: &[u8]) -> u16 {
    let segment = &frame[34..];
    let pseudo = [
        &frame[26..34],
        &[0, 6],
        &(segment.len() as u16).to_be_bytes(),
    ]
    .concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    words.fold(0, |sum, word| {
        let word = u16::from_be_bytes([word[0], word[1]]);
        let (sum, carry) = u16::overflowing_add(sum, word);
        sum + u16::from(carry)
    })
}

#[test]
fn checksums_are_left_to_drivers_that_take_them() {
    // Port 9 of the gateway is refused by a reset.
    let syn = [
        0x30, 0x39, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let syn = packet(6, [10, 0, 2, 15], &syn);
    let mut driver = card();
    let (header, complete) = answer(&mut driver, &syn);
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(complete[47] & 4, 4, "a reset");
    assert_eq!(tcp_sum(&complete), 0xffff);

    let mut driver = card_with(MTU | 1 << VIRTIO_NET_F_GUEST_CSUM);
    let (header, partial) = answer(&mut driver, &syn);
    // From byte 34 on, to byte 16 there.
    assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
    // Completed as a driver does it, the same segment.
    let mut completed = partial;
    let checksum = ::net::Checksum::Partial {
        start: 34,
        field: 16,
    };
    checksum.complete(&mut completed);
    assert_eq!(tcp_sum(&completed), 0xffff);
}

#[test]
fn a_link_that_goes_down_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let card = Net::connect_to(&path).unwrap();
    assert_eq!(
        card.features() & 1 << VIRTIO_NET_F_CSUM,
        0,
        "nobody adds it"
    );
    let mut driver = start(card, MTU | 1 << VIRTIO_NET_F_STATUS);
    assert_eq!(driver.read(CONFIG + 6, Width::Word), 1);
    drop(listener.accept().unwrap());
    while driver.read(CONFIG + 6, Width::Word) != 0 {
        std::thread::yield_now();
    }
    while driver.read(ISR, Width::Byte) & 2 == 0 {
        std::thread::yield_now();
    }
    // Frames are taken still, and go nowhere.
    send(&mut driver, &arp_request());
    while driver.u16_at(USED + 2) == 0 {
        std::thread::yield_now();
    }
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
