//! Rings and requests, well-formed and hostile. The rules are those of VIRTIO 1.2, 2.7 Split Virtqueues.

use sbe::Width;

use super::driver::*;
use crate::devices::virtio::Rng;

fn rng(features: u64) -> Driver {
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.start(features, 0);
    driver
}

#[test]
fn random_bytes_arrive_and_the_line_falls_when_the_isr_is_read() {
    let mut driver = rng(0);
    driver.request(&[(BUFFER, 32, WRITE | NEXT, 1), (BUFFER + 64, 32, WRITE, 0)]);
    assert_eq!(driver.used(), 1);
    assert_eq!(driver.used_element(0), (0, 64));
    assert_ne!(driver.bytes(BUFFER, 32), [0; 32]);
    assert_eq!(driver.bytes(BUFFER + 32, 32), [0; 32]);
    assert_ne!(driver.bytes(BUFFER + 64, 32), [0; 32]);
    assert!(driver.is_interrupted());
    assert_eq!(driver.read(ISR, Width::Byte), 1);
    assert!(!driver.is_interrupted());
    assert_eq!(driver.read(ISR, Width::Byte), 0);
}

#[test]
fn indices_wrap() {
    let mut driver = rng(0);
    driver.table(TABLE, &[(BUFFER, 1, WRITE, 0)]);
    for _ in 0..70_000 {
        driver.offer(0);
        driver.notify(0);
    }
    assert_eq!(driver.used(), (70_000 % 65_536) as u16);
}

#[test]
fn a_table_can_be_elsewhere() {
    let mut driver = rng(INDIRECT_DESC);
    let table: Vec<Descriptor> = (0..100)
        .map(|at| {
            let flags = if at == 99 { WRITE } else { WRITE | NEXT };
            (BUFFER + 0x1000 + u64::from(at), 1, flags, at + 1)
        })
        .collect();
    driver.table(BUFFER, &table);
    driver.request(&[(BUFFER, 1600, INDIRECT, 0)]);
    assert_eq!(driver.used_element(0), (0, 100));
}

#[test]
fn the_driver_says_when_it_wants_interrupts() {
    let mut driver = rng(0);
    driver.store(AVAILABLE, &1u16.to_le_bytes());
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert!(!driver.is_interrupted(), "no interrupts");
    driver.store(AVAILABLE, &0u16.to_le_bytes());
    driver.offer(0);
    driver.notify(0);
    assert!(driver.is_interrupted());

    let mut driver = rng(EVENT_IDX);
    // After the third buffer.
    driver.store(AVAILABLE + 4 + 2 * u64::from(SIZE), &2u16.to_le_bytes());
    for round in 1..=4 {
        driver.request(&[(BUFFER, 8, WRITE, 0)]);
        assert_eq!(driver.is_interrupted(), round >= 3, "{round}");
    }
    // The device wants a notification of the fifth.
    assert_eq!(driver.u16_at(USED + 4 + 8 * u64::from(SIZE)), 4);
}

/// Asserts that the device is in its error state, says so once, and is well again after a reset.
fn assert_needs_reset(mut driver: Driver, why: &str) {
    assert_eq!(driver.status(), DRIVER_OK | NEEDS_RESET, "{why}");
    assert!(driver.is_interrupted(), "{why}");
    assert_eq!(driver.read(ISR, Width::Byte) & 2, 2, "{why}");
    let used = driver.used();
    driver.offer(0);
    driver.notify(0);
    assert_eq!(driver.used(), used, "{why}: the queue stands still");
    driver.start(0, 0);
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert_eq!(driver.used_element(0), (0, 8), "{why}");
}

#[test]
fn malformed_requests_need_a_reset() {
    let write = |at: u64| (at, 8, WRITE, 0);
    let cases: [(&str, &[Descriptor]); 12] = [
        (
            "loop",
            &[(BUFFER, 1, WRITE | NEXT, 1), (BUFFER, 1, WRITE | NEXT, 0)],
        ),
        ("next of no table", &[(BUFFER, 1, WRITE | NEXT, SIZE)]),
        ("beyond RAM", &[write(RAM)]),
        ("across the end of RAM", &[write(RAM - 4)]),
        ("in the video memory", &[write(0xa_0000)]),
        ("in ROM", &[write(0xc_0000)]),
        ("at the end of all addresses", &[write(u64::MAX - 3)]),
        ("no room", &[(BUFFER, 0, WRITE, 0)]),
        ("nothing to write to", &[(BUFFER, 8, 0, 0)]),
        (
            "readable after writable",
            &[(BUFFER, 8, WRITE | NEXT, 1), (BUFFER, 8, 0, 0)],
        ),
        (
            "longer than 4 GiB",
            &[
                (0x10_0000, u32::MAX, WRITE | NEXT, 1),
                (BUFFER, 8, WRITE, 0),
            ],
        ),
        (
            "table of no whole descriptors",
            &[(BUFFER, 15, INDIRECT, 0)],
        ),
    ];
    for (why, descriptors) in cases {
        let mut driver = rng(INDIRECT_DESC);
        driver.request(descriptors);
        assert_needs_reset(driver, why);
    }
}

#[test]
fn malformed_tables_elsewhere_need_a_reset() {
    let cases: [(&str, u64, &[Descriptor]); 4] = [
        ("table in table", BUFFER, &[(BUFFER, 16, INDIRECT, 0)]),
        (
            "next beyond the table",
            BUFFER,
            &[(BUFFER, 1, WRITE | NEXT, 2)],
        ),
        ("loop", BUFFER, &[(BUFFER, 1, WRITE | NEXT, 0)]),
        ("beyond RAM", RAM, &[]),
    ];
    for (why, at, table) in cases {
        let mut driver = rng(INDIRECT_DESC);
        if !table.is_empty() {
            driver.table(at, table);
        }
        driver.request(&[(at, 32, INDIRECT, 0)]);
        assert_needs_reset(driver, why);
    }
}

#[test]
fn malformed_rings_need_a_reset() {
    let mut driver = rng(0);
    driver.offer(SIZE);
    driver.notify(0);
    assert_needs_reset(driver, "head of no table");
    let mut driver = rng(0);
    driver.store(AVAILABLE + 2, &(SIZE + 1).to_le_bytes());
    driver.notify(0);
    assert_needs_reset(driver, "more than the ring holds");
    for (why, size, addresses) in [
        ("size 0", 0, [TABLE, AVAILABLE, USED]),
        ("no power of two", 3, [TABLE, AVAILABLE, USED]),
        ("too large", 128, [TABLE, AVAILABLE, USED]),
        ("misaligned table", SIZE, [TABLE + 8, AVAILABLE, USED]),
        (
            "misaligned available ring",
            SIZE,
            [TABLE, AVAILABLE + 1, USED],
        ),
        ("misaligned used ring", SIZE, [TABLE, AVAILABLE, USED + 2]),
        ("table beyond RAM", SIZE, [RAM - 16, AVAILABLE, USED]),
        (
            "available ring beyond RAM",
            SIZE,
            [TABLE, u64::MAX - 1, USED],
        ),
        ("used ring beyond RAM", SIZE, [TABLE, AVAILABLE, 1 << 40]),
    ] {
        let mut driver = Driver::new(Box::<Rng>::default());
        driver.negotiate(VERSION_1);
        driver.place_queue_at(0, size, addresses);
        driver.write(STATUS, Width::Byte, DRIVER_OK);
        driver.notify(0);
        assert_needs_reset(driver, why);
    }
}

#[test]
fn rings_that_end_with_the_ram_are_good() {
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.negotiate(VERSION_1);
    let size = u64::from(SIZE);
    driver.place_queue_at(0, SIZE, [RAM - 16 * size, AVAILABLE, USED]);
    driver.write(STATUS, Width::Byte, DRIVER_OK);
    assert_eq!(driver.status(), DRIVER_OK);
}

#[test]
fn an_unknown_queue_is_nobodys() {
    let mut driver = rng(0);
    driver.notify(1);
    driver.notify(0xffff);
    assert_eq!(driver.status(), DRIVER_OK);
}

#[test]
fn rings_survive_anything() {
    let mut seed = 7u64;
    let mut next = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let mut driver = rng(INDIRECT_DESC | EVENT_IDX);
    let (mut served, mut refused) = (0u64, 0);
    for _ in 0..20_000 {
        let descriptors: Vec<Descriptor> = (0..SIZE)
            .map(|_| {
                let address = match next() % 8 {
                    0 => u64::from(next()) << (next() % 33),
                    1 => TABLE,
                    _ => BUFFER + u64::from(next() & 0xffff),
                };
                let len = if next().is_multiple_of(8) {
                    next()
                } else {
                    next() & 0x3f
                };
                (
                    address,
                    len,
                    (next() & 7) as u16 & !INDIRECT | (next().is_multiple_of(8) as u16) << 2,
                    (next() % 20) as u16,
                )
            })
            .collect();
        driver.table(TABLE, &descriptors);
        driver.offer((next() % 17) as u16);
        if next().is_multiple_of(64) {
            driver.store(AVAILABLE + 2, &(next() as u16).to_le_bytes());
        }
        driver.notify(0);
        if driver.status() & NEEDS_RESET != 0 {
            refused += 1;
            driver.start(INDIRECT_DESC | EVENT_IDX, 0);
        } else {
            served += 1;
        }
    }
    assert!(served > 100 && refused > 100, "{served} {refused}");
}
