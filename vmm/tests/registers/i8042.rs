//! The keyboard controller (IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller), with
//! nothing connected to it.

use crate::rig::check;

/// Controllers as in a PC, all lines but IRQ 1 and 12 masked.
const IRQS: &str = "20=11 21=20 21=04 21=01 21=f9 a0=11 a1=28 a1=02 a1=01 a1=ef";

#[test]
fn the_status_register_tells_what_happened() {
    check(
        IRQS,
        "
        after power-on :: 64?14 idle
        bit 3: a command was written :: 64=ae 64?1c 60=00 64?55
        bit 0: the output buffer is full :: 64=aa 64?1d 60?55 64?1c
        bit 2: the system flag of the command byte :: 64=60 60=00 64?10 64=60 60=04 64?14
        bit 5: from the auxiliary device :: 64=d3 60=5a 64?35 60?5a 64?14
        reading empties the output buffer, which keeps the byte :: 64=aa 60?55 64?1c 60?55 64?1c
        reading the status empties nothing :: 64=aa 64?1d 64?1d 60?55
        the latest answer counts :: 64=aa 64=ab 64?1d 60?00 64?1c
        ",
    );
}

#[test]
fn each_command_has_its_answer() {
    check(
        IRQS,
        "
        20 command byte :: 64=20 60?65
        20-3f, 60-7f RAM :: 64=60 60=47 64=7f 60=a5 64=61 60=5a 64=20 60?47 64=3f 60?a5 64=21 60?5a
            64=20 60?47
        60 sends nothing :: 64=60 60=65 64?14
        a4 no password :: 64=a4 60?f1
        a7, a8 auxiliary device :: 64=a8 64=20 60?45 64=a7 64=20 60?65
        a9 auxiliary interface :: 64=a9 60?00
        aa self-test :: 64=aa 60?55
        ab keyboard interface :: 64=ab 60?00
        ad, ae keyboard :: 64=ad 64=20 60?75 64=ae 64=20 60?65
        c0 input port :: 64=c0 60?a3
        d0, d1 output port :: 64=60 60=64 64=d0 60?cf 64=d1 60=dd 64=d0 60?cd 64=d1 60=df 64=d0 60?cf running
        d0 has the interrupt lines :: 64=aa 64=d0 60?df 64=60 60=67 64=d3 60=00 64=d0 60?ef 64=d0 60?cf
        d2 as from the keyboard :: 64=d2 60=1e 64?15 60?1e
        d3 as from the auxiliary device :: 64=d3 60=f0 64?35 60?f0
        e0 test inputs :: 64=e0 60?01 64=a8 64=e0 60?03 64=ad 64=e0 60?02
        a command takes the place of a parameter :: 64=d2 64=20 60?65 60=00 64?55
        what is no command does nothing :: 64=00 64?1c 64=bf 64?1c
        ",
    );
}

#[test]
fn nobody_answers_but_a_time_out() {
    check(
        IRQS,
        "
        keyboard: resend, general time-out :: 60=ff 64?55 60?fe 64?14
        auxiliary device: the same, of its own :: 64=d4 60=f2 64?75 60?fe 64?14
        identify :: 60=f2 60?fe
        a byte for a device enables it :: 64=ad 60=f4 60?fe 64=20 60?65 64=a7 64=d4 60=f4 60?fe 64=20 60?45
        ",
    );
}

#[test]
fn the_output_buffer_interrupts_if_enabled() {
    check(
        IRQS,
        "
        IRQ 1, until read :: 64=d2 60=1e intr 60?1e idle
        IRQ 1, acknowledged :: 64=d2 60=1e intr ack:21 60?1e
        IRQ 1, answers too :: 64=aa intr 60?55 idle
        IRQ 1, time-out :: 60=ed intr 60?fe idle
        IRQ 12 only if enabled :: 64=d3 60=a5 idle 60?a5 64=60 60=47 64=d3 60=a5 intr ack:2c 60?a5
        IRQ 1 only if enabled :: 64=60 60=64 64=d2 60=1e idle 64=60 60=65 intr 60?1e
        ",
    );
}

#[test]
fn the_output_port_resets_the_processor() {
    check(
        IRQS,
        "
        d1 without bit 0 :: 64=d1 running 60=ce reset
        f0 pulses bit 0 :: 64=f0 reset
        fe pulses bit 0 alone :: 64=fe reset
        f0 to fe, even ones: bit 0 among others :: 64=fc reset
        others pulse other lines :: 64=f1 64=f3 64=f5 64=f7 64=f9 64=fb 64=fd 64=ff running
        no other command does :: 64=ee 64=0e 64=ae 60=fe running
        ",
    );
}
