//! Conformance of the 8259A pair with its datasheet, row by row, through ports, lines and delivered vectors.
//!
//! A row is `name :: script`; a line without `::` continues the script above it. The words of a script:
//!
//! ```text
//! 20=11      writes 0x11 to port 0x20
//! 20=EOI3    writes a command by name, here the specific EOI of level 3 (see `command`)
//! 20?04      reads port 0x20 and expects 0x04
//! +3  -3     raises, lowers line 3
//! intr idle  expects INTR high, low
//! ack:23     runs an INTA cycle and expects vector 0x23
//! ```

use irq::{Irq, Level, Pic, PicPort};

/// Initialization as in a PC: edge triggered, cascade on IR2, vectors 0x20 and 0x28.
const PC: &str = "20=11 21=20 21=04 21=01 a0=11 a1=28 a1=02 a1=01";
/// Initialization as in a PC, but with AEOI in both chips.
const PC_AUTO_EOI: &str = "20=11 21=20 21=04 21=03 a0=11 a1=28 a1=02 a1=03";
/// Initialization as in a PC, but with special fully nested mode in the master.
const PC_NESTED: &str = "20=11 21=20 21=04 21=11 a0=11 a1=28 a1=02 a1=01";
/// Initialization as in a PC, but with level-triggered inputs (ICW1 LTIM).
const PC_LEVEL: &str = "20=19 21=20 21=04 21=01 a0=19 a1=28 a1=02 a1=01";

/// Returns OCW2 or OCW3 by name, whose last digit is the level if it takes one (8259A datasheet, Operation Command
/// Words).
fn command(word: &str) -> Option<u8> {
    let name = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let level = word[name.len()..].parse::<u8>().ok();
    match (name, level) {
        ("NOAROTATE", None) => Some(0x00),
        ("EOI", None) => Some(0x20),
        ("NOP", Some(level)) => Some(0x40 | level),
        ("EOI", Some(level)) => Some(0x60 | level),
        ("AROTATE", None) => Some(0x80),
        ("ROTATE", None) => Some(0xa0),
        ("PRIORITY", Some(level)) => Some(0xc0 | level),
        ("ROTATE", Some(level)) => Some(0xe0 | level),
        ("IRR", None) => Some(0x0a),
        ("ISR", None) => Some(0x0b),
        ("POLL", None) => Some(0x0c),
        ("NOSMM", None) => Some(0x48),
        ("SMM", None) => Some(0x68),
        _ => None,
    }
}

fn port(address: &str) -> PicPort {
    let address = u16::from_str_radix(address, 16).expect("ports are hexadecimal");
    PicPort::decode(address).expect("scripts name ports of the pair")
}

fn byte(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).expect("bytes are hexadecimal")
}

fn line(number: &str) -> Irq {
    number
        .parse()
        .ok()
        .and_then(Irq::new)
        .expect("scripts name lines 0 to 15")
}

/// Performs one word of a script and checks what it expects.
fn perform(pic: &mut Pic, word: &str, place: &str) {
    if let Some((address, value)) = word.split_once('=') {
        pic.write(port(address), command(value).unwrap_or_else(|| byte(value)));
    } else if let Some((address, value)) = word.split_once('?') {
        assert_eq!(pic.read(port(address)), byte(value), "{place}");
    } else if let Some(number) = word.strip_prefix('+') {
        pic.set_line(line(number), Level::High);
    } else if let Some(number) = word.strip_prefix('-') {
        pic.set_line(line(number), Level::Low);
    } else if let Some(vector) = word.strip_prefix("ack:") {
        assert_eq!(pic.acknowledge(), byte(vector), "{place}");
    } else {
        let expected = match word {
            "intr" => true,
            "idle" => false,
            _ => panic!("{place}: not a word of a script"),
        };
        assert_eq!(pic.intr(), expected, "{place}");
    }
}

/// Runs each row on a new pair after `setup`.
fn check(setup: &str, rows: &str) {
    let mut pic = Pic::new();
    let mut name = "";
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let script = match row.split_once(" :: ") {
            Some((new_name, script)) => {
                name = new_name;
                pic = Pic::new();
                setup
                    .split_whitespace()
                    .for_each(|word| perform(&mut pic, word, "setup"));
                script
            }
            None => row,
        };
        for (index, word) in script.split_whitespace().enumerate() {
            perform(
                &mut pic,
                word,
                &format!("row '{name}', word {index} of its line: {word}"),
            );
        }
    }
}

#[test]
fn a_pair_that_was_never_initialized_requests_nothing() {
    check(
        "",
        "
        no request :: +0 idle +8 idle 20?01
        mask register works :: 21=a5 21?a5 a1=5a a1?5a
        ",
    );
}

#[test]
fn initialization_takes_the_words_that_icw1_announces() {
    check(
        "",
        "
        requests wait for the last word :: 20=11 +3 idle 21=40 idle 21=04 idle 21=01 intr ack:43
        IC4 = 0: no ICW4, next is OCW1 :: 20=10 21=40 21=04 21=f7 21?f7 +3 ack:43
        SNGL = 1: no ICW3, IR2 is an input like the others :: 20=13 21=40 21=01 21=fb 21?fb +2
            ack:42
        SNGL = 1 and IC4 = 0: ICW2 alone :: 20=12 21=40 21=0f 21?0f +6 ack:46
        ICW1 bits 7..5 and ADI are the MCS-80's :: 20=f5 21=40 21=04 21=01 +3 ack:43
        ICW4 BUF and M/S are pins of a buffered bus :: 20=11 21=40 21=04 21=0d +3 ack:43 +1 intr
        ICW2 bits 2..0 come from the level :: 20=12 21=4f +1 ack:49
        ICW1 in the middle starts again :: 20=11 21=40 20=12 21=50 +1 intr ack:51
        each chip has its own sequence :: 20=11 a0=11 21=40 a1=70 21=04 a1=02 21=01 a1=01 +15
            ack:77
        ",
    );
}

#[test]
fn icw1_resets_what_the_datasheet_lists() {
    check(
        PC,
        "
        mask register :: 21=ff 20=10 21=20 21=04 21?00
        edge sense: an input that is high must rise again :: +4 intr 20=10 21=20 21=04 idle 20?00
            -4 +4 intr ack:24
        in-service register :: +4 ack:24 20=10 21=20 21=04 20=ISR 20?00
        IR7 has the lowest priority :: 20=PRIORITY3 20=10 21=20 21=04 +4 +3 ack:23
        special mask mode :: 20=SMM 20=10 21=20 21=04 +1 ack:21 21=02 +5 idle
        status read :: 20=ISR +4 ack:24 -4 +3 20=10 21=20 21=04 +1 20?02
        ",
    );
    check(
        PC_AUTO_EOI,
        "
        AEOI, when ICW4 is not to follow :: 20=10 21=20 21=04 +4 ack:24 20=ISR 20?10
        ",
    );
    check(
        PC_NESTED,
        "
        special fully nested mode, when ICW4 is not to follow :: 20=10 21=20 21=04 +9 ack:29 +8
            idle
        ",
    );
}

#[test]
fn a_level_in_service_keeps_out_its_own_and_lower_priorities() {
    check(
        PC,
        "
        highest first :: +5 +3 +4 ack:23
        lower waits for the EOI :: +3 ack:23 +4 idle 20=EOI intr ack:24
        higher interrupts :: +3 ack:23 +1 intr ack:21
        same waits for the EOI :: +3 ack:23 -3 +3 idle 20=EOI ack:23
        nested services end from the inside :: +6 ack:26 +3 ack:23 +0 ack:20 20=ISR 20?49 20=EOI
            20?48 20=EOI 20?40 20=EOI 20?00
        ",
    );
}

#[test]
fn masks_hold_back_requests_and_keep_them() {
    check(
        PC,
        "
        masked request stays in IRR :: 21=08 +3 idle 20?08 21=00 ack:23
        masking takes INTR down :: +3 intr 21=08 idle
        masking IR2 holds back the slave :: 21=04 +9 idle 21=00 ack:29
        mask of the slave :: a1=02 +9 idle +10 ack:2a
        mask reads back :: 21=96 21?96 a1=69 a1?69
        a mask does not end a service :: +3 ack:23 21=08 +4 idle
        ",
    );
}

#[test]
fn status_reads_select_irr_or_isr() {
    check(
        PC,
        "
        IRR until acknowledged, ISR after :: +3 20=IRR 20?08 20=ISR 20?00 ack:23 20?08 20=IRR
            20?00
        the choice is remembered, RR = 0 does not change it :: +3 ack:23 20=ISR 20?08 20=08 20?08
        RIS without RR changes nothing :: +3 20=09 20?08 ack:23 20=ISR 20=08 20?08
        each chip has its own choice :: +9 ack:29 a0=ISR a0?02 20?00 20=ISR 20?04
        ",
    );
}

#[test]
fn each_form_of_eoi_ends_the_service_it_names() {
    check(
        PC,
        "
        non-specific: highest in service :: +5 ack:25 +3 ack:23 20=EOI 20=ISR 20?20
        non-specific: nothing in service :: 20=EOI 20=ISR 20?00 +0 ack:20
        specific: the level given :: +5 ack:25 +3 ack:23 20=EOI5 20=ISR 20?08
        specific: a level not in service :: +5 ack:25 20=EOI3 20=ISR 20?20
        specific: each level of the slave :: +15 ack:2f +13 idle 20=EOI2 intr ack:2d a0=ISR a0?a0
            a0=EOI7 a0?20 a0=EOI5 a0?00
        no operation :: +5 ack:25 20=NOP5 20=ISR 20?20
        rotate in AEOI (set and clear) ends nothing :: +5 ack:25 20=AROTATE 20=NOAROTATE 20=ISR
            20?20
        set priority ends nothing :: +5 ack:25 20=PRIORITY5 20=ISR 20?20
        a slave's service needs both :: +9 ack:29 +10 idle a0=EOI idle 20=EOI intr ack:2a
        ",
    );
}

#[test]
fn rotation_moves_the_lowest_priority() {
    check(
        PC,
        "
        rotate on non-specific EOI: the ended level becomes the lowest :: +4 ack:24 20=ROTATE -4
            +4 +5 +3 ack:25
        rotate on non-specific EOI ends the highest of the rotated order :: 20=PRIORITY4 +1 ack:21
            +6 ack:26 20=ROTATE 20=ISR 20?02 +7 intr ack:27
        rotate on non-specific EOI with nothing in service changes nothing :: 20=ROTATE +7 +0
            ack:20
        rotate on specific EOI :: +6 ack:26 +3 ack:23 20=ROTATE3 20=ISR 20?40 +5 intr ack:25
            20=EOI +0 idle
        rotate on specific EOI: a level not in service becomes the lowest too :: 20=ROTATE3 20=ISR
            20?00 +3 +4 ack:24
        set priority: a service keeps out what is lower in the new order :: +5 ack:25 20=PRIORITY4
            +6 +4 idle 20=PRIORITY5 intr ack:26
        non-specific EOI ends the highest of the new order :: +5 ack:25 +3 ack:23 20=PRIORITY3
            20=EOI 20=ISR 20?08
        set priority: IR5 lowest, IR6 highest :: 20=PRIORITY5 +5 +0 +6 ack:26
        set priority: order goes round :: 20=PRIORITY0 +0 +7 +1 ack:21 20=EOI ack:27 20=EOI ack:20
        the slave rotates by itself :: a0=PRIORITY1 +8 +9 +10 ack:2a
        ",
    );
}

/// Set priority and specific rotation are tried with each level; the order then begins with the level after it.
#[test]
fn each_level_can_be_the_lowest() {
    for lowest in 0..8 {
        let order: Vec<u8> = (1..=8).map(|distance| (lowest + distance) % 8).collect();
        let delivered: String = order.iter().map(|&level| deliver(level)).collect();
        for name in ["PRIORITY", "ROTATE"] {
            check(
                PC,
                &format!(
                    "{name}{lowest} :: 20={name}{lowest} +0 +1 +3 +4 +5 +6 +7 {delivered} idle"
                ),
            );
        }
    }
}

/// Returns the words that deliver `level` of the master and end its service. Line 2 is the cascade.
fn deliver(level: u8) -> String {
    if level == Irq::CASCADE.number() {
        String::new()
    } else {
        format!("ack:{:x} 20=EOI{level} ", 0x20 + level)
    }
}

#[test]
fn special_mask_mode_lets_all_unmasked_levels_pass_a_masked_service() {
    check(
        PC,
        "
        lower passes a masked service :: +1 ack:21 +5 idle 20=SMM idle 21=02 intr ack:25
        a service that is not masked still keeps out :: 20=SMM +3 ack:23 +1 ack:21 21=02 +5 idle
        the masked level itself stays inhibited :: +1 ack:21 20=SMM 21=02 -1 +1 idle
        non-specific EOI passes over a masked service :: +1 ack:21 20=SMM 21=02 +5 ack:25 20=EOI
            20=ISR 20?02 20=EOI 20?02 20=EOI1 20?00
        the slave's too :: +8 ack:28 20=EOI +12 idle a0=SMM a1=01 intr ack:2c
        higher still interrupts :: +5 ack:25 20=SMM 21=20 +6 ack:26 +1 intr ack:21
        reset special mask :: 20=SMM +1 ack:21 21=02 20=NOSMM +5 idle
        ESMM = 0 leaves it as it is :: 20=SMM 20=08 20=28 +1 ack:21 21=02 +5 intr
        ",
    );
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    check(
        PC_AUTO_EOI,
        "
        ISR stays clear :: +4 ack:24 20=ISR 20?00 +5 intr
        both chips of a cascaded request :: +9 ack:29 20=ISR a0=ISR 20?00 a0?00
        a second request of the slave makes a new edge :: +9 +8 ack:28 intr ack:29 idle
        rotate in AEOI: each acknowledged level becomes the lowest :: 20=AROTATE +4 ack:24 -4 +4
            +3 +6 ack:26 ack:23 ack:24
        rotate in AEOI cleared :: 20=AROTATE 20=NOAROTATE +4 ack:24 +5 +3 ack:23
        a level triggered input that stays high requests again :: 4d0=20 +5 ack:25 intr ack:25 -5
            idle
        a poll of the slave drops its INT :: +9 +8 20=POLL 20?82 idle a0=POLL a0?80 intr ack:29
        a poll ends by itself too :: +4 20=POLL 20?84 +5 intr ack:25
        ",
    );
}

#[test]
fn a_poll_acknowledges_in_place_of_the_processor() {
    check(
        PC,
        "
        highest request, put in service :: +6 +4 20=POLL 20?84 idle 20?40 20=ISR 20?10 20=EOI intr
            ack:26
        A0 = 1 reads the poll word too :: +4 20=POLL 21?84 21?00
        no request :: 20=POLL 20?00 20=ISR 20?00
        P overrides RR, which holds from the next read on :: +4 20=0f 20?84 20?10
        a service that keeps the request out keeps it out of the poll :: +3 ack:23 +4 20=POLL 20?00
            20=EOI 20=POLL 20?84
        one read only :: +4 20=POLL 20?84 20?00
        masked requests do not show :: 21=10 +4 20=POLL 20?00 20?10
        P = 0 withdraws the command :: +4 20=POLL 20=IRR 20?10
        master, then slave :: +11 20=POLL 20?82 a0=POLL a0?83 a0=ISR a0?08 a0=EOI 20=EOI idle
        the slave alone takes the master's request away :: +11 intr a0=POLL a0?83 idle
        the slave's next request makes a new edge at the master :: +11 20=POLL 20?82 20=EOI idle
            a0=PRIORITY3 +12 a0=POLL a0?84 idle a0=EOI intr ack:2b
        ",
    );
}

#[test]
fn an_acknowledge_without_request_returns_level_7_and_serves_nothing() {
    check(
        PC,
        "
        no request at all :: ack:27 20=ISR 20?00 a0?00 +7 intr ack:27 20?80
        edge withdrawn in time takes INTR down :: +4 intr -4 idle 20?00
        edge withdrawn after INTR was seen :: +4 intr -4 ack:27 20=ISR 20?00
        level withdrawn after INTR was seen :: 4d0=20 +5 intr -5 ack:27 20=ISR 20?00
        level 7 follows ICW2 :: 20=11 21=48 21=04 21=01 ack:4f
        level 15 needs the master's EOI only :: +2 ack:2f -2 +15 20=EOI intr ack:2f a0=ISR a0?80
        a real level 7 is in service :: +7 ack:27 20=ISR 20?80 20=EOI 20?00
        masked after INTR was seen :: +4 intr 21=10 ack:27 21=00 ack:24
        slave's edge withdrawn takes the master's request away :: +12 intr -12 idle ack:27
        only the slave has nothing: level 15, IR2 in service at the master :: +2 intr ack:2f
            20=ISR a0=ISR 20?04 a0?00 +9 idle 20=EOI 20?00
        noise on IR2 does not hide the slave's request :: +2 +15 -2 intr ack:2f a0=ISR a0?80
        ",
    );
}

#[test]
fn a_cascade_without_a_matching_slave_floats() {
    check(
        "",
        "
        master expects a slave on IR3, identity 2 stays silent :: 20=11 21=20 21=0c 21=01 a0=11
            a1=28 a1=02 a1=01 +3 ack:ff 20=ISR 20?08
        ",
    );
}

#[test]
fn an_edge_requests_once_and_a_level_requests_while_high() {
    check(
        PC,
        "
        edge: high after EOI does not request :: +5 ack:25 20=EOI idle
        edge: falling and rising requests again :: +5 ack:25 20=EOI -5 idle +5 ack:25
        edge: rising twice while in service is one request :: +5 ack:25 -5 +5 -5 +5 20=EOI ack:25
            20=EOI idle
        driving the level it has is no edge :: +5 ack:25 20=EOI +5 idle
        ",
    );
    check(
        PC_LEVEL,
        "
        level: high after EOI requests again :: +5 ack:25 idle 20=EOI intr ack:25
        level: low before EOI does not :: +5 ack:25 -5 20=EOI idle
        level: IRR shows the line even in service :: +5 ack:25 20?20
        level: requests across ICW1 :: +5 20=1a 21=20 intr ack:25
        level: while it is high, each EOI is followed by the next request :: +3 ack:23 20=EOI ack:23
            20=EOI ack:23 20=EOI -3 idle
        level: IR0 too :: +0 ack:20 20=EOI intr ack:20
        level: slave :: +13 ack:2d a0=EOI 20=EOI intr ack:2d -13 a0=EOI 20=EOI idle
        ",
    );
}

#[test]
fn edge_level_control_registers_choose_per_line() {
    check(
        PC,
        "
        IRQ 0 to 2 stay edge triggered :: 4d0=ff 4d0?f8
        IRQ 8 and 13 stay edge triggered :: 4d1=ff 4d1?de
        level beside edge :: 4d0=20 +5 +6 ack:25 20=EOI ack:25 -5 20=EOI ack:26 20=EOI idle
        on the slave :: 4d1=08 +11 ack:2b a0=EOI 20=EOI intr ack:2b
        a line that is high requests when it becomes level triggered :: +11 ack:2b a0=EOI 20=EOI
            idle 4d1=08 intr
        ICW1 leaves them :: 4d0=28 20=11 4d0?28
        ",
    );
}

#[test]
fn the_slave_nests_at_the_masters_ir2() {
    check(
        PC,
        "
        vectors of all slave lines :: +15 ack:2f
        IRQ 1 before the slave :: +8 +1 ack:21
        the slave before IRQ 3 :: +3 +15 ack:2f idle a0=EOI 20=EOI ack:23
        IRQ 1 interrupts the slave's service :: +8 ack:28 +1 intr ack:21
        a higher slave request waits for the master's EOI :: +10 ack:2a +8 idle 20=EOI intr ack:28
        services are kept apart :: +12 ack:2c 20=ISR a0=ISR 20?04 a0?10
        ",
    );
}

#[test]
fn special_fully_nested_mode_admits_higher_requests_of_the_slave_in_service() {
    check(
        PC_NESTED,
        "
        higher slave request :: +10 ack:2a +8 intr ack:28
        lower slave request waits :: +10 ack:2a +11 idle
        IRQ 3 still waits :: +10 ack:2a +3 idle
        other master levels do not nest in themselves :: +3 ack:23 -3 +3 idle
        EOI to the slave first, to the master when its ISR is clear :: +10 ack:2a +8 ack:28 a0=EOI
            a0=ISR a0?04 a0=EOI a0?00 20=EOI 20=ISR 20?00
        ",
    );
}

#[test]
fn every_line_delivers_its_own_vector() {
    for number in (0..16).filter(|&number| number != Irq::CASCADE.number()) {
        check(
            PC,
            &format!("own vector :: +{number} intr ack:{:x}", 0x20 + number),
        );
    }
}

#[test]
fn the_masks_are_known_once_both_chips_are_initialized() {
    let masks = |script: &str| {
        let mut pic = Pic::new();
        script
            .split_whitespace()
            .for_each(|word| perform(&mut pic, word, "setup"));
        pic.masks()
    };
    assert_eq!(masks("21=ff a1=ff"), None);
    let (master, slave) = PC.split_once(" a0").unwrap();
    assert_eq!(masks(master), None);
    assert_eq!(masks(&format!("a0{slave}")), None);
    assert_eq!(masks(PC), Some(0));
    assert_eq!(masks(&format!("{PC} 21=fb a1=7f")), Some(0x7ffb));
    // A new initialization has begun.
    assert_eq!(masks(&format!("{PC} a1=7f a0=11")), None);
}

#[test]
fn a_clone_continues_like_its_original() {
    let mut pic = Pic::new();
    for word in PC.split_whitespace() {
        perform(&mut pic, word, "setup");
    }
    pic.set_line(line("11"), Level::High);
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
