//! Conformance of the 8259A pair with its datasheet, row by row, through ports, lines and delivered vectors.
//!
//! A row is a name and a script. Scripts speak in port addresses and bytes so that they can be read beside the datasheet.

use Step::{Ack, Fall, Idle, Pending, Read, Rise, Write};
use irq::{Irq, Level, Pic, PicPort};

/// One action, with what it must show.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u16, u8),
    /// Reading the port returns the byte.
    Read(u16, u8),
    Rise(u8),
    Fall(u8),
    /// INTR is high.
    Pending,
    /// INTR is low.
    Idle,
    /// An acknowledge cycle returns the vector.
    Ack(u8),
}

type Row<'a> = (&'a str, &'a [Step]);

/// Initialization as a PC does it: edge triggered, cascade on IR2, vectors 20h and 28h.
const PC: &[Step] = &[
    Write(0x20, 0x11),
    Write(0x21, 0x20),
    Write(0x21, 0x04),
    Write(0x21, 0x01),
    Write(0xa0, 0x11),
    Write(0xa1, 0x28),
    Write(0xa1, 0x02),
    Write(0xa1, 0x01),
];
/// The same with AEOI in both chips.
const PC_AUTO_EOI: &[Step] = &[
    Write(0x20, 0x11),
    Write(0x21, 0x20),
    Write(0x21, 0x04),
    Write(0x21, 0x03),
    Write(0xa0, 0x11),
    Write(0xa1, 0x28),
    Write(0xa1, 0x02),
    Write(0xa1, 0x03),
];
/// The same with special fully nested mode in the master.
const PC_NESTED: &[Step] = &[
    Write(0x20, 0x11),
    Write(0x21, 0x20),
    Write(0x21, 0x04),
    Write(0x21, 0x11),
    Write(0xa0, 0x11),
    Write(0xa1, 0x28),
    Write(0xa1, 0x02),
    Write(0xa1, 0x01),
];
/// The same with level triggered inputs (ICW1 LTIM).
const PC_LEVEL: &[Step] = &[
    Write(0x20, 0x19),
    Write(0x21, 0x20),
    Write(0x21, 0x04),
    Write(0x21, 0x01),
    Write(0xa0, 0x19),
    Write(0xa1, 0x28),
    Write(0xa1, 0x02),
    Write(0xa1, 0x01),
];

/// OCW3: the next reads return IRR.
const SELECT_IRR: u8 = 0x0a;
/// OCW3: the next reads return ISR.
const SELECT_ISR: u8 = 0x0b;
const POLL: u8 = 0x0c;
const SET_SPECIAL_MASK: u8 = 0x68;
const RESET_SPECIAL_MASK: u8 = 0x48;
const EOI: u8 = 0x20;
const SPECIFIC_EOI: u8 = 0x60;
const ROTATE_ON_EOI: u8 = 0xa0;
const ROTATE_ON_SPECIFIC_EOI: u8 = 0xe0;
const SET_PRIORITY: u8 = 0xc0;
const ROTATE_IN_AUTO_EOI_SET: u8 = 0x80;
const ROTATE_IN_AUTO_EOI_CLEAR: u8 = 0x00;
const NO_OPERATION: u8 = 0x40;

fn port(address: u16) -> PicPort {
    PicPort::decode(address).expect("scripts name ports of the pair")
}

fn line(number: u8) -> Irq {
    Irq::new(number).expect("scripts name lines 0 to 15")
}

fn check(setup: &[Step], rows: &[Row]) {
    for (name, script) in rows {
        let mut pic = Pic::new();
        for (index, &step) in setup.iter().chain(script.iter()).enumerate() {
            let place = || {
                format!(
                    "row '{name}', step {} after setup: {step:x?}",
                    index as isize - setup.len() as isize
                )
            };
            match step {
                Write(address, byte) => pic.write(port(address), byte),
                Read(address, byte) => assert_eq!(pic.read(port(address)), byte, "{}", place()),
                Rise(number) => pic.set_line(line(number), Level::High),
                Fall(number) => pic.set_line(line(number), Level::Low),
                Pending => assert!(pic.intr(), "{}", place()),
                Idle => assert!(!pic.intr(), "{}", place()),
                Ack(vector) => assert_eq!(pic.acknowledge(), vector, "{}", place()),
            }
        }
    }
}

#[test]
fn a_pair_that_was_never_initialized_requests_nothing() {
    check(
        &[],
        &[
            (
                "no request",
                &[Rise(0), Idle, Rise(8), Idle, Read(0x20, 0x01)],
            ),
            (
                "mask register works",
                &[
                    Write(0x21, 0xa5),
                    Read(0x21, 0xa5),
                    Write(0xa1, 0x5a),
                    Read(0xa1, 0x5a),
                ],
            ),
        ],
    );
}

#[test]
fn initialization_takes_the_words_that_icw1_announces() {
    check(
        &[],
        &[
            (
                "requests wait for the last word",
                &[
                    Write(0x20, 0x11),
                    Rise(3),
                    Idle,
                    Write(0x21, 0x40),
                    Idle,
                    Write(0x21, 0x04),
                    Idle,
                    Write(0x21, 0x01),
                    Pending,
                    Ack(0x43),
                ],
            ),
            (
                "IC4 = 0: no ICW4, next is OCW1",
                &[
                    Write(0x20, 0x10),
                    Write(0x21, 0x40),
                    Write(0x21, 0x04),
                    Write(0x21, 0xf7),
                    Read(0x21, 0xf7),
                    Rise(3),
                    Ack(0x43),
                ],
            ),
            (
                "SNGL = 1: no ICW3, IR2 is an input like the others",
                &[
                    Write(0x20, 0x13),
                    Write(0x21, 0x40),
                    Write(0x21, 0x01),
                    Write(0x21, 0xfb),
                    Read(0x21, 0xfb),
                    Rise(2),
                    Ack(0x42),
                ],
            ),
            (
                "SNGL = 1 and IC4 = 0: ICW2 alone",
                &[
                    Write(0x20, 0x12),
                    Write(0x21, 0x40),
                    Write(0x21, 0x0f),
                    Read(0x21, 0x0f),
                    Rise(6),
                    Ack(0x46),
                ],
            ),
            (
                "ICW2 bits 2..0 come from the level",
                &[Write(0x20, 0x12), Write(0x21, 0x4f), Rise(1), Ack(0x49)],
            ),
            (
                "ICW1 in the middle starts again",
                &[
                    Write(0x20, 0x11),
                    Write(0x21, 0x40),
                    Write(0x20, 0x12),
                    Write(0x21, 0x50),
                    Rise(1),
                    Pending,
                    Ack(0x51),
                ],
            ),
            (
                "each chip has its own sequence",
                &[
                    Write(0x20, 0x11),
                    Write(0xa0, 0x11),
                    Write(0x21, 0x40),
                    Write(0xa1, 0x70),
                    Write(0x21, 0x04),
                    Write(0xa1, 0x02),
                    Write(0x21, 0x01),
                    Write(0xa1, 0x01),
                    Rise(15),
                    Ack(0x77),
                ],
            ),
        ],
    );
}

#[test]
fn icw1_resets_what_the_datasheet_lists() {
    // The master again, without ICW4.
    const ICW1: Step = Write(0x20, 0x10);
    const ICW2: Step = Write(0x21, 0x20);
    const ICW3: Step = Write(0x21, 0x04);
    check(
        PC,
        &[
            (
                "mask register",
                &[Write(0x21, 0xff), ICW1, ICW2, ICW3, Read(0x21, 0x00)],
            ),
            (
                "edge sense: an input that is high must rise again",
                &[
                    Rise(4),
                    Pending,
                    ICW1,
                    ICW2,
                    ICW3,
                    Idle,
                    Read(0x20, 0x00),
                    Fall(4),
                    Rise(4),
                    Pending,
                    Ack(0x24),
                ],
            ),
            (
                "in-service register",
                &[
                    Rise(4),
                    Ack(0x24),
                    ICW1,
                    ICW2,
                    ICW3,
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "IR7 has the lowest priority",
                &[
                    Write(0x20, SET_PRIORITY | 3),
                    ICW1,
                    ICW2,
                    ICW3,
                    Rise(4),
                    Rise(3),
                    Ack(0x23),
                ],
            ),
            (
                "special mask mode",
                &[
                    Write(0x20, SET_SPECIAL_MASK),
                    ICW1,
                    ICW2,
                    ICW3,
                    Rise(1),
                    Ack(0x21),
                    Write(0x21, 0x02),
                    Rise(5),
                    Idle,
                ],
            ),
            (
                "status read",
                &[
                    Write(0x20, SELECT_ISR),
                    Rise(4),
                    Ack(0x24),
                    Fall(4),
                    Rise(3),
                    ICW1,
                    ICW2,
                    ICW3,
                    Rise(1),
                    Read(0x20, 0x02),
                ],
            ),
        ],
    );
    check(
        PC_AUTO_EOI,
        &[(
            "AEOI, when ICW4 is not to follow",
            &[
                ICW1,
                ICW2,
                ICW3,
                Rise(4),
                Ack(0x24),
                Write(0x20, SELECT_ISR),
                Read(0x20, 0x10),
            ],
        )],
    );
    check(
        PC_NESTED,
        &[(
            "special fully nested mode, when ICW4 is not to follow",
            &[ICW1, ICW2, ICW3, Rise(9), Ack(0x29), Rise(8), Idle],
        )],
    );
}

#[test]
fn a_level_in_service_keeps_out_its_own_and_lower_priorities() {
    check(
        PC,
        &[
            ("highest first", &[Rise(5), Rise(3), Rise(4), Ack(0x23)]),
            (
                "lower waits for the EOI",
                &[
                    Rise(3),
                    Ack(0x23),
                    Rise(4),
                    Idle,
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x24),
                ],
            ),
            (
                "higher interrupts",
                &[Rise(3), Ack(0x23), Rise(1), Pending, Ack(0x21)],
            ),
            (
                "same waits for the EOI",
                &[
                    Rise(3),
                    Ack(0x23),
                    Fall(3),
                    Rise(3),
                    Idle,
                    Write(0x20, EOI),
                    Ack(0x23),
                ],
            ),
            (
                "nested services end from the inside",
                &[
                    Rise(6),
                    Ack(0x26),
                    Rise(3),
                    Ack(0x23),
                    Rise(0),
                    Ack(0x20),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x49),
                    Write(0x20, EOI),
                    Read(0x20, 0x48),
                    Write(0x20, EOI),
                    Read(0x20, 0x40),
                    Write(0x20, EOI),
                    Read(0x20, 0x00),
                ],
            ),
        ],
    );
}

#[test]
fn masks_hold_back_requests_and_keep_them() {
    check(
        PC,
        &[
            (
                "masked request stays in IRR",
                &[
                    Write(0x21, 0x08),
                    Rise(3),
                    Idle,
                    Read(0x20, 0x08),
                    Write(0x21, 0x00),
                    Ack(0x23),
                ],
            ),
            (
                "masking takes INTR down",
                &[Rise(3), Pending, Write(0x21, 0x08), Idle],
            ),
            (
                "masking IR2 holds back the slave",
                &[
                    Write(0x21, 0x04),
                    Rise(9),
                    Idle,
                    Write(0x21, 0x00),
                    Ack(0x29),
                ],
            ),
            (
                "mask of the slave",
                &[Write(0xa1, 0x02), Rise(9), Idle, Rise(10), Ack(0x2a)],
            ),
            (
                "mask reads back",
                &[
                    Write(0x21, 0x96),
                    Read(0x21, 0x96),
                    Write(0xa1, 0x69),
                    Read(0xa1, 0x69),
                ],
            ),
            (
                "a mask does not end a service",
                &[Rise(3), Ack(0x23), Write(0x21, 0x08), Rise(4), Idle],
            ),
        ],
    );
}

#[test]
fn status_reads_select_irr_or_isr() {
    check(
        PC,
        &[
            (
                "IRR until acknowledged, ISR after",
                &[
                    Rise(3),
                    Write(0x20, SELECT_IRR),
                    Read(0x20, 0x08),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                    Ack(0x23),
                    Read(0x20, 0x08),
                    Write(0x20, SELECT_IRR),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "the choice is remembered, RR = 0 does not change it",
                &[
                    Rise(3),
                    Ack(0x23),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x08),
                    Write(0x20, 0x08),
                    Read(0x20, 0x08),
                ],
            ),
            (
                "each chip has its own choice",
                &[
                    Rise(9),
                    Ack(0x29),
                    Write(0xa0, SELECT_ISR),
                    Read(0xa0, 0x02),
                    Read(0x20, 0x00),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x04),
                ],
            ),
        ],
    );
}

#[test]
fn each_form_of_eoi_ends_the_service_it_names() {
    check(
        PC,
        &[
            (
                "non-specific: highest in service",
                &[
                    Rise(5),
                    Ack(0x25),
                    Rise(3),
                    Ack(0x23),
                    Write(0x20, EOI),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x20),
                ],
            ),
            (
                "non-specific: nothing in service",
                &[
                    Write(0x20, EOI),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                    Rise(0),
                    Ack(0x20),
                ],
            ),
            (
                "specific: the level given",
                &[
                    Rise(5),
                    Ack(0x25),
                    Rise(3),
                    Ack(0x23),
                    Write(0x20, SPECIFIC_EOI | 5),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x08),
                ],
            ),
            (
                "specific: a level not in service",
                &[
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, SPECIFIC_EOI | 3),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x20),
                ],
            ),
            (
                "no operation",
                &[
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, NO_OPERATION | 5),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x20),
                ],
            ),
            (
                "rotate in AEOI (set and clear) ends nothing",
                &[
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, ROTATE_IN_AUTO_EOI_SET),
                    Write(0x20, ROTATE_IN_AUTO_EOI_CLEAR),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x20),
                ],
            ),
            (
                "set priority ends nothing",
                &[
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, SET_PRIORITY | 5),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x20),
                ],
            ),
            (
                "a slave's service needs both",
                &[
                    Rise(9),
                    Ack(0x29),
                    Rise(10),
                    Idle,
                    Write(0xa0, EOI),
                    Idle,
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x2a),
                ],
            ),
        ],
    );
}

#[test]
fn rotation_moves_the_lowest_priority() {
    check(
        PC,
        &[
            (
                "rotate on non-specific EOI: the ended level becomes the lowest",
                &[
                    Rise(4),
                    Ack(0x24),
                    Write(0x20, ROTATE_ON_EOI),
                    Fall(4),
                    Rise(4),
                    Rise(5),
                    Rise(3),
                    Ack(0x25),
                ],
            ),
            (
                "rotate on non-specific EOI ends the highest of the rotated order",
                &[
                    Write(0x20, SET_PRIORITY | 4),
                    Rise(1),
                    Ack(0x21),
                    Rise(6),
                    Ack(0x26),
                    Write(0x20, ROTATE_ON_EOI),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x02),
                    Rise(7),
                    Pending,
                    Ack(0x27),
                ],
            ),
            (
                "rotate on non-specific EOI with nothing in service changes nothing",
                &[Write(0x20, ROTATE_ON_EOI), Rise(7), Rise(0), Ack(0x20)],
            ),
            (
                "rotate on specific EOI",
                &[
                    Rise(6),
                    Ack(0x26),
                    Rise(3),
                    Ack(0x23),
                    Write(0x20, ROTATE_ON_SPECIFIC_EOI | 3),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x40),
                    Rise(5),
                    Pending,
                    Ack(0x25),
                    Write(0x20, EOI),
                    Rise(0),
                    Idle,
                ],
            ),
            (
                "set priority: IR5 lowest, IR6 highest",
                &[
                    Write(0x20, SET_PRIORITY | 5),
                    Rise(5),
                    Rise(0),
                    Rise(6),
                    Ack(0x26),
                ],
            ),
            (
                "set priority: order goes round",
                &[
                    Write(0x20, SET_PRIORITY),
                    Rise(0),
                    Rise(7),
                    Rise(1),
                    Ack(0x21),
                    Write(0x20, EOI),
                    Ack(0x27),
                    Write(0x20, EOI),
                    Ack(0x20),
                ],
            ),
            (
                "the slave rotates by itself",
                &[
                    Write(0xa0, SET_PRIORITY | 1),
                    Rise(8),
                    Rise(9),
                    Rise(10),
                    Ack(0x2a),
                ],
            ),
        ],
    );
}

#[test]
fn special_mask_mode_lets_all_unmasked_levels_pass_a_masked_service() {
    check(
        PC,
        &[
            (
                "lower passes a masked service",
                &[
                    Rise(1),
                    Ack(0x21),
                    Rise(5),
                    Idle,
                    Write(0x20, SET_SPECIAL_MASK),
                    Idle,
                    Write(0x21, 0x02),
                    Pending,
                    Ack(0x25),
                ],
            ),
            (
                "a service that is not masked still keeps out",
                &[
                    Write(0x20, SET_SPECIAL_MASK),
                    Rise(3),
                    Ack(0x23),
                    Rise(1),
                    Ack(0x21),
                    Write(0x21, 0x02),
                    Rise(5),
                    Idle,
                ],
            ),
            (
                "the masked level itself stays inhibited",
                &[
                    Rise(1),
                    Ack(0x21),
                    Write(0x20, SET_SPECIAL_MASK),
                    Write(0x21, 0x02),
                    Fall(1),
                    Rise(1),
                    Idle,
                ],
            ),
            (
                "non-specific EOI passes over a masked service",
                &[
                    Rise(1),
                    Ack(0x21),
                    Write(0x20, SET_SPECIAL_MASK),
                    Write(0x21, 0x02),
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, EOI),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x02),
                    Write(0x20, EOI),
                    Read(0x20, 0x02),
                    Write(0x20, SPECIFIC_EOI | 1),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "reset special mask",
                &[
                    Write(0x20, SET_SPECIAL_MASK),
                    Rise(1),
                    Ack(0x21),
                    Write(0x21, 0x02),
                    Write(0x20, RESET_SPECIAL_MASK),
                    Rise(5),
                    Idle,
                ],
            ),
            (
                "ESMM = 0 leaves it as it is",
                &[
                    Write(0x20, SET_SPECIAL_MASK),
                    Write(0x20, 0x08),
                    Write(0x20, 0x28),
                    Rise(1),
                    Ack(0x21),
                    Write(0x21, 0x02),
                    Rise(5),
                    Pending,
                ],
            ),
        ],
    );
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    check(
        PC_AUTO_EOI,
        &[
            (
                "ISR stays clear",
                &[
                    Rise(4),
                    Ack(0x24),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                    Rise(5),
                    Pending,
                ],
            ),
            (
                "both chips of a cascaded request",
                &[
                    Rise(9),
                    Ack(0x29),
                    Write(0x20, SELECT_ISR),
                    Write(0xa0, SELECT_ISR),
                    Read(0x20, 0x00),
                    Read(0xa0, 0x00),
                ],
            ),
            (
                "a second request of the slave makes a new edge",
                &[Rise(9), Rise(8), Ack(0x28), Pending, Ack(0x29), Idle],
            ),
            (
                "rotate in AEOI: each acknowledged level becomes the lowest",
                &[
                    Write(0x20, ROTATE_IN_AUTO_EOI_SET),
                    Rise(4),
                    Ack(0x24),
                    Fall(4),
                    Rise(4),
                    Rise(3),
                    Rise(6),
                    Ack(0x26),
                    Ack(0x23),
                    Ack(0x24),
                ],
            ),
            (
                "rotate in AEOI cleared",
                &[
                    Write(0x20, ROTATE_IN_AUTO_EOI_SET),
                    Write(0x20, ROTATE_IN_AUTO_EOI_CLEAR),
                    Rise(4),
                    Ack(0x24),
                    Rise(5),
                    Rise(3),
                    Ack(0x23),
                ],
            ),
            (
                "a level triggered input that stays high requests again",
                &[
                    Write(0x4d0, 0x20),
                    Rise(5),
                    Ack(0x25),
                    Pending,
                    Ack(0x25),
                    Fall(5),
                    Idle,
                ],
            ),
            (
                "a poll ends by itself too",
                &[
                    Rise(4),
                    Write(0x20, POLL),
                    Read(0x20, 0x84),
                    Rise(5),
                    Pending,
                    Ack(0x25),
                ],
            ),
        ],
    );
}

#[test]
fn a_poll_acknowledges_in_place_of_the_processor() {
    check(
        PC,
        &[
            (
                "highest request, put in service",
                &[
                    Rise(6),
                    Rise(4),
                    Write(0x20, POLL),
                    Read(0x20, 0x84),
                    Idle,
                    Read(0x20, 0x40),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x10),
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x26),
                ],
            ),
            (
                "A0 = 1 reads the poll word too",
                &[
                    Rise(4),
                    Write(0x20, POLL),
                    Read(0x21, 0x84),
                    Read(0x21, 0x00),
                ],
            ),
            (
                "no request",
                &[
                    Write(0x20, POLL),
                    Read(0x20, 0x00),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "one read only",
                &[
                    Rise(4),
                    Write(0x20, POLL),
                    Read(0x20, 0x84),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "masked requests do not show",
                &[
                    Write(0x21, 0x10),
                    Rise(4),
                    Write(0x20, POLL),
                    Read(0x20, 0x00),
                    Read(0x20, 0x10),
                ],
            ),
            (
                "P = 0 withdraws the command",
                &[
                    Rise(4),
                    Write(0x20, POLL),
                    Write(0x20, SELECT_IRR),
                    Read(0x20, 0x10),
                ],
            ),
            (
                "master, then slave",
                &[
                    Rise(11),
                    Write(0x20, POLL),
                    Read(0x20, 0x82),
                    Write(0xa0, POLL),
                    Read(0xa0, 0x83),
                    Write(0xa0, SELECT_ISR),
                    Read(0xa0, 0x08),
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Idle,
                ],
            ),
            (
                "the slave alone takes the master's request away",
                &[Rise(11), Pending, Write(0xa0, POLL), Read(0xa0, 0x83), Idle],
            ),
            (
                "the slave's next request makes a new edge at the master",
                &[
                    Rise(11),
                    Write(0x20, POLL),
                    Read(0x20, 0x82),
                    Write(0x20, EOI),
                    Idle,
                    Write(0xa0, SET_PRIORITY | 3),
                    Rise(12),
                    Write(0xa0, POLL),
                    Read(0xa0, 0x84),
                    Idle,
                    Write(0xa0, EOI),
                    Pending,
                    Ack(0x2b),
                ],
            ),
        ],
    );
}

#[test]
fn an_acknowledge_without_request_returns_level_7_and_serves_nothing() {
    check(
        PC,
        &[
            (
                "no request at all",
                &[
                    Ack(0x27),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                    Read(0xa0, 0x00),
                    Rise(7),
                    Pending,
                    Ack(0x27),
                    Read(0x20, 0x80),
                ],
            ),
            (
                "edge withdrawn in time takes INTR down",
                &[Rise(4), Pending, Fall(4), Idle, Read(0x20, 0x00)],
            ),
            (
                "edge withdrawn after INTR was seen",
                &[
                    Rise(4),
                    Pending,
                    Fall(4),
                    Ack(0x27),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "masked after INTR was seen",
                &[
                    Rise(4),
                    Pending,
                    Write(0x21, 0x10),
                    Ack(0x27),
                    Write(0x21, 0x00),
                    Ack(0x24),
                ],
            ),
            (
                "slave's edge withdrawn takes the master's request away",
                &[Rise(12), Pending, Fall(12), Idle, Ack(0x27)],
            ),
            (
                "only the slave has nothing: level 15, IR2 in service at the master",
                &[
                    Rise(2),
                    Pending,
                    Ack(0x2f),
                    Write(0x20, SELECT_ISR),
                    Write(0xa0, SELECT_ISR),
                    Read(0x20, 0x04),
                    Read(0xa0, 0x00),
                    Rise(9),
                    Idle,
                    Write(0x20, EOI),
                    Read(0x20, 0x00),
                ],
            ),
            (
                "noise on IR2 does not hide the slave's request",
                &[
                    Rise(2),
                    Rise(15),
                    Fall(2),
                    Pending,
                    Ack(0x2f),
                    Write(0xa0, SELECT_ISR),
                    Read(0xa0, 0x80),
                ],
            ),
        ],
    );
}

#[test]
fn a_cascade_without_a_matching_slave_floats() {
    check(
        &[],
        &[(
            "master expects a slave on IR3, identity 2 stays silent",
            &[
                Write(0x20, 0x11),
                Write(0x21, 0x20),
                Write(0x21, 0x0c),
                Write(0x21, 0x01),
                Write(0xa0, 0x11),
                Write(0xa1, 0x28),
                Write(0xa1, 0x02),
                Write(0xa1, 0x01),
                Rise(3),
                Ack(0xff),
                Write(0x20, SELECT_ISR),
                Read(0x20, 0x08),
            ],
        )],
    );
}

#[test]
fn an_edge_requests_once_and_a_level_requests_while_high() {
    check(
        PC,
        &[
            (
                "edge: high after EOI does not request",
                &[Rise(5), Ack(0x25), Write(0x20, EOI), Idle],
            ),
            (
                "edge: falling and rising requests again",
                &[
                    Rise(5),
                    Ack(0x25),
                    Write(0x20, EOI),
                    Fall(5),
                    Idle,
                    Rise(5),
                    Ack(0x25),
                ],
            ),
            (
                "edge: rising twice while in service is one request",
                &[
                    Rise(5),
                    Ack(0x25),
                    Fall(5),
                    Rise(5),
                    Fall(5),
                    Rise(5),
                    Write(0x20, EOI),
                    Ack(0x25),
                    Write(0x20, EOI),
                    Idle,
                ],
            ),
            (
                "driving the level it has is no edge",
                &[Rise(5), Ack(0x25), Write(0x20, EOI), Rise(5), Idle],
            ),
        ],
    );
    check(
        PC_LEVEL,
        &[
            (
                "level: high after EOI requests again",
                &[
                    Rise(5),
                    Ack(0x25),
                    Idle,
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x25),
                ],
            ),
            (
                "level: low before EOI does not",
                &[Rise(5), Ack(0x25), Fall(5), Write(0x20, EOI), Idle],
            ),
            (
                "level: IRR shows the line even in service",
                &[Rise(5), Ack(0x25), Read(0x20, 0x20)],
            ),
            (
                "level: requests across ICW1",
                &[
                    Rise(5),
                    Write(0x20, 0x1a),
                    Write(0x21, 0x20),
                    Pending,
                    Ack(0x25),
                ],
            ),
            (
                "level: slave",
                &[
                    Rise(13),
                    Ack(0x2d),
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x2d),
                    Fall(13),
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Idle,
                ],
            ),
        ],
    );
}

#[test]
fn edge_level_control_registers_choose_per_line() {
    check(
        PC,
        &[
            (
                "IRQ 0 to 2 stay edge triggered",
                &[Write(0x4d0, 0xff), Read(0x4d0, 0xf8)],
            ),
            (
                "IRQ 8 and 13 stay edge triggered",
                &[Write(0x4d1, 0xff), Read(0x4d1, 0xde)],
            ),
            (
                "level beside edge",
                &[
                    Write(0x4d0, 0x20),
                    Rise(5),
                    Rise(6),
                    Ack(0x25),
                    Write(0x20, EOI),
                    Ack(0x25),
                    Fall(5),
                    Write(0x20, EOI),
                    Ack(0x26),
                    Write(0x20, EOI),
                    Idle,
                ],
            ),
            (
                "on the slave",
                &[
                    Write(0x4d1, 0x08),
                    Rise(11),
                    Ack(0x2b),
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x2b),
                ],
            ),
            (
                "a line that is high requests when it becomes level triggered",
                &[
                    Rise(11),
                    Ack(0x2b),
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Idle,
                    Write(0x4d1, 0x08),
                    Pending,
                ],
            ),
            (
                "ICW1 leaves them",
                &[Write(0x4d0, 0x28), Write(0x20, 0x11), Read(0x4d0, 0x28)],
            ),
        ],
    );
}

#[test]
fn the_slave_nests_at_the_masters_ir2() {
    check(
        PC,
        &[
            ("vectors of all slave lines", &[Rise(15), Ack(0x2f)]),
            ("IRQ 1 before the slave", &[Rise(8), Rise(1), Ack(0x21)]),
            (
                "the slave before IRQ 3",
                &[
                    Rise(3),
                    Rise(15),
                    Ack(0x2f),
                    Idle,
                    Write(0xa0, EOI),
                    Write(0x20, EOI),
                    Ack(0x23),
                ],
            ),
            (
                "IRQ 1 interrupts the slave's service",
                &[Rise(8), Ack(0x28), Rise(1), Pending, Ack(0x21)],
            ),
            (
                "a higher slave request waits for the master's EOI",
                &[
                    Rise(10),
                    Ack(0x2a),
                    Rise(8),
                    Idle,
                    Write(0x20, EOI),
                    Pending,
                    Ack(0x28),
                ],
            ),
            (
                "services are kept apart",
                &[
                    Rise(12),
                    Ack(0x2c),
                    Write(0x20, SELECT_ISR),
                    Write(0xa0, SELECT_ISR),
                    Read(0x20, 0x04),
                    Read(0xa0, 0x10),
                ],
            ),
        ],
    );
}

#[test]
fn special_fully_nested_mode_admits_higher_requests_of_the_slave_in_service() {
    check(
        PC_NESTED,
        &[
            (
                "higher slave request",
                &[Rise(10), Ack(0x2a), Rise(8), Pending, Ack(0x28)],
            ),
            (
                "lower slave request waits",
                &[Rise(10), Ack(0x2a), Rise(11), Idle],
            ),
            ("IRQ 3 still waits", &[Rise(10), Ack(0x2a), Rise(3), Idle]),
            (
                "other master levels do not nest in themselves",
                &[Rise(3), Ack(0x23), Fall(3), Rise(3), Idle],
            ),
            (
                "EOI to the slave first, to the master when its ISR is clear",
                &[
                    Rise(10),
                    Ack(0x2a),
                    Rise(8),
                    Ack(0x28),
                    Write(0xa0, EOI),
                    Write(0xa0, SELECT_ISR),
                    Read(0xa0, 0x04),
                    Write(0xa0, EOI),
                    Read(0xa0, 0x00),
                    Write(0x20, EOI),
                    Write(0x20, SELECT_ISR),
                    Read(0x20, 0x00),
                ],
            ),
        ],
    );
}

#[test]
fn every_line_delivers_its_own_vector() {
    for number in (0..16).filter(|&number| line(number) != Irq::CASCADE) {
        check(
            PC,
            &[("own vector", &[Rise(number), Pending, Ack(0x20 + number)])],
        );
    }
}

#[test]
fn a_clone_continues_like_its_original() {
    let mut pic = Pic::new();
    for step in PC {
        if let Write(address, byte) = *step {
            pic.write(port(address), byte);
        }
    }
    pic.set_line(line(11), Level::High);
    let mut saved = pic.clone();
    assert_eq!(pic.acknowledge(), 0x2b);
    assert_ne!(pic, saved);
    assert_eq!(saved.acknowledge(), 0x2b);
    assert_eq!(pic, saved);
}

#[test]
fn only_the_pairs_own_ports_and_lines_exist() {
    let decoded: Vec<u16> = (0..=u16::MAX)
        .filter(|&address| PicPort::decode(address).is_some())
        .collect();
    assert_eq!(decoded, [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1]);
    assert_eq!(Irq::new(15).map(Irq::number), Some(15));
    assert_eq!(Irq::new(16), None);
}
