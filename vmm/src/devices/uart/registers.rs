//! Offsets and bits of the registers (PC16550D datasheet, 8.0 Registers, Tables II and IV).

/// Received data when read, data to transmit when written; the divisor's low byte while DLAB is on.
pub const DATA: u8 = 0;
/// Interrupt enables; the divisor's high byte while DLAB is on.
pub const IER: u8 = 1;
/// Interrupt identification when read, FIFO control when written.
pub const IIR_FCR: u8 = 2;
pub const LCR: u8 = 3;
pub const MCR: u8 = 4;
pub const LSR: u8 = 5;
pub const MSR: u8 = 6;
/// The scratch register.
pub const SCR: u8 = 7;

/// Received data available, and receiver time-out.
pub const IER_ERBFI: u8 = 1 << 0;
/// Transmitter holding register empty.
pub const IER_ETBEI: u8 = 1 << 1;
/// Receiver line status.
pub const IER_ELSI: u8 = 1 << 2;
/// Modem status.
pub const IER_EDSSI: u8 = 1 << 3;
pub const IER_WRITABLE: u8 = IER_ERBFI | IER_ETBEI | IER_ELSI | IER_EDSSI;

/// The interrupt identification, IIR bits 3 to 0, in falling priority.
pub const IIR_LINE_STATUS: u8 = 0b0110;
pub const IIR_TIME_OUT: u8 = 0b1100;
pub const IIR_DATA: u8 = 0b0100;
pub const IIR_THRE: u8 = 0b0010;
pub const IIR_MODEM_STATUS: u8 = 0b0000;
pub const IIR_NONE: u8 = 0b0001;
/// IIR bits 7 and 6: the FIFOs are on.
pub const IIR_FIFOS: u8 = 0b1100_0000;

/// The FIFOs are on; without this bit the others are not written.
pub const FCR_ENABLE: u8 = 1 << 0;
/// Empties the receiver's FIFO.
pub const FCR_RESET_RECEIVER: u8 = 1 << 1;
/// Position of the trigger level's two bits.
pub const FCR_TRIGGER_SHIFT: u32 = 6;

/// Two bits: the bits of a character, less five.
pub const LCR_WORD_LENGTH: u8 = 0b11;
/// More than one stop bit.
pub const LCR_STB: u8 = 1 << 2;
/// A parity bit.
pub const LCR_PEN: u8 = 1 << 3;
/// Even parity; with stick parity, a parity bit of zero.
pub const LCR_EPS: u8 = 1 << 4;
/// The transmitter's pin is held at zero.
pub const LCR_BREAK: u8 = 1 << 6;
/// The divisor takes the place of data and interrupt enables.
pub const LCR_DLAB: u8 = 1 << 7;

pub const MCR_DTR: u8 = 1 << 0;
pub const MCR_RTS: u8 = 1 << 1;
pub const MCR_OUT1: u8 = 1 << 2;
pub const MCR_OUT2: u8 = 1 << 3;
pub const MCR_LOOP: u8 = 1 << 4;
pub const MCR_WRITABLE: u8 = MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP;

/// A received character is there.
pub const LSR_DR: u8 = 1 << 0;
/// Overrun.
pub const LSR_OE: u8 = 1 << 1;
/// Parity error.
pub const LSR_PE: u8 = 1 << 2;
/// Framing error.
pub const LSR_FE: u8 = 1 << 3;
/// Break.
pub const LSR_BI: u8 = 1 << 4;
/// The transmitter's holding register, or its FIFO, is empty.
pub const LSR_THRE: u8 = 1 << 5;
/// The whole transmitter is empty.
pub const LSR_TEMT: u8 = 1 << 6;
/// A character in the FIFO has an error.
pub const LSR_FIFO_ERROR: u8 = 1 << 7;
/// The errors that belong to a character.
pub const LSR_CHARACTER_ERRORS: u8 = LSR_PE | LSR_FE | LSR_BI;

/// CTS, DSR or DCD has changed: the bit four places above.
pub const MSR_DELTAS: u8 = MSR_DCTS | MSR_DDSR | MSR_DDCD;
pub const MSR_DCTS: u8 = 1 << 0;
pub const MSR_DDSR: u8 = 1 << 1;
/// RI has gone off.
pub const MSR_TERI: u8 = 1 << 2;
pub const MSR_DDCD: u8 = 1 << 3;
pub const MSR_CTS: u8 = 1 << 4;
pub const MSR_DSR: u8 = 1 << 5;
pub const MSR_RI: u8 = 1 << 6;
pub const MSR_DCD: u8 = 1 << 7;
