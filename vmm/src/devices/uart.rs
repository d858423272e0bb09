//! A 16550A serial port: `vm-superio`'s, with an interrupt line and flow control for the peer's bytes.
//!
//! ```text
//!   peer ──send()──► backlog ──► receive register ──► guest         (one byte at a time, while the guest asserts RTS)
//!   peer ◄─take_transmitted()── transmit buffer ◄──── guest
//! ```
//!
//! Guarantees beyond the registers:
//! * No byte of the peer is lost: the peer waits while RTS is low, as a modem with hardware handshake does. Drivers clear
//!   the receiver before they raise RTS for the first time and may throttle with it later.
//! * Bytes come in bursts: the next burst is taken once the guest has read the last byte of this one. An interrupt
//!   handler that reads until nothing is left therefore comes to an end, however fast the peer is.
//! * The interrupt line is the level that the datasheet derives from what is pending *and* enabled, gated by OUT2 as a PC
//!   wires it; the identification register reports by priority and reading it clears no more than it reported.
//!
//! National Semiconductor PC16550D datasheet, 8.0 Registers.

use std::{collections::VecDeque, convert::Infallible};

use irq::Level;
use serde::{Deserialize, Serialize};
use vm_superio::{
    SerialState, Trigger,
    serial::{NoEvents, Serial},
};

use crate::bus::DeviceStateError;

/// A 16550A serial port.
#[derive(Debug)]
pub struct Uart {
    serial: Serial<NoTrigger, NoEvents, Vec<u8>>,
    backlog: VecDeque<u8>,
}

/// The saved state of a serial port: its registers, and the bytes under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UartState {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    /// The contents of the receive register.
    received: Vec<u8>,
    backlog: Vec<u8>,
    transmitted: Vec<u8>,
}

/// The line is read as a level with [`Uart::interrupt`]; nobody needs to be told of edges.
#[derive(Debug)]
struct NoTrigger;

impl Trigger for NoTrigger {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The most bytes that the peer sends at once.
const BURST: usize = 256;

const IIR: u8 = 2;
/// The enables of both interrupts: received data available, transmitter holding register empty (IER bits 0 and 1).
const IER_ERBFI: u8 = 1 << 0;
const IER_ETBEI: u8 = 1 << 1;
/// The interrupt identification of these two (bits 3–1), and that of none.
const IIR_THRE: u8 = 0b010;
const IIR_RDA: u8 = 0b100;
const IIR_NONE: u8 = 0b001;
/// IIR bits 7 and 6: the FIFOs are on.
const IIR_FIFOS: u8 = 0b1100_0000;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

impl Default for Uart {
    fn default() -> Self {
        Self {
            serial: Serial::new(NoTrigger, Vec::new()),
            backlog: VecDeque::with_capacity(BURST),
        }
    }
}

impl Uart {
    /// Reads the register at `offset`, 0 to 7, from the port's base.
    pub fn read(&mut self, offset: u8) -> u8 {
        let value = match offset {
            IIR => self.read_identification(),
            _ => self.serial.read(offset),
        };
        self.receive();
        value
    }

    /// Writes the register at `offset`, 0 to 7, from the port's base.
    pub fn write(&mut self, offset: u8, value: u8) {
        // The transmit buffer is memory: writing to it cannot fail.
        let _ = self.serial.write(offset, value);
        self.receive();
    }

    /// The level of the interrupt line.
    pub fn interrupt(&self) -> Level {
        let state = self.serial.state();
        let gate = state.modem_control & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        Level::from_active(gate && self.pending() != 0)
    }

    /// The number of bytes that [`Self::send`] takes at present: a burst, or none until the last one has been read.
    pub fn room(&self) -> usize {
        let unread = !self.backlog.is_empty() || !self.serial.state().in_buffer.is_empty();
        if unread { 0 } else { BURST }
    }

    /// Sends `bytes`, at most [`Self::room`] of them, from the peer.
    pub fn send(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room());
        self.backlog.extend(bytes);
        self.receive();
    }

    /// Takes what the guest has transmitted since the last call.
    pub fn take_transmitted(&mut self) -> Vec<u8> {
        std::mem::take(self.serial.writer_mut())
    }

    /// Saves the registers and the bytes under way.
    pub fn save(&self) -> UartState {
        let state = self.serial.state();
        UartState {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
            backlog: self.backlog.iter().copied().collect(),
            transmitted: self.serial.writer().clone(),
        }
    }

    /// Creates a port from a saved state.
    ///
    /// # Errors
    /// If there are more bytes under way to the guest than a port takes.
    pub fn restore(state: UartState) -> Result<Self, DeviceStateError> {
        let [low, high] = state.divisor;
        let registers = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.received,
        };
        let impossible = DeviceStateError::Impossible("the bytes received");
        if state.backlog.len() > BURST {
            return Err(impossible);
        }
        let serial = Serial::from_state(&registers, NoTrigger, NoEvents, state.transmitted);
        Ok(Self {
            serial: serial.map_err(|_| impossible)?,
            backlog: state.backlog.into(),
        })
    }

    /// Moves a byte from the backlog to the receive register once that is empty and the guest asserts RTS.
    fn receive(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let state = self.serial.state();
        if state.modem_control & (MCR_RTS | MCR_LOOP) == MCR_RTS && state.in_buffer.is_empty() {
            let byte = self.backlog.pop_front();
            // The register is empty: there is room.
            let _ = self.serial.enqueue_raw_bytes(byte.as_slice());
        }
    }

    /// The interrupts pending and enabled, as `IIR_*` bits.
    fn pending(&self) -> u8 {
        let state = self.serial.state();
        let mut enabled = 0;
        if state.interrupt_enable & IER_ERBFI != 0 {
            enabled |= IIR_RDA;
        }
        if state.interrupt_enable & IER_ETBEI != 0 {
            enabled |= IIR_THRE;
        }
        state.interrupt_identification & enabled
    }

    /// Reads the identification register: reports the pending interrupt of the highest priority; "transmitter empty" is
    /// cleared by having been reported, "received data" only by reading the data.
    fn read_identification(&mut self) -> u8 {
        let pending = self.pending();
        let (reported, remaining) = match pending {
            0 => (IIR_NONE, 0),
            IIR_THRE => (IIR_THRE, 0),
            _ => (IIR_RDA, pending),
        };
        self.serial.read(IIR);
        if remaining != 0 {
            self.restore_pending(remaining);
        }
        reported | IIR_FIFOS
    }

    /// Sets the pending interrupts: `vm-superio` clears all of them when the identification register is read.
    fn restore_pending(&mut self, pending: u8) {
        let mut state = self.serial.state();
        state.interrupt_identification = pending;
        let transmitted = self.take_transmitted();
        if let Ok(serial) = Serial::from_state(&state, NoTrigger, NoEvents, transmitted) {
            self.serial = serial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RBR: u8 = 0;
    const THR: u8 = 0;
    const IER: u8 = 1;
    const LCR: u8 = 3;
    const MCR: u8 = 4;
    const LSR: u8 = 5;
    const LSR_DR: u8 = 1 << 0;

    /// A port as a driver leaves it: DTR, RTS and OUT2 on, `ier` enabled.
    fn opened(ier: u8) -> Uart {
        let mut uart = Uart::default();
        uart.write(MCR, MCR_RTS | MCR_OUT2 | 1);
        uart.write(IER, ier);
        uart
    }

    #[test]
    fn what_is_transmitted_comes_out_once() {
        let mut uart = Uart::default();
        for byte in *b"hello" {
            uart.write(THR, byte);
        }
        assert_eq!(uart.take_transmitted(), b"hello");
        assert_eq!(uart.take_transmitted(), b"");
    }

    #[test]
    fn received_data_interrupts_until_the_last_byte_is_read() {
        let mut uart = opened(IER_ERBFI);
        assert_eq!(uart.interrupt(), Level::Low);
        uart.send(b"ab");
        for byte in *b"ab" {
            assert_eq!(uart.interrupt(), Level::High);
            assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_RDA);
            assert_eq!(uart.interrupt(), Level::High, "identifying does not clear");
            assert_eq!(uart.read(LSR) & LSR_DR, LSR_DR);
            assert_eq!(uart.read(RBR), byte);
        }
        assert_eq!(uart.interrupt(), Level::Low);
        assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_NONE);
        assert_eq!(uart.read(LSR) & LSR_DR, 0);
    }

    #[test]
    fn transmitter_empty_is_cleared_by_identifying_it() {
        let mut uart = opened(IER_ETBEI);
        assert_eq!(uart.interrupt(), Level::High, "empty when enabled");
        assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_THRE);
        assert_eq!(uart.interrupt(), Level::Low);
        uart.write(THR, b'x');
        assert_eq!(uart.interrupt(), Level::High, "empty again after a byte");
    }

    #[test]
    fn received_data_goes_before_transmitter_empty() {
        let mut uart = opened(IER_ERBFI | IER_ETBEI);
        uart.send(b"a");
        assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_RDA);
        assert_eq!(uart.read(RBR), b'a');
        assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_THRE);
        assert_eq!(uart.read(IIR), IIR_FIFOS | IIR_NONE);
    }

    #[test]
    fn the_line_is_gated_by_enable_and_out2() {
        let mut uart = opened(IER_ERBFI);
        uart.send(b"a");
        uart.write(IER, 0);
        assert_eq!(uart.interrupt(), Level::Low);
        uart.write(IER, IER_ERBFI);
        assert_eq!(
            uart.interrupt(),
            Level::High,
            "enabling what is pending asserts the line"
        );
        uart.write(MCR, MCR_RTS);
        assert_eq!(uart.interrupt(), Level::Low);
    }

    #[test]
    fn bytes_wait_for_rts_and_none_is_lost() {
        let mut uart = Uart::default();
        let sent: Vec<u8> = (0..=255).collect();
        assert_eq!(uart.room(), sent.len());
        uart.send(&sent);
        assert_eq!(uart.room(), 0);
        // What a driver does before it raises RTS: clear the receiver, try the loopback.
        uart.read(RBR);
        uart.write(MCR, MCR_LOOP);
        uart.write(THR, 0x55);
        assert_eq!(uart.read(RBR), 0x55);
        assert_eq!(uart.read(LSR) & LSR_DR, 0);
        uart.write(MCR, MCR_RTS);
        let received: Vec<u8> = (0..=255).map(|_| uart.read(RBR)).collect();
        assert_eq!(received, sent);
        assert_eq!(uart.room(), BURST);
    }

    #[test]
    fn the_next_burst_waits_for_the_end_of_the_last() {
        let mut uart = opened(IER_ERBFI);
        uart.send(b"ab");
        for byte in *b"ab" {
            assert_eq!(uart.room(), 0);
            assert_eq!(uart.read(RBR), byte);
        }
        assert_eq!(uart.room(), BURST);
    }

    #[test]
    fn lowering_rts_holds_the_peer() {
        let mut uart = opened(IER_ERBFI);
        uart.send(b"abc");
        uart.write(MCR, MCR_OUT2);
        assert_eq!(uart.read(RBR), b'a', "already in the register");
        assert_eq!(uart.read(LSR) & LSR_DR, 0);
        uart.write(MCR, MCR_OUT2 | MCR_RTS);
        assert_eq!(uart.read(RBR), b'b');
    }

    #[test]
    fn the_divisor_latch_hides_the_data_register() {
        let mut uart = opened(IER_ERBFI);
        uart.send(b"a");
        uart.write(LCR, 0x83);
        uart.write(0, 0x01);
        assert_eq!(uart.read(0), 0x01);
        uart.write(LCR, 0x03);
        assert_eq!(uart.read(RBR), b'a');
    }

    #[test]
    fn no_sequence_of_accesses_panics() {
        let mut uart = Uart::default();
        for step in 0u32..100_000 {
            let hash = step.wrapping_mul(0x9e37_79b9);
            let (offset, value) = ((hash >> 8) as u8 & 7, (hash >> 16) as u8);
            if hash >> 31 == 0 {
                uart.read(offset);
            } else {
                uart.write(offset, value);
            }
            let room = uart.room();
            uart.send(&[value][..room.min(1)]);
        }
    }
}
