//! The clock and its RAM (Motorola MC146818A datasheet; rows name the section). It starts on Thursday, 2024-02-29, at 23:59:58.

use crate::rig::check;

/// Controllers as in a PC, all lines but the clock's masked.
const IRQ8: &str = "20=11 21=20 21=04 21=01 21=fb a0=11 a1=28 a1=02 a1=01 a1=fe";

#[test]
fn each_register_keeps_the_bits_it_has() {
    check(
        IRQ8,
        "
        after power-on :: 70=0a 71?26 70=0b 71?02 70=0c 71?00 70=0d 71?80
        the index is not for reading :: 70=0d 70?ff
        70 bit 7, NMI mask, is no part of the index :: 70=8d 71?80 70=0d 71?80
        Register A: UIP is read-only :: 70=0a 71=ff 71?7f 71=a6 71?26
        Register B: all bits :: 70=0b 71=ff 71?ef 71=00 71?00 71=7f 71?7f
        Register C is read-only :: 70=0c 71=ff 71?00
        Register D is read-only :: 70=0d 71=00 71?80 71=ff 71?80
        RAM, first and last byte :: 70=0e 71=a5 70=7f 71=5a 70=0e 71?a5 70=7f 71?5a
        ",
    );
    let all: String = (0x0e..0x80).fold(String::new(), |script, index| {
        format!("{script} 70={index:02x} 71={:02x}", index ^ 0x55)
    });
    let all = (0x0e..0x80).fold(all, |script, index| {
        format!("{script} 70={index:02x} 71?{:02x}", index ^ 0x55)
    });
    check(IRQ8, &format!("every byte of RAM :: {all}"));
}

#[test]
fn time_registers_keep_what_is_written_until_they_are_counted() {
    for setup in ["", "70=0b 71=82"] {
        check(
            &format!("{IRQ8} {setup}"),
            "
            seconds :: 70=00 71=31 71?31
            minutes :: 70=02 71=41 71?41
            hours :: 70=04 71=17 71?17
            day of the week, whatever the date :: 70=06 71=02 71?02
            day, month, year, century in any order :: 70=09 71=99 70=08 71=02 70=32 71=20 70=07 71=31 71?31
                70=08 71?02 70=09 71?99 70=32 71?20 70=06 71?05
            alarm :: 70=01 71=59 70=03 71=58 70=05 71=23 70=01 71?59 70=03 71?58 70=05 71?23
            values that are no time :: 70=00 71=ff 71?ff 70=02 71=aa 71?aa 70=04 71=7e 71?7e 70=08 71=00 71?00
            ",
        );
    }
}

#[test]
fn the_time_goes_on() {
    check(
        IRQ8,
        "
        over the end of a leap day :: 70=00 71?58 +1s 71?59 +1s 71?00 70=02 71?00 70=04 71?00 70=06 71?06
            70=07 71?01 70=08 71?03 70=09 71?24 70=32 71?20
        over the end of a century :: 70=09 71=99 70=08 71=12 70=07 71=31 +2s 71?01 70=08 71?01 70=09 71?00
            70=32 71?21
        the day of the week counts by itself :: 70=06 71=07 +2s 71?01
        nothing but what wraps is counted :: 70=07 71=45 70=08 71=77 +1s 71?77 70=07 71?45
        a register that is written counts on from there :: 70=00 71=30 +1s 71?31 70=02 71?59 70=04 71?23
        after years :: +31536000s 70=00 71?58 70=02 71?59 70=04 71?23 70=07 71?28 70=08 71?02 70=09 71?25
        SET holds updates; they go on from what was written :: 70=0b 71=82 +10s 70=00 71?58 71=10 70=0b 71=02
            70=00 71?10 +999ms 71?10 +1ms 71?11
        SET does not move the ends of the seconds :: +300ms 70=0b 71=82 +300ms 71=02 70=00 71?58 +400ms 71?59
        ",
    );
}

#[test]
fn modes_say_how_the_time_is_shown() {
    check(
        IRQ8,
        "
        DM: binary :: 70=0b 71=06 70=00 71=3b 70=02 71=3b 70=04 71=17 +1s 70=00 71?00 70=02 71?00 70=04 71?00
        DM: BCD :: 70=00 71=09 +1s 71?10
        a mode does not change the registers :: 70=0b 71=06 70=00 71?58 70=04 71?23
        24/12: noon and midnight :: 70=0b 71=00 70=04 71=11 70=02 71=59 70=00 71=59 +1s 70=04 71?92 +3600s 71?81
            +39599s 71?91 +1s 71?12 +3600s 71?01
        24/12 in binary :: 70=0b 71=04 70=04 71=0b 70=02 71=3b 70=00 71=3b +1s 70=04 71?8c +43200s 71?0c
        DSE: the last Sunday in April :: 70=0b 71=03 70=08 71=04 70=07 71=28 70=06 71=01 70=04 71=01 +1s 71?01
            +1s 71?03 70=02 71?00 70=00 71?00 70=07 71?28
        DSE: the last Sunday in October, once :: 70=0b 71=03 70=08 71=10 70=07 71=27 70=06 71=01 70=04 71=01
            +2s 71?01 70=02 71?00 70=07 71?27 +3599s 70=02 71?59 70=04 71?01 +1s 71?02
        DSE: no other Sunday :: 70=0b 71=03 70=08 71=04 70=07 71=21 70=06 71=01 70=04 71=01 +2s 71?02
        DSE off :: 70=08 71=04 70=07 71=28 70=06 71=01 70=04 71=01 +2s 71?02
        ",
    );
}

#[test]
fn the_divider_makes_seconds() {
    check(
        IRQ8,
        "
        Register A, UIP: 244 us before an update :: 70=0a +999755us 71?26 +1us 71?a6 +244us 71?26
        UIP stays off under SET :: 70=0b 71=82 70=0a +999800us 71?26
        DV 11x: reset :: 70=0a 71=76 +10s 70=00 71?58 70=0c 71?00 70=0a 71=66 +10s 70=00 71?58
        UIP stays off in reset :: +999800us 70=0a 71?a6 71=76 71?76
        DV: the first update comes half a second later :: +700ms 70=0a 71=76 +10s 71=26 70=00 +499ms 71?58 +1ms
            71?59 +999ms 71?59 +1ms 71?00
        ",
    );
}

#[test]
fn interrupts_are_flagged_and_cleared_by_reading() {
    check(
        IRQ8,
        "
        UF: each update :: 70=0b 71=12 70=0c 71?00 +999ms idle +1ms intr 71?90/90 idle 71?00 +1s intr 71?90/90
        UF without UIE :: +1s idle 70=0c 71?10/90
        UF under SET: none :: 70=0b 71=82 +10s 70=0c 71?00/90
        UIE is cleared when SET goes on :: 70=0b 71=92 71?82 71=92 71?92 71=12 71?12
        UIE enables what is flagged already :: +1s idle 70=0b 71=12 intr 71=02 idle 70=0c 71?10/90
        AF: hours, minutes and seconds match :: 70=01 71=00 70=03 71=00 70=05 71=00 70=0b 71=22 +1999ms idle +1ms
            intr ack:28 70=0c 71?a0/a0 +86399s 71?00/20 +1s 71?a0/a0
        AF: don't care, from c0 to ff :: 70=01 71=ff 70=03 71=c0 70=05 71=ff 70=0b 71=22 70=0c +1s 71?a0/a0 +1s
            71?a0/a0
        AF: one register cares :: 70=01 71=30 70=03 71=ff 70=05 71=ff 70=0c +31s 71?00/20 +1s 71?20/20 +59s
            71?00/20 +1s 71?20/20
        AF: bf is a value :: 70=01 71=bf 70=03 71=ff 70=05 71=ff 70=0c +120s 71?00/20
        IRQF is off if no flag is enabled :: +1s 70=0c 71?00/80
        ",
    );
}

#[test]
fn the_periodic_interrupt_has_the_rate_selected() {
    // RS, and the period in nanoseconds, rounded up (Periodic Interrupt Rate, 32.768 kHz time base).
    let periods = [
        (1, 3_906_250),
        (2, 7_812_500),
        (3, 122_071),
        (4, 244_141),
        (5, 488_282),
        (6, 976_563),
        (7, 1_953_125),
        (8, 3_906_250),
        (9, 7_812_500),
        (10, 15_625_000),
        (11, 31_250_000),
        (12, 62_500_000),
        (13, 125_000_000),
        (14, 250_000_000),
        (15, 500_000_000),
    ];
    for (rate, period) in periods {
        let before = period - 1;
        check(
            IRQ8,
            &format!(
                "
                RS {rate} :: 70=0a 71={rate:02x} 71=2{rate:x} +500ms 70=0c 71?00/00 70=0b 71=42 70=0c
                    71?00/c0 +{before}ns idle +1ns intr 71?c0/c0 idle
                RS {rate} under SET :: 70=0b 71=c2 70=0a 71=2{rate:x} 70=0c +1s intr 71?c0/c0
                RS {rate} without PIE :: 70=0a 71=2{rate:x} 70=0c +1s idle 71?40/c0
                "
            ),
        );
    }
    check(
        IRQ8,
        "
        RS 0: none :: 70=0a 71=20 70=0b 71=42 70=0c +10s idle 71?00/40
        in reset: none :: 70=0a 71=76 70=0b 71=42 70=0c +10s idle 71?00/40
        ",
    );
}
