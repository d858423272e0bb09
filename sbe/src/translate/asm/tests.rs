//! Encodings, compared with those of iced.

use super::*;
use iced_x86::Decoder;

/// The text of what `emit` encodes, one instruction a line.
fn text(emit: impl FnOnce(&mut Asm)) -> String {
    let mut asm = Asm::new();
    emit(&mut asm);
    let bytes = asm.finish().expect("branches reach")[0].to_vec();
    Decoder::with_ip(64, &bytes, 0, 0)
        .into_iter()
        .map(|instruction| instruction.to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn moves_and_addresses() {
    let lines = text(|a| {
        a.mov32(R8, RBX);
        a.mov64(RCX, R13);
        a.load32(RAX, at(R13, 0));
        a.load64(RCX, indexed(R14, RCX, 3, 0x1000));
        a.store32(at(RSP, 8), R9);
        a.store16(at(R12, 0), R8);
        a.store8(indexed(R8, RCX, 0, -1), R9);
        a.lea32(R8, at(R12, -4));
        a.lea64(
            R9,
            Mem {
                base: None,
                index: Some((RDX, 2)),
                disp: 5,
                window: false,
            },
        );
        a.load8(R9, at(RBP, 0));
        a.store16(at(R12, -4).in_window(), R8);
    });
    let expected = "mov %ebx,%r8d\nmov %r13,%rcx\nmov (%r13),%eax\nmov 0x1000(%r14,%rcx,8),%rcx\nmov %r9d,8(%rsp)\n\
        mov %r8w,(%r12)\nmov %r9b,-1(%r8,%rcx)\nlea -4(%r12),%r8d\nlea 5(,%rdx,4),%r9\nmovzbl (%rbp),%r9d\n\
        mov %r8w,%gs:-4(%r12d)";
    assert_eq!(lines, expected);
}

#[test]
fn shifts_without_flags() {
    let lines = text(|a| {
        a.rorx32(RCX, R8, 2);
        a.shrx32(RCX, RCX, R15);
        a.shrx64(R9, R8, R13);
        a.sarx32(R8, RAX, R9);
        a.shlx32(RCX, R9, RCX);
        a.not64(R8);
        a.pext32(R10, R8, R9);
    });
    assert_eq!(
        lines,
        "rorx $2,%r8d,%ecx\nshrx %r15d,%ecx,%ecx\nshrx %r13,%r8,%r9\nsarx %r9d,%eax,%r8d\nshlx %ecx,%r9d,%ecx\nnot %r8\n\
         pext %r9d,%r8d,%r10d"
    );
}

#[test]
fn branches_reach_their_labels() {
    let lines = text(|a| {
        let (near, far) = (a.label(), a.label());
        a.jrcxz(near);
        a.jcc(5, far);
        a.bind(near);
        a.push(R13);
        a.call(far);
        a.pop(R9);
        a.bind(far);
        a.jmp_register(RCX);
        a.jmp_to(0);
    });
    let expected = "jrcxz 8\njne 0x0000000000000011\npush %r13\ncall 0x0000000000000011\npop %r9\njmp *%rcx\njmp 0";
    assert_eq!(lines, expected);
}

#[test]
fn a_short_branch_that_does_not_reach_is_an_error() {
    let mut asm = Asm::new();
    let label = asm.label();
    asm.jrcxz(label);
    asm.raw(&[0x90; 200]);
    asm.bind(label);
    assert!(matches!(asm.finish(), Err(AsmError::Reach(200))));
}
