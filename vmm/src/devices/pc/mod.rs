//! [`pc()`]: the devices of a PC in their places.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use irq::Irq;
use mmu::{Memory, RegionKind};
use sbe::Width;

use super::{
    DebugBackend, DebugConsole, DebugExit, KeyboardController, PostCode, ResetRegister, Rtc,
    SerialBackend, SerialPort,
};
use crate::{
    board::Board,
    bus::{Device, IoRegion, PortWidth, Resources},
    clock::Clock,
};

/// The backends of a PC's devices: their ends on the host.
#[derive(Clone, Debug)]
pub struct Backends {
    /// The backend of COM1, the console.
    pub com1: SerialBackend,
    /// The backend of COM2.
    pub com2: SerialBackend,
    /// The backend of the debug console.
    pub debug: DebugBackend,
}

/// Creates a board with a PC's devices, just switched on. `time_of_day` is what the RTC shows at the clock's 0, in
/// nanoseconds since 1970-01-01 00:00 UTC.
///
/// ```text
///  0x20 0x21 0xa0 0xa1 0x4d0 0x4d1   8259A pair: the board's      0x80    POST code
///  0x40–0x43 0x61                    8254: the board's            0x92    control port A
///  0x60 0x64      keyboard controller  IRQ 1, 12                  0xe9    debug console
///  0x70 0x71      RTC, CMOS RAM      IRQ 8                        0xf4    debug exit
///  0x2f8–0x2ff    COM2               IRQ 3                        0xcf9   reset control: bytes only, since a
///  0x3f8–0x3ff    COM1               IRQ 4                                doubleword at 0xcf8 is PCI's
/// ```
pub fn pc(clock: Clock, time_of_day: i128, memory: Arc<Memory>) -> (Board, Backends) {
    let (serial1, com1) = SerialPort::new();
    let (serial2, com2) = SerialPort::new();
    let (debug_console, debug) = DebugConsole::new();
    let (low_end, above_4g) = ram(&memory);
    let rtc = Rtc::new(time_of_day, low_end, above_4g);
    let at = Resources::new;
    let reset_register = IoRegion::Ports(0xcf9..=0xcf9, PortWidth::Only(Width::Byte));

    let devices: [(Resources, Box<dyn Device>); 9] = [
        (
            at("i8042")
                .ports(0x60..=0x60)
                .ports(0x64..=0x64)
                .edge_line(Irq::KEYBOARD)
                .edge_line(Irq::MOUSE),
            Box::new(KeyboardController::default()),
        ),
        (
            at("RTC").ports(0x70..=0x71).edge_line(Irq::RTC),
            Box::new(rtc),
        ),
        (at("POST code").ports(0x80..=0x80), Box::new(PostCode)),
        (
            at("control port A").ports(0x92..=0x92),
            Box::new(ResetRegister::control_port_a()),
        ),
        (
            at("debug console").ports(0xe9..=0xe9),
            Box::new(debug_console),
        ),
        (at("debug exit").ports(0xf4..=0xf4), Box::new(DebugExit)),
        (
            at("COM2").ports(0x2f8..=0x2ff).edge_line(Irq::COM2),
            Box::new(serial2),
        ),
        (
            at("COM1").ports(0x3f8..=0x3ff).edge_line(Irq::COM1),
            Box::new(serial1),
        ),
        (
            at("reset control").region(reset_register),
            Box::new(ResetRegister::reset_control()),
        ),
    ];

    let mut board = Board::new(clock, memory);
    for (resources, device) in devices {
        let attached = board.attach(&resources, device);
        attached.expect("no two devices of a PC have the same place");
    }
    (board, Backends { com1, com2, debug })
}

/// Returns the end of RAM below 4 GiB, and the length of RAM from there on, in bytes.
fn ram(memory: &Memory) -> (u64, u64) {
    const FOUR_GIB: u64 = 1 << 32;
    let (mut low_end, mut above_4g) = (0, 0);
    for region in memory.regions() {
        match region.kind {
            RegionKind::Ram if region.start < FOUR_GIB => low_end = region.end,
            RegionKind::Ram => above_4g += region.end - region.start,
            RegionKind::Rom | RegionKind::Device => {}
        }
    }
    (low_end, above_4g)
}
