//! The board: interrupt controllers, timer and devices, wired to I/O ports and interrupt lines.
//!
//! ```text
//!  20 21 A0 A1 4D0 4D1  8259A pair      70 71  RTC, CMOS      IRQ 8    80   POST code, accepted
//!  40–43 61             8254            92     control port A          E9   debug console
//!  3F8–3FF  COM1        IRQ 4           60 64  keyboard controller     F4   debug exit
//!  2F8–2FF  COM2        IRQ 3           CF9    reset control           the rest: slots, or nobody
//! ```
//!
//! Where nobody answers, reads give ones and writes are dropped; every access is counted. Registers are bytes: a wider
//! access is one access to each of the ports it covers, as on ISA.

use std::{collections::VecDeque, ops::RangeInclusive};

use irq::{Chipset, Irq};
use mmu::GuestPhys;
use sbe::{Bus, Observation, Width};

use crate::{
    clock::Clock,
    devices::{ControlPortA, KeyboardController, Reset, ResetControl, Rtc, Uart, uart},
    ports::PortCounts,
    slots::{AttachError, Device, Slots},
    trace::Trace,
};

/// Everything on the processor's bus but RAM.
#[derive(Debug)]
pub struct Board {
    clock: Clock,
    chipset: Chipset,
    com: [Uart; 2],
    rtc: Rtc,
    keyboard: KeyboardController,
    port_a: ControlPortA,
    reset_control: ResetControl,
    slots: Slots,
    debug_console: Vec<u8>,
    /// Vectors of interrupts that a debugger asks for.
    injected: VecDeque<u8>,
    /// Vector of the latest interrupt acknowledged, if the controllers gave it.
    acknowledged: Option<u8>,
    stop: Option<Stop>,
    counts: Counts,
    trace: Option<Trace>,
}

/// Why the board wants the processor to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest reset the machine.
    Reset,
    /// The guest wrote this byte to the debug-exit port.
    DebugExit(u8),
}

/// What crossed the bus.
#[derive(Debug, Default)]
pub struct Counts {
    /// I/O ports.
    pub ports: PortCounts,
    /// Reads and writes of physical memory where there is none.
    pub mmio: u64,
    /// Interrupts acknowledged.
    pub interrupts: u64,
}

/// The serial ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Com {
    /// COM1, the console.
    Com1,
    /// COM2.
    Com2,
}

impl Com {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Com1, Self::Com2];

    fn irq(self) -> Irq {
        match self {
            Self::Com1 => Irq::COM1,
            Self::Com2 => Irq::COM2,
        }
    }

    fn base(self) -> u16 {
        match self {
            Self::Com1 => 0x3f8,
            Self::Com2 => 0x2f8,
        }
    }
}

/// A register on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Chipset(irq::Port),
    Com(Com, u8),
    RtcIndex,
    RtcData,
    KeyboardData,
    KeyboardStatus,
    ControlPortA,
    ResetControl,
    PostCode,
    DebugConsole,
    DebugExit,
    /// A slot, and the offset of the port there.
    Slot(usize, u16),
}

/// PCI's configuration address register: it takes 32 bits at once, and the reset control register among its bytes does
/// not answer then.
const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
/// What a read of the debug console gives, so that software can tell it is there.
const DEBUG_CONSOLE_PRESENT: u8 = 0xe9;

impl Register {
    fn decode(port: u16) -> Option<Self> {
        if let Some(port) = irq::Port::decode(port) {
            return Some(Self::Chipset(port));
        }
        if let Some((com, offset)) = Com::ALL
            .into_iter()
            .map(|com| (com, port.wrapping_sub(com.base())))
            .find(|&(_, offset)| offset < uart::PORTS)
        {
            return Some(Self::Com(com, offset as u8));
        }
        match port {
            0x60 => Some(Self::KeyboardData),
            0x64 => Some(Self::KeyboardStatus),
            0x70 => Some(Self::RtcIndex),
            0x71 => Some(Self::RtcData),
            0x80 => Some(Self::PostCode),
            0x92 => Some(Self::ControlPortA),
            0xe9 => Some(Self::DebugConsole),
            0xf4 => Some(Self::DebugExit),
            0xcf9 => Some(Self::ResetControl),
            _ => None,
        }
    }
}

/// Whether a device of the board itself answers at `port`.
pub fn is_connected(port: u16) -> bool {
    Register::decode(port).is_some()
}

/// Whether `port` is the board's own, or part of a register of PCI's.
pub(crate) fn is_reserved(port: u16) -> bool {
    is_connected(port) || port == PCI_CONFIG_ADDRESS
}

impl Board {
    /// A board just switched on, with `memory` bytes of RAM beside it. `time_of_day` is what the RTC shows at the
    /// clock's 0, in nanoseconds since 1970-01-01 00:00 UTC.
    pub fn new(clock: Clock, time_of_day: i128, memory: u64) -> Self {
        Self {
            clock,
            chipset: Chipset::new(),
            com: Default::default(),
            rtc: Rtc::new(time_of_day, memory),
            keyboard: KeyboardController,
            port_a: ControlPortA::default(),
            reset_control: ResetControl::default(),
            slots: Slots::default(),
            debug_console: Vec::new(),
            injected: VecDeque::new(),
            acknowledged: None,
            stop: None,
            counts: Counts::default(),
            trace: None,
        }
    }

    /// Tells `trace` from now on what the processor does, while that is observed.
    pub fn set_trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// The processor has paused.
    pub fn pause_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.pause();
        }
    }

    /// Attaches a device at `ports`, the lowest being its offset 0, which drives the line `irq`.
    ///
    /// # Errors
    /// If a port or the line is not free.
    pub fn attach(
        &mut self,
        ports: RangeInclusive<u16>,
        irq: Option<Irq>,
        device: Box<dyn Device>,
    ) -> Result<(), AttachError> {
        self.slots.attach(ports, irq, device)
    }

    /// The ports of the devices attached.
    pub fn attached(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.slots.ports()
    }

    /// Nanoseconds since the board was switched on.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Brings timer and RTC, and with them and the slots the interrupt lines, up to the present.
    pub fn advance(&mut self) {
        let now = self.clock.now();
        self.chipset.advance(now);
        self.advance_devices(now);
    }

    /// The same after a time in which the machine stood still on purpose, since [`Self::advance`]: the guest is not owed the
    /// timer's ticks of it.
    pub fn advance_paused(&mut self) {
        let now = self.clock.now();
        self.chipset.advance_paused(now);
        self.advance_devices(now);
    }

    /// The next time in nanoseconds at which the board may request an interrupt by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        let rtc = self.rtc.next_deadline(self.clock.now());
        self.chipset.next_deadline().into_iter().chain(rtc).min()
    }

    /// How many bytes [`Self::send`] takes at present.
    pub fn room(&self, com: Com) -> usize {
        self.com[com as usize].room()
    }

    /// Sends `bytes`, at most [`Self::room`] of them, to the guest.
    pub fn send(&mut self, com: Com, bytes: &[u8]) {
        self.com[com as usize].send(bytes);
        self.drive_com(com);
    }

    /// Takes what the guest has transmitted since the last call.
    pub fn take_transmitted(&mut self, com: Com) -> Vec<u8> {
        self.com[com as usize].take_transmitted()
    }

    /// Takes what the guest has written to the debug console since the last call.
    pub fn take_debug_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.debug_console)
    }

    /// Why the board asked for a stop, if it did.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Requests an interrupt with `vector`, of which the interrupt controllers know nothing.
    pub fn inject(&mut self, vector: u8) {
        self.injected.push_back(vector);
    }

    /// The interrupt controllers and the timer.
    pub fn chipset(&self) -> &Chipset {
        &self.chipset
    }

    /// Ends the service of the interrupt with `vector`, of which the guest does not learn: the latest that was acknowledged,
    /// or one that the interrupt controllers know nothing of.
    pub fn end_service(&mut self, vector: u8) {
        if self.acknowledged == Some(vector) {
            self.chipset.end_service(vector);
        }
    }

    /// What crossed the bus so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What became of the timer's ticks so far.
    pub fn timer_stats(&self) -> irq::TimerStats {
        self.chipset.timer_stats()
    }

    fn drive_com(&mut self, com: Com) {
        let level = self.com[com as usize].interrupt();
        self.chipset.set_line(com.irq(), level);
    }

    fn advance_devices(&mut self, now: u64) {
        self.rtc.advance(now);
        self.drive_rtc();
        self.slots.drive(&mut self.chipset);
    }

    fn drive_rtc(&mut self) {
        self.chipset.set_line(Irq::RTC, self.rtc.interrupt());
    }

    /// The registers that an access covers, lowest port first; none where nobody answers.
    fn registers(&self, port: u16, width: Width) -> [Option<Register>; 4] {
        if port == PCI_CONFIG_ADDRESS && width == Width::Dword {
            return [None; 4];
        }
        [0, 1, 2, 3].map(|offset| {
            let covered = u32::from(offset) < width.bytes();
            covered
                .then(|| self.decode(port.wrapping_add(offset)))
                .flatten()
        })
    }

    fn decode(&self, port: u16) -> Option<Register> {
        Register::decode(port).or_else(|| {
            let (slot, offset) = self.slots.find(port)?;
            Some(Register::Slot(slot, offset))
        })
    }

    fn log_first_access(&self, port: u16, count: u64, what: &str) {
        if count == 1 && self.decode(port).is_none() {
            log::debug!("port {port:#06x}: {what}, nobody there");
        }
    }

    fn request_reset(&mut self, reset: Option<Reset>) {
        if reset.is_some() {
            self.stop.get_or_insert(Stop::Reset);
        }
    }

    fn read(&mut self, register: Register) -> u8 {
        match register {
            Register::Chipset(port) => {
                self.advance();
                self.chipset.read(port)
            }
            Register::Com(com, offset) => {
                let value = self.com[com as usize].read(offset);
                self.drive_com(com);
                value
            }
            Register::RtcData => {
                let value = self.rtc.read(self.clock.now());
                self.drive_rtc();
                value
            }
            Register::KeyboardData => self.keyboard.read_data(),
            Register::KeyboardStatus => self.keyboard.read_status(),
            Register::ControlPortA => self.port_a.read(),
            Register::ResetControl => self.reset_control.read(),
            Register::DebugConsole => DEBUG_CONSOLE_PRESENT,
            Register::Slot(slot, offset) => self.slots.read(slot, offset, &mut self.chipset),
            Register::RtcIndex | Register::PostCode | Register::DebugExit => u8::MAX,
        }
    }

    fn write(&mut self, register: Register, value: u8) {
        match register {
            Register::Chipset(port) => {
                self.advance();
                self.chipset.write(port, value);
            }
            Register::Com(com, offset) => {
                self.com[com as usize].write(offset, value);
                self.drive_com(com);
            }
            Register::RtcIndex => self.rtc.select(value),
            Register::RtcData => {
                self.rtc.write(self.clock.now(), value);
                self.drive_rtc();
            }
            Register::KeyboardStatus => {
                let reset = self.keyboard.write_command(value);
                self.request_reset(reset);
            }
            Register::ControlPortA => {
                let reset = self.port_a.write(value);
                self.request_reset(reset);
            }
            Register::ResetControl => {
                let reset = self.reset_control.write(value);
                self.request_reset(reset);
            }
            Register::DebugConsole => self.debug_console.push(value),
            Register::DebugExit => {
                self.stop.get_or_insert(Stop::DebugExit(value));
            }
            Register::Slot(slot, offset) => {
                self.slots.write(slot, offset, value, &mut self.chipset);
            }
            Register::KeyboardData | Register::PostCode => {}
        }
    }
}

impl Bus for Board {
    fn port_read(&mut self, port: u16, width: Width) -> u32 {
        let count = self.counts.ports.at(port);
        count.reads += 1;
        let reads = count.reads;
        self.log_first_access(port, reads, "read");
        let mut bytes = [u8::MAX; size_of::<u32>()];
        for (byte, register) in bytes.iter_mut().zip(self.registers(port, width)) {
            if let Some(register) = register {
                *byte = self.read(register);
            }
        }
        u32::from_le_bytes(bytes)
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) {
        let count = self.counts.ports.at(port);
        count.writes += 1;
        let writes = count.writes;
        self.log_first_access(port, writes, "write");
        let registers = self.registers(port, width);
        for (byte, register) in value.to_le_bytes().into_iter().zip(registers) {
            if let Some(register) = register {
                self.write(register, byte);
            }
        }
    }

    fn mmio_read(&mut self, addr: GuestPhys, bytes: u8) -> u64 {
        log::trace!("memory {addr:?}: read of {bytes} bytes, nobody there");
        self.counts.mmio += 1;
        u64::MAX
    }

    fn mmio_write(&mut self, addr: GuestPhys, bytes: u8, value: u64) {
        log::trace!("memory {addr:?}: write of {bytes} bytes, {value:#x}, nobody there");
        self.counts.mmio += 1;
    }

    fn intr(&self) -> bool {
        self.chipset.intr() || !self.injected.is_empty()
    }

    fn acknowledge(&mut self) -> u8 {
        self.counts.interrupts += 1;
        if let Some(vector) = self.injected.pop_front() {
            self.acknowledged = None;
            return vector;
        }
        let vector = self.chipset.acknowledge();
        self.acknowledged = Some(vector);
        vector
    }

    fn stop_requested(&self) -> bool {
        self.stop.is_some()
    }

    fn observe(&mut self, observation: &Observation) {
        if let Some(trace) = &mut self.trace {
            trace.observe(observation, || self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const MS: u64 = 1_000_000;

    /// A board whose time the test sets, controllers initialized as a PC's BIOS does (vectors 8 and 70h), lines unmasked.
    fn board() -> (Board, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(0));
        let source = Arc::clone(&time);
        let clock = Clock::from_fn(move || source.load(Ordering::Relaxed));
        let mut board = Board::new(clock, 0, 1 << 20);
        for (port, values) in [
            (0x20, [0x11].as_slice()),
            (0x21, &[0x08, 0x04, 0x01, 0x00]),
            (0xa0, &[0x11]),
            (0xa1, &[0x70, 0x02, 0x01, 0x00]),
        ] {
            for &value in values {
                board.port_write(port, Width::Byte, value);
            }
        }
        (board, time)
    }

    fn read(board: &mut Board, port: u16) -> u32 {
        board.port_read(port, Width::Byte) & 0xff
    }

    fn write(board: &mut Board, port: u16, value: u32) {
        board.port_write(port, Width::Byte, value);
    }

    #[test]
    fn absent_ports_read_as_ones_and_are_counted() {
        let (mut board, _) = board();
        for port in [0x3e8, 0x2e8, 0x0278, 0x1f7, 0xcfc] {
            assert_eq!(read(&mut board, port), 0xff, "{port:#x}");
        }
        board.port_write(0x1f0, Width::Word, 0x1234);
        assert_eq!(board.port_read(0xcfc, Width::Dword), 0xffff_ffff);
        let unknown: Vec<_> = board
            .counts()
            .ports
            .accessed()
            .filter(|&(port, _)| !is_connected(port))
            .map(|(port, count)| (port, count.reads, count.writes))
            .collect();
        assert_eq!(
            unknown,
            [
                (0x1f0, 0, 1),
                (0x1f7, 1, 0),
                (0x278, 1, 0),
                (0x2e8, 1, 0),
                (0x3e8, 1, 0),
                (0xcfc, 2, 0)
            ]
        );
    }

    #[test]
    fn memory_that_is_not_there_reads_as_ones() {
        let (mut board, _) = board();
        board.mmio_write(GuestPhys::new(0xb8000), 2, 0x0741);
        assert_eq!(board.mmio_read(GuestPhys::new(0xb8000), 2) & 0xffff, 0xffff);
        assert_eq!(board.counts().mmio, 2);
    }

    #[test]
    fn serial_ports_have_their_addresses_and_interrupts() {
        for (com, base, vector) in [(Com::Com1, 0x3f8, 0x0c), (Com::Com2, 0x2f8, 0x0b)] {
            let (mut board, _) = board();
            write(&mut board, base, u32::from(b'!'));
            assert_eq!(board.take_transmitted(com), b"!");
            write(&mut board, base + 4, 0x0b);
            write(&mut board, base + 1, 0x01);
            assert!(!board.intr());
            board.send(com, b"x");
            assert!(board.intr());
            assert_eq!(board.acknowledge(), vector);
            assert_eq!(read(&mut board, base), u32::from(b'x'));
            assert_eq!(board.room(com), 256);
        }
    }

    #[test]
    fn the_timer_interrupts_at_its_deadline() {
        let (mut board, time) = board();
        write(&mut board, 0x43, 0x34);
        write(&mut board, 0x40, 0x9c);
        write(&mut board, 0x40, 0x2e);
        let deadline = board.next_deadline().unwrap();
        assert!((9 * MS..11 * MS).contains(&deadline), "{deadline}");
        time.store(deadline - 1, Ordering::Relaxed);
        board.advance();
        assert!(!board.intr());
        time.store(deadline, Ordering::Relaxed);
        board.advance();
        assert!(board.intr());
        assert_eq!(board.acknowledge(), 0x08);
        assert_eq!(board.counts().interrupts, 1);
    }

    #[test]
    fn an_injected_interrupt_is_none_of_the_controllers() {
        let (mut board, time) = board();
        let in_service = |board: &mut Board| {
            write(board, 0x20, 0x0b);
            read(board, 0x20) & 1 != 0
        };
        for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
            write(&mut board, port, value);
        }
        time.store(20 * MS, Ordering::Relaxed);
        board.advance();
        assert_eq!(board.acknowledge(), 0x08);
        board.inject(0x08);
        assert_eq!(board.acknowledge(), 0x08);
        board.end_service(0x08);
        assert!(in_service(&mut board), "the timer's handler still runs");
        write(&mut board, 0x20, 0x20);
        time.store(40 * MS, Ordering::Relaxed);
        board.advance();
        assert_eq!(board.acknowledge(), 0x08);
        board.end_service(0x02);
        assert!(in_service(&mut board), "NMI has the vector of another line");
        board.end_service(0x08);
        assert!(!in_service(&mut board));
    }

    #[test]
    fn the_rtc_interrupts_on_irq_8() {
        let (mut board, time) = board();
        write(&mut board, 0x70, 0x0b);
        write(&mut board, 0x71, 0x12);
        assert_eq!(board.next_deadline(), Some(1000 * MS));
        time.store(1000 * MS, Ordering::Relaxed);
        board.advance();
        assert_eq!(board.acknowledge(), 0x70);
        write(&mut board, 0x70, 0x00);
        assert_eq!(read(&mut board, 0x71), 0x01, "a second has passed");
    }

    #[test]
    fn every_way_to_reset_stops_the_processor() {
        for (port, value) in [(0x64, 0xfe), (0x92, 0x03), (0xcf9, 0x06)] {
            let (mut board, _) = board();
            assert!(!board.stop_requested());
            write(&mut board, port, value);
            assert_eq!(board.stop(), Some(Stop::Reset), "{port:#x}");
            assert!(board.stop_requested());
        }
    }

    #[test]
    fn pci_configuration_addresses_do_not_reset() {
        let (mut board, _) = board();
        board.port_write(0xcf8, Width::Dword, 0x8000_ff00);
        assert_eq!(board.stop(), None);
        assert_eq!(board.port_read(0xcf8, Width::Dword), 0xffff_ffff, "no PCI");
    }

    #[test]
    fn debug_ports() {
        let (mut board, _) = board();
        assert_eq!(read(&mut board, 0xe9), 0xe9);
        write(&mut board, 0xe9, u32::from(b'o'));
        board.port_write(0xe9, Width::Word, u32::from(b'k'));
        assert_eq!(board.take_debug_output(), b"ok");
        write(&mut board, 0x80, 0x55);
        assert_eq!(board.stop(), None);
        write(&mut board, 0xf4, 42);
        write(&mut board, 0x64, 0xfe);
        assert_eq!(board.stop(), Some(Stop::DebugExit(42)), "the first counts");
    }

    #[test]
    fn wide_accesses_cover_consecutive_ports() {
        let (mut board, _) = board();
        assert_eq!(
            board.port_read(0x91, Width::Word) & 0xffff,
            0x02ff,
            "92h is the upper byte"
        );
        assert_eq!(
            board.port_read(0xffff, Width::Dword),
            0xffff_ffff,
            "ports wrap"
        );
        board.port_write(0x70, Width::Word, 0x5a40);
        write(&mut board, 0x70, 0x40);
        assert_eq!(read(&mut board, 0x71), 0x5a, "index and data at once");
    }
}
