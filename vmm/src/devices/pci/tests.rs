//! The bus as software sees it: through the ports of the configuration mechanism, and at the interrupt controllers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use mmu::Memory;
use proptest::{collection::vec, prelude::*};
use sbe::{Bus, Width};

use super::*;
use crate::{
    board::Board,
    bus::{DeviceStateError, Stop},
    clock::Clock,
    devices::pc,
};

/// A function with 64 ports that read as their offset, and an interrupt of the test's.
struct Sample {
    config: ConfigSpace,
    interrupt: Arc<AtomicBool>,
}

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x5678,
    revision: 1,
    class: 0xff_00_00,
    subsystem: (0, 0),
};

const PORTS: u16 = 64;

impl Sample {
    fn new() -> (Self, Arc<AtomicBool>) {
        let interrupt = Arc::new(AtomicBool::new(false));
        let config = ConfigSpace::new(IDENTITY).io_bar(2, PORTS).interrupt_pin();
        let sample = Self {
            config,
            interrupt: Arc::clone(&interrupt),
        };
        (sample, interrupt)
    }
}

impl PciFunction for Sample {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: usize, offset: u64, _: u8, _: &Arc<Memory>) -> u32 {
        assert_eq!(bar, 2);
        offset as u32
    }

    fn interrupt(&self) -> bool {
        self.interrupt.load(SeqCst)
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        Ok(vec![self.interrupt().into()])
    }

    fn restore(&mut self, state: &[u8], _: &Arc<Memory>) -> Result<(), DeviceStateError> {
        self.interrupt.store(state == [1], SeqCst);
        Ok(())
    }
}

const BAR: u32 = 0x18;
const COMMAND: u32 = 0x04;
const STATUS: u32 = 0x06;

/// A PC with `count` functions behind the host bridge, its interrupt controllers initialized, and the functions' interrupts.
fn board(count: usize) -> (Board, Doorbell, Vec<Arc<AtomicBool>>) {
    let (mut board, _) = pc(Clock::from_fn(|| 0), 0, Memory::new(1 << 20).unwrap());
    let mut pci = PciHost::new().unwrap();
    let mut interrupts = Vec::new();
    for _ in 0..count {
        let (sample, interrupt) = Sample::new();
        pci.add(sample).unwrap();
        interrupts.push(interrupt);
    }
    let doorbell = pci.doorbell().clone();
    board.attach(&PciHost::resources(), Box::new(pci)).unwrap();
    board.initialize_pics();
    (board, doorbell, interrupts)
}

/// The address register for a register of a device.
fn address(device: u32, register: u32) -> u32 {
    1 << 31 | device << 11 | register & !3
}

fn read(board: &mut Board, device: u32, register: u32, width: Width) -> u32 {
    board.port_write(0xcf8, Width::Dword, address(device, register));
    let value = board.port_read(0xcfc + (register & 3) as u16, width);
    let bits = 8 * width.bytes();
    value & u32::MAX >> (32 - bits)
}

fn write(board: &mut Board, device: u32, register: u32, width: Width, value: u32) {
    board.port_write(0xcf8, Width::Dword, address(device, register));
    board.port_write(0xcfc + (register & 3) as u16, width, value);
}

#[test]
fn mechanism_1_is_found_as_linux_looks_for_it() {
    let (mut board, ..) = board(1);
    board.port_write(0xcfb, Width::Byte, 1);
    board.port_write(0xcf8, Width::Dword, 0x8000_0000);
    assert_eq!(board.port_read(0xcf8, Width::Dword), 0x8000_0000);
    assert_eq!(
        read(&mut board, 0, 0x0a, Width::Word),
        0x0600,
        "host bridge"
    );
    assert_eq!(read(&mut board, 1, 0, Width::Dword), 0x5678_1234);
    assert_eq!(read(&mut board, 1, 2, Width::Word), 0x5678);
    assert_eq!(read(&mut board, 1, 1, Width::Byte), 0x12);
    assert_eq!(read(&mut board, 2, 0, Width::Dword), 0xffff_ffff, "nobody");
    for other in [1 << 8, 1 << 16] {
        board.port_write(0xcf8, Width::Dword, address(1, 0) | other);
        assert_eq!(board.port_read(0xcfc, Width::Dword), 0xffff_ffff);
    }
    board.port_write(0xcf8, Width::Dword, 1 << 11);
    assert_eq!(board.port_read(0xcfc, Width::Dword), 0xffff_ffff, "off");
    assert_eq!(board.port_read(0xcf8, Width::Dword), 1 << 11);
    assert_eq!(board.stop(), None);
}

#[test]
fn the_byte_at_0xcf9_is_the_reset_register_still() {
    let (mut board, ..) = board(1);
    board.port_write(0xcf8, Width::Dword, 0x8000_0600);
    assert_eq!(board.stop(), None);
    board.port_write(0xcf9, Width::Byte, 6);
    assert_eq!(board.stop(), Some(Stop::Reset));
}

#[test]
fn firmware_has_placed_everything() {
    let (mut board, ..) = board(5);
    let mut places = Vec::new();
    for device in 1..=5 {
        places.push(read(&mut board, device, BAR, Width::Dword));
        let line = read(&mut board, device, 0x3c, Width::Byte);
        assert_eq!(line, [11, 10, 9, 5][device as usize % 4]);
    }
    assert_eq!(places, [0xc001, 0xc041, 0xc081, 0xc0c1, 0xc101]);
    assert_eq!(
        board.port_read(0x4d1, Width::Byte) & 0xff,
        0x0e,
        "level triggered"
    );
    assert_eq!(board.port_read(0x4d0, Width::Byte) & 0xff, 0x20);
}

#[test]
fn a_bar_answers_where_it_is_if_it_is_on() {
    let (mut board, ..) = board(2);
    let nobody = 0xffff_ffff;
    assert_eq!(board.port_read(0xc004, Width::Dword), nobody, "off");
    write(&mut board, 1, COMMAND, Width::Word, 1);
    assert_eq!(board.port_read(0xc004, Width::Dword), 4);
    write(&mut board, 1, BAR, Width::Dword, 0xd000);
    assert_eq!(board.port_read(0xc004, Width::Dword), nobody);
    assert_eq!(board.port_read(0xd03c, Width::Dword), 0x3c);
    write(&mut board, 1, BAR, Width::Dword, u32::MAX);
    assert_eq!(read(&mut board, 1, BAR, Width::Dword), 0xffff_ffc1);
    assert_eq!(board.port_read(0xffc0, Width::Dword), nobody);
    write(&mut board, 1, BAR, Width::Dword, 0xd000);
    write(&mut board, 1, COMMAND, Width::Word, 0);
    assert_eq!(board.port_read(0xd004, Width::Dword), nobody);
}

#[test]
fn a_bar_in_anothers_way_answers_once_the_way_is_free() {
    let (mut board, ..) = board(2);
    for device in [1, 2] {
        write(&mut board, device, BAR, Width::Dword, 0xe000);
        write(&mut board, device, COMMAND, Width::Word, 1);
    }
    assert_eq!(board.port_read(0xe008, Width::Dword), 8);
    write(&mut board, 1, BAR, Width::Dword, 0x3c0);
    assert_eq!(
        board.port_read(0x3c8, Width::Byte) & 0xff,
        0xff,
        "COM1 is there"
    );
    assert_eq!(board.port_read(0xe008, Width::Dword), 8, "the second one's");
    write(&mut board, 2, COMMAND, Width::Word, 0);
    assert_eq!(board.port_read(0xe008, Width::Dword), 0xffff_ffff);
}

#[test]
fn interrupt_lines_are_shared_and_can_be_disabled() {
    let (mut board, doorbell, interrupts) = board(5);
    // Devices 1 and 5 have the same line.
    let (one, other) = (&interrupts[0], &interrupts[4]);
    let set = |board: &mut Board, interrupt: &AtomicBool, pending| {
        interrupt.store(pending, SeqCst);
        doorbell.ring();
        board.advance_devices();
    };
    set(&mut board, one, true);
    assert!(board.intr());
    set(&mut board, other, true);
    set(&mut board, one, false);
    assert!(board.intr(), "the other's");
    assert_eq!(read(&mut board, 5, STATUS, Width::Word) & 8, 8);
    assert_eq!(read(&mut board, 1, STATUS, Width::Word) & 8, 0);
    write(&mut board, 5, COMMAND, Width::Word, 1 << 10);
    assert!(!board.intr(), "disabled");
    assert_eq!(read(&mut board, 5, STATUS, Width::Word) & 8, 8, "pending");
    write(&mut board, 5, COMMAND, Width::Word, 0);
    assert!(board.intr());
}

#[test]
fn there_are_31_devices_at_most() {
    let mut pci = PciHost::new().unwrap();
    for _ in 1..32 {
        pci.add(Sample::new().0).unwrap();
    }
    assert_eq!(pci.add(Sample::new().0), Err(NoSlot));
}

#[test]
fn a_saved_host_goes_on() {
    let (mut first, _, interrupts) = board(2);
    write(&mut first, 2, BAR, Width::Dword, 0xd000);
    write(&mut first, 2, COMMAND, Width::Word, 1);
    interrupts[1].store(true, SeqCst);
    let state = first.save().unwrap();
    let (mut second, ..) = board(2);
    second.restore(state.clone()).unwrap();
    assert_eq!(second.port_read(0xd008, Width::Dword), 8);
    assert!(second.intr());
    let (mut other, ..) = board(1);
    assert!(other.restore(state).is_err(), "another number of devices");
}

proptest! {
    #[test]
    fn nothing_that_software_writes_is_fatal(accesses in vec((0u8..4, 0u32..4, 0u32..256, any::<u32>(), 0usize..3), 0..200)) {
        let (mut board, ..) = board(3);
        let widths = [Width::Byte, Width::Word, Width::Dword];
        for (kind, device, register, value, width) in accesses {
            let width = widths[width];
            match kind {
                0 => write(&mut board, device, register, width, value),
                1 => {
                    read(&mut board, device, register, width);
                }
                2 => board.port_write(0xcf8, Width::Dword, value),
                _ => {
                    board.port_read(0xc000 | value as u16, width);
                }
            }
        }
        let state = board.save().unwrap();
        board.restore(state).unwrap();
    }
}
