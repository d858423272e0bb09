use crate::cpu::eflags::{FIXED, IOPL, VM};
use crate::emulate::bench::*;
use crate::fault::Fault;

#[test]
fn the_bitmap_decides_when_iopl_does_not() {
    let mut bench = Bench::user();
    bench.poke(TSS + 0x66, 0x68_u16);
    bench.cpu.tr.limit = 0x68 + 0x10;
    bench.poke(TSS + 0x68, 0b1000_0000_u8);
    bench.poke(TSS + 0x69, 0b0000_0001_u8);
    let cases = [
        (0, 1, true),
        (6, 1, true),
        (7, 1, false),
        (6, 2, false),
        (8, 1, false),
        (9, 4, true),
        (5, 4, false),
        (0x7f, 1, true),
        (0x80, 1, false),
        (0xffff, 4, false),
    ];
    for (port, bytes, allowed) in cases {
        let result = bench.exec().io_allowed(port, bytes);
        assert_eq!(
            result,
            if allowed { Ok(()) } else { Err(Fault::gp(0)) },
            "{port:x}/{bytes}"
        );
    }
}

#[test]
fn iopl_opens_all_ports_except_in_virtual_8086_mode() {
    let mut bench = Bench::user();
    bench.poke(TSS + 0x66, 0xffff_u16);
    assert_eq!(bench.exec().io_allowed(0x60, 1), Err(Fault::gp(0)));
    bench.cpu.eflags = FIXED | IOPL;
    assert_eq!(bench.exec().io_allowed(0x60, 1), Ok(()));
    bench.cpu.eflags = FIXED | IOPL | VM;
    assert_eq!(bench.exec().io_allowed(0x60, 1), Err(Fault::gp(0)));
    assert_eq!(Bench::protected().exec().io_allowed(0x60, 1), Ok(()));
    assert_eq!(Bench::real().exec().io_allowed(0x60, 1), Ok(()));
}
