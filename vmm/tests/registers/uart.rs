//! The 16550A of COM1 (National Semiconductor PC16550D datasheet). Rows name the section.

use crate::rig::check;

/// Controllers as in a PC, all lines but COM1's masked.
const IRQ4: &str = "20=11 21=20 21=04 21=01 21=ef";
/// The same, and the port as a driver sets it up: 115,200 bits per second, eight bits, DTR, RTS and OUT2 on.
const OPEN: &str = "20=11 21=20 21=04 21=01 21=ef 3fb=83 3f8=01 3f9=00 3fb=03 3fc=0b";
/// The same in loopback.
const LOOP: &str = "20=11 21=20 21=04 21=01 21=ef 3fb=83 3f8=01 3f9=00 3fb=03 3fc=1f 3fe?f0";

#[test]
fn each_register_keeps_the_bits_it_has() {
    check(
        IRQ4,
        "
        after power-on :: 3f9?00 3fa?01 3fb?03 3fc?08 3fd?60 3fe?b0 3ff?00
        8.1 LCR :: 3fb=ff 3fb?ff 3fb=55 3fb?55 3fb=00 3fb?00
        8.3 divisor latch, any order :: 3fb=83 3f9=12 3f8=34 3f8?34 3f9?12 3fb=03 3f9?00
            3fb=83 3f8?34 3f9?12
        8.3 DLAB hides neither IIR, MCR, LSR, MSR nor SCR :: 3fb=83 3fa?01 3fc?08 3fd?60 3fe?b0
            3ff=77 3ff?77
        8.7 IER bits 7 to 4 are zero :: 3f9=ff 3f9?0f 3f9=f0 3f9?00
        8.8 MCR bits 7 to 5 are zero :: 3fc=ff 3fc?1f 3fc=e0 3fc?00
        8.10 scratch :: 3ff=a5 3ff?a5 3ff=5a 3ff?5a
        8.4 LSR is not for writing :: 3fd=00 3fd?60 3fd=ff 3fd?60
        8.9 MSR is not for writing :: 3fe=0f 3fe?b0
        COM2 has registers of its own :: 3ff=11 2ff=22 3ff?11 2ff?22
        ",
    );
}

#[test]
fn characters_pass_in_both_directions() {
    check(
        OPEN,
        "
        8.4 transmitted, and empty at once :: 3f8=41 3f8=42 3fd?60 >41.42 >
        8.4 received :: <41.42 3fd?61 3f8?41 3fd?61 3f8?42 3fd?60
        the data register keeps the last one :: <41 3f8?41 3f8?41
        8.1 short characters lack the upper bits :: 3fb=00 3f8=ff >1f 3fb=02 3f8=ff >7f <ff 3f8?7f
        8.1 nothing leaves under break control :: 3fb=43 3f8=41 3fd?60 > 3fb=03 3f8=42 >42
        the peer waits for RTS :: 3fc=09 <41 3fd?60 3fc=0b 3fd?61 3f8?41
        the peer does not overrun a single register :: <41.42.43 3f8?41 3f8?42 3f8?43 3fd?60
        the peer does not overrun a FIFO :: 3fa=01 <00.01.02.03.04.05.06.07.08.09.0a.0b.0c.0d.0e.0f.10
            3fd?61 3f8?00 3f8?01 3f8?02 3f8?03 3f8?04 3f8?05 3f8?06 3f8?07 3f8?08 3f8?09 3f8?0a
            3f8?0b 3f8?0c 3f8?0d 3f8?0e 3f8?0f 3f8?10 3fd?60
        ",
    );
}

#[test]
fn the_fifo_control_register_does_what_it_says() {
    check(
        LOOP,
        "
        8.6 IIR bits 7, 6 tell that FIFOs are on :: 3fa?01 3fa=01 3fa?c1 3fa=00 3fa?01
        8.6 bits 5 and 4 are always 0 :: 3fa=3f 3fa?c1
        8.5 other bits are not written without bit 0 :: 3fa=01 3f8=41 3fa=c7 3fd?60 3fa=c0 3fa?01
            3f9=01 3f8=41 3fa?04
        8.5 bit 1 empties the receiver and clears itself :: 3fa=01 3f8=41 3f8=42 3fa=03 3fd?60
            3f8=43 3fd?61 3f8?43
        8.5 bit 2 leaves the receiver :: 3fa=01 3f8=41 3fa=05 3f8?41
        8.5 bit 0 the same again leaves the receiver :: 3fa=01 3f8=41 3fa=01 3fd?61 3f8?41
        8.5 turning FIFOs on or off empties the receiver :: 3f8=41 3fa=01 3fd?60 3f8=42 3fa=00 3fd?60
        8.5 sixteen characters :: 3fa=01 3f8=00 3f8=01 3f8=02 3f8=03 3f8=04 3f8=05 3f8=06 3f8=07
            3f8=08 3f8=09 3f8=0a 3f8=0b 3f8=0c 3f8=0d 3f8=0e 3f8=0f 3fd?61 3f8?00 3f8?01 3f8?02
            3f8?03 3f8?04 3f8?05 3f8?06 3f8?07 3f8?08 3f8?09 3f8?0a 3f8?0b 3f8?0c 3f8?0d 3f8?0e
            3f8?0f 3fd?60
        8.4 overrun without FIFO: the newest stays :: 3f8=41 3f8=42 3fd?63 3fd?61 3f8?42 3fd?60
        8.4 overrun with FIFO: the newest is lost :: 3fa=01 3f8=00 3f8=01 3f8=02 3f8=03 3f8=04
            3f8=05 3f8=06 3f8=07 3f8=08 3f8=09 3f8=0a 3f8=0b 3f8=0c 3f8=0d 3f8=0e 3f8=0f 3fd?61
            3f8=10 3fd?63 3fd?61 3f8?00 3f8=11 3f8?01 3f8?02 3f8?03 3f8?04 3f8?05 3f8?06 3f8?07
            3f8?08 3f8?09 3f8?0a 3f8?0b 3f8?0c 3f8?0d 3f8?0e 3f8?0f 3f8?11 3fd?60
        ",
    );
}

#[test]
fn received_data_interrupts_at_the_trigger_level() {
    check(
        OPEN,
        "
        8.6 without FIFO: until read :: 3f9=01 idle <41 intr 3fa?04 3fa?04 3f8?41 idle 3fa?01
        8.11 level 1 :: 3f9=01 3fa=01 <41 intr 3fa?c4 3f8?41 idle 3fa?c1
        8.11 level 4 :: 3f9=01 3fa=41 <00.01.02 idle 3fa?c1 <03 intr 3fa?c4 3f8?00 idle 3fa?c1
        8.11 level 8 :: 3f9=01 3fa=81 <00.01.02.03.04.05.06 idle <07 intr 3fa?c4 3f8?00 idle
        8.11 level 14 :: 3f9=01 3fa=c1 <00.01.02.03.04.05.06.07.08.09.0a.0b.0c idle <0d intr
            3fa?c4 3f8?00 idle
        8.11 the level may be moved while characters wait :: 3f9=01 3fa=c1 <00.01.02.03 idle 3fa=41 intr
            3fa=81 idle
        8.6 without FIFO each character is an edge :: 3f9=01 <41.42 intr ack:24 3f8?41 20=20 intr ack:24 3f8?42 20=20
            idle
        8.6 with FIFO those that reach the level are :: 3f9=01 3fa=01 <41.42 intr ack:24 3f8?41 20=20 idle 3f8?42 <43 intr
        8.7 only if enabled :: <41 idle 3fa?01 3f9=01 intr 3fa?04 3f9=00 idle
        ",
    );
}

/// Four characters of ten bits last 347,220 ns at 115,200 bits per second.
#[test]
fn a_fifo_that_nobody_reads_times_out() {
    check(
        OPEN,
        "
        8.11 four character times :: 3f9=01 3fa=81 <41 +347219ns idle 3fa?c1 +1ns intr 3fa?cc 3fa?cc
            3f8?41 idle 3fa?c1
        8.11 a character starts it anew :: 3f9=01 3fa=81 <41 +300us <42 +300us idle +48us intr
        8.11 a read starts it anew :: 3f9=01 3fa=81 <41.42 +300us 3f8?41 +300us idle +48us intr 3fa?cc
        8.11 a read clears it :: 3f9=01 3fa=81 <41.42 +1ms intr 3f8?41 idle +347us idle +1us intr
            3f8?42 idle +1s idle
        8.11 a character does not clear it :: 3f9=01 3fa=81 <41 +1ms intr <42 intr 3fa?cc
        8.11 an empty FIFO has none :: 3f9=01 3fa=81 <41 3f8?41 +1s idle
        8.11 emptying the FIFO clears it :: 3f9=01 3fa=81 <41 +1ms intr 3fa=83 idle +1s idle
        8.6 without FIFO there is none :: 3f9=01 <41 +1s 3fa?04
        8.7 only if enabled :: 3fa=81 <41 +1s idle 3f9=01 intr 3fa?cc
        8.3 the divisor makes characters longer :: 3fb=83 3f8=0c 3fb=03 3f9=01 3fa=81 <41 +4ms idle
            +167us intr
        ",
    );
}

#[test]
fn an_empty_transmitter_interrupts_once_for_each_event() {
    check(
        OPEN,
        "
        8.6 enabling it raises it :: idle 3f9=02 intr 3fa?02 idle 3fa?01
        8.6 enabling it again does not :: 3f9=02 3fa?02 3f9=02 idle 3fa?01 3f9=03 idle
        8.6 disabled and enabled does :: 3f9=02 3fa?02 3f9=00 3f9=02 intr 3fa?02
        8.6 a character that leaves does :: 3f9=02 3fa?02 3f8=41 intr 3fa?02 idle
        8.6 with FIFO too :: 3fa=01 3f9=02 3fa?c2 3fa?c1 3f8=41 3f8=42 intr 3fa?c2 3fa?c1 idle
        8.6 reading IIR does not clear it if it told another :: 3f9=03 <41 3fa?04 3fa?04 3f8?41 3fa?02
            3fa?01
        8.6 reading LSR does not clear it :: 3f9=02 3fd?60 intr 3fa?02
        8.6 writing a character clears it, so its leaving is an edge :: 3f9=02 intr ack:24 3f8=41 20=20 intr ack:24
            3f8=42 20=20 intr 3fa?02 idle >41.42
        8.7 a character that left while it was disabled :: 3f8=41 3fa?01 3f9=02 3fa?02 3fa?01
        ",
    );
}

#[test]
fn the_identification_register_tells_the_highest_priority() {
    check(
        LOOP,
        "
        Table IV: line status, data, transmitter, modem :: 3f9=0f 3fc=10 3f8=41 3f8=42 3fa?06 3fd?63
            3fa?04 3f8?42 3fa?02 3fa?00 3fe?0a/0a 3fa?01
        Table IV: time-out has data's priority :: 3f9=0f 3fa=81 3f8=41 +1ms 3fa?cc 3f8?41 3fa?c2 3fa?c1
        only what is enabled :: 3fc=10 3f8=41 3f8=42 3fa?01 3f9=08 3fa?00 3f9=09 3fa?04 3f9=0d 3fa?06
        ",
    );
}

#[test]
fn line_status_interrupts_until_read() {
    check(
        OPEN,
        "
        8.4 overrun :: 3fc=1b 3f9=04 3f8=41 3fa?01 3f8=42 3fa?06 3fd?63 3fa?01
        8.4 break, a character of zeros without stop bit :: 3f9=04 <break intr 3fa?06 3fd?79 idle
            3fd?61 3f8?00 3fd?60
        8.4 break with odd parity :: 3fb=0b <break 3fd?7d
        8.4 break with even parity :: 3fb=1b <break 3fd?79
        8.4 break in the FIFO is told with its character :: 3fa=01 3f9=04 <41 <break <42 idle 3fd?e1
            3f8?41 intr 3fa?c6 3fd?f9 idle 3fd?61 3f8?00 3f8?42 3fd?60
        8.4 bit 7 stays while there is another error :: 3fa=01 <break <41 <break 3fd?f9 3fd?e1 3f8?00
            3f8?41 3fd?f9 3fd?61 3f8?00 3fd?60
        8.4 emptying the FIFO removes the errors in it :: 3fa=01 <41 <break 3fd?e1 3fa=03 3fd?60
        8.7 only if enabled :: <break idle 3f9=04 intr
        ",
    );
}

#[test]
fn modem_status_tells_changes() {
    check(
        LOOP,
        "
        8.8 DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD :: 3fc=11 3fe?20/f0 3fc=12 3fe?10/f0 3fc=14
            3fe?40/f0 3fc=18 3fe?80/f0 3fc=1f 3fe?f0/f0 3fc=10 3fe?00/f0
        8.9 DDSR :: 3fc=10 3fe?0f/0f 3fc=11 3fe?22 3fe?20 3fc=10 3fe?02 3fe?00
        8.9 DCTS :: 3fc=10 3fe?0f/0f 3fc=12 3fe?11 3fe?10 3fc=10 3fe?01 3fe?00
        8.9 DDCD :: 3fc=10 3fe?0f/0f 3fc=18 3fe?88 3fe?80 3fc=10 3fe?08 3fe?00
        8.9 TERI only when RI goes off :: 3fc=10 3fe?0f/0f 3fc=14 3fe?40 3fc=10 3fe?04 3fe?00
        8.9 deltas stay until read :: 3fc=10 3fe?0f/0f 3fc=11 3fc=10 3fc=12 3fe?13
        8.7 a change interrupts until read :: 3f9=08 3fa?01 3fc=1e 3fa?00 3fe?d2 3fa?01
        8.9 the end of loopback is a change, too :: 3fc=10 3fe?0f/0f 3fc=08 3fe?bb 3fe?b0
        ",
    );
}

#[test]
fn loopback_disconnects_the_pins() {
    check(
        OPEN,
        "
        8.8 nothing leaves :: 3fc=1b 3f8=41 > 3fd?61 3f8?41
        8.8 nothing comes :: 3fc=1b <41 3fd?60 3fc=0b 3fd?61 3f8?41
        8.8 interrupts are on, but a PC's line is behind the OUT2 pin :: 3f9=02 intr 3fc=1b idle 3fa?02
            3f8=41 3fa?02 3fc=0b 3f8=41 intr
        OUT2 gates the line :: 3f9=02 intr 3fc=03 idle 3fa?02 3f8=41 idle 3fc=0b intr
        8.8 characters are as long as LCR says :: 3fc=1b 3fb=01 3f8=ff 3f8?3f
        8.8 a break stays outside :: 3fc=1b 3fb=43 3fd?60 3f8=41 3fd?61 3f8?41
        ",
    );
}
