//! The port, its interrupt line and its peer.

use super::{
    registers::{IIR_FCR as IIR, LSR_DR, LSR_OE, MCR_LOOP, MCR_OUT2, MCR_RTS},
    *,
};
use crate::bus::{decode_state, encode_state};
use proptest::{collection::vec, prelude::*, sample};

const RBR: u8 = 0;
const THR: u8 = 0;

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
        assert_eq!(uart.read(IIR), IIR_DATA);
        assert_eq!(uart.interrupt(), Level::High, "identifying does not clear");
        assert_eq!(uart.read(LSR) & LSR_DR, LSR_DR);
        assert_eq!(uart.read(RBR), byte);
    }
    assert_eq!(uart.interrupt(), Level::Low);
    assert_eq!(uart.read(IIR), IIR_NONE);
    assert_eq!(uart.read(LSR) & LSR_DR, 0);
}

#[test]
fn transmitter_empty_is_cleared_by_identifying_it() {
    let mut uart = opened(IER_ETBEI);
    assert_eq!(uart.interrupt(), Level::High, "empty when enabled");
    assert_eq!(uart.read(IIR), IIR_THRE);
    assert_eq!(uart.interrupt(), Level::Low);
    uart.write(THR, b'x');
    assert_eq!(uart.interrupt(), Level::High, "empty again after a byte");
}

#[test]
fn received_data_goes_before_transmitter_empty() {
    let mut uart = opened(IER_ERBFI | IER_ETBEI);
    uart.send(b"a");
    assert_eq!(uart.read(IIR), IIR_DATA);
    assert_eq!(uart.read(RBR), b'a');
    assert_eq!(uart.read(IIR), IIR_THRE);
    assert_eq!(uart.read(IIR), IIR_NONE);
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
fn a_fifo_takes_what_it_holds_and_the_peer_keeps_the_rest() {
    let mut uart = opened(IER_ERBFI);
    uart.write(IIR, 0xc1);
    let sent: Vec<u8> = (0..40).collect();
    uart.send(&sent);
    uart.write(MCR, MCR_OUT2);
    let read = |uart: &mut Uart| -> Vec<u8> {
        let unread = |uart: &mut Uart| uart.read(LSR) & LSR_DR != 0;
        std::iter::from_fn(|| unread(uart).then(|| uart.read(RBR))).collect()
    };
    assert_eq!(read(&mut uart), sent[..16], "RTS is low");
    uart.write(MCR, MCR_OUT2 | MCR_RTS);
    assert_eq!(read(&mut uart), sent[16..]);
    assert_eq!(uart.read(LSR) & LSR_OE, 0);
}

#[test]
fn more_than_there_is_room_for_waits_too() {
    let mut uart = opened(IER_ERBFI);
    let sent: Vec<u8> = (0..1000).map(|number| number as u8).collect();
    uart.send(&sent[..600]);
    uart.send(&sent[600..]);
    assert_eq!(uart.room(), 0);
    uart.check().unwrap();
    let received: Vec<u8> = sent.iter().map(|_| uart.read(RBR)).collect();
    assert_eq!(received, sent);
    assert_eq!(uart.room(), BURST);
}

#[test]
fn the_time_out_has_a_time_at_which_it_is_due() {
    let mut uart = opened(IER_ERBFI);
    uart.write(IIR, 0x81);
    uart.send(b"abc");
    assert_eq!(uart.due(), 0, "starts at once");
    uart.advance(1_000);
    // Four characters of ten bits at 9600 bits per second.
    let end = 1_000 + 4 * 1_041_666;
    assert_eq!(uart.due(), end);
    uart.advance(end - 1);
    assert_eq!(uart.interrupt(), Level::Low);
    uart.advance(end);
    assert_eq!(uart.interrupt(), Level::High);
    assert_eq!(uart.due(), u64::MAX);
    uart.read(RBR);
    assert_eq!(uart.interrupt(), Level::Low);
    assert_eq!(uart.due(), 0, "starts anew");
    uart.read(RBR);
    uart.read(RBR);
    assert_eq!(uart.due(), u64::MAX, "nothing is left to read");
}

#[test]
fn impossible_states_are_named() {
    let rejected = |change: fn(&mut Uart)| {
        let mut uart = Uart::default();
        change(&mut uart);
        uart.check().map_err(|error| error.to_string())
    };
    assert_eq!(rejected(|_| ()), Ok(()));
    let impossible = |what: &str| Err(format!("impossible value of {what}"));
    assert_eq!(
        rejected(|uart| uart.interrupt_enable = 0x10),
        impossible("interrupt enable")
    );
}

/// An event at the port.
#[derive(Clone, Debug)]
enum Event {
    Read(u8),
    Write(u8, u8),
    Send(Vec<u8>),
    Break,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..8u8).prop_map(Event::Read),
        4 => (0..8u8, any::<u8>()).prop_map(|(offset, value)| Event::Write(offset, value)),
        // Registers as drivers set them.
        1 => sample::select(vec![(IIR, 0xc7), (IIR, 0x81), (MCR, 0x0b), (MCR, 0x1b), (LCR, 0x03)])
            .prop_map(|(offset, value)| Event::Write(offset, value)),
        2 => vec(any::<u8>(), 0..20).prop_map(Event::Send),
        1 => Just(Event::Break),
        2 => (0..100_000_000u64).prop_map(Event::Pass),
    ];
    vec(event, 0..100)
}

fn happen(uart: &mut Uart, now: &mut u64, event: &Event) -> (u8, Level, bool, u64) {
    let mut seen = 0;
    match event {
        Event::Read(offset) => seen = uart.read(*offset),
        Event::Write(offset, value) => uart.write(*offset, *value),
        Event::Send(bytes) => uart.send(bytes),
        Event::Break => uart.send_break(),
        Event::Pass(time) => {
            uart.advance(*now);
            *now += time;
            uart.advance(*now);
        }
    }
    (seen, uart.interrupt(), uart.take_dip(), uart.due())
}

proptest! {
    #[test]
    fn a_port_restored_at_any_moment_is_the_same(events in events()) {
        let (mut uart, mut now) = (Uart::default(), 0);
        for event in &events {
            let mut restored: Uart = decode_state(&encode_state(&uart).unwrap()).unwrap();
            restored.check().unwrap();
            prop_assert_eq!(&restored, &uart);
            let mut then = now;
            let seen = happen(&mut uart, &mut now, event);
            prop_assert_eq!(happen(&mut restored, &mut then, event), seen, "{:?}", event);
        }
    }
}
