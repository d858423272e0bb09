/*
 * The way into a case of 32-bit code and the two ways out of it.
 *
 *   enter_case ── loads state, jumps ──> code of the case ── jmp ──> exit_case ──┐
 *        ^                                     └─ signal ─> on_signal ─> leave_faulted ──┤
 *        └──────────────────────── returns to the caller of enter_case <─────────────────┘
 *
 * The code of a case may leave DS, ES, FS and GS holding anything a user program can load, so nothing here relies on
 * them before they are reloaded. A case that uses the LDT may change SS, too: it ends at the HLT of the exit page, in a signal.
 * In all others SS is always flat (the generator never loads another one successfully).
 */
#include "layout.h"
#include "linux.h"

        .text
        .globl enter_case
/* void enter_case(const struct case_in *in): runs one case; `final` and `final_fx` then hold the state it ended in. */
enter_case:
        pushl   %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        movl    20(%esp), %ebx
        movl    %esp, saved_esp
        /* IRET is a serializing instruction: the code was written through another linear address
           (SDM Vol. 3A, 8.1.3 "Handling Self- and Cross-Modifying Code"). */
        pushfl
        pushl   %cs
        pushl   $1f
        iretl
1:      fxrstor IN_FX(%ebx)
        movl    IN_RIP(%ebx), %eax
        movl    %eax, target
        movl    IN_CS(%ebx), %eax
        movl    %eax, target+4
        movl    IN_RSP(%ebx), %eax
        movl    %eax, case_stack
        movl    IN_SS(%ebx), %eax
        movl    %eax, case_stack+4
        movw    IN_FS(%ebx), %fs
        movw    IN_GS(%ebx), %gs
        movw    IN_ES(%ebx), %es
        pushl   IN_DS(%ebx)
        pushl   IN_RFLAGS(%ebx)
        movl    IN_RAX(%ebx), %eax
        movl    IN_RCX(%ebx), %ecx
        movl    IN_RDX(%ebx), %edx
        movl    IN_RBP(%ebx), %ebp
        movl    IN_RSI(%ebx), %esi
        movl    IN_RDI(%ebx), %edi
        movl    IN_RBX(%ebx), %ebx
        popfl
        popl    %ds
        lss     %cs:case_stack, %esp
        ljmp    *%cs:target

/* Where the code of every case jumps when it is through: a fixed address, known to every engine. */
        .section .exit, "ax", @progbits
        .globl exit_case
exit_case:
        movl    %esp, %ss:final+OUT_RSP
        movl    $stub_stack_top, %esp
        pushfl
        popl    %ss:final+OUT_RFLAGS
        pushl   $PLAIN_EFLAGS
        popfl
        movl    %eax, %ss:final+OUT_RAX
        movl    %ecx, %ss:final+OUT_RCX
        movl    %edx, %ss:final+OUT_RDX
        movl    %ebx, %ss:final+OUT_RBX
        movl    %ebp, %ss:final+OUT_RBP
        movl    %esi, %ss:final+OUT_RSI
        movl    %edi, %ss:final+OUT_RDI
        xorl    %eax, %eax
        movw    %ds, %ax
        movl    %eax, %ss:final+OUT_DS
        movw    %es, %ax
        movl    %eax, %ss:final+OUT_ES
        movw    %fs, %ax
        movl    %eax, %ss:final+OUT_FS
        movw    %gs, %ax
        movl    %eax, %ss:final+OUT_GS
        movw    %ss, %ax
        movl    %eax, %ss:final+OUT_SS
        movl    $exit_case, %ss:final+OUT_RIP
        movl    $FLAT_CODE, %ss:final+OUT_CS
        movl    %ss, %eax
        movl    %eax, %ds
        /* FXSAVE need not store the pointers to the last x87 instruction: FNSTENV does. It masks all exceptions. */
        fnstenv final_environment
        fldenv  final_environment
        jmp     leave_faulted

        .org    EXIT_FAR_OFFSET
        hlt

        .text
        .globl leave_faulted
/* Reached from exit_case, and from on_signal through sigreturn, with DS flat and any stack. */
leave_faulted:
        fxsave  final_fx
        movl    %ss, %eax
        movl    %eax, %es
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        movl    saved_esp, %esp
        /* sigreturn leaves NT as it was, with which IRET faults. */
        pushl   $PLAIN_EFLAGS
        popfl
        popl    %edi
        popl    %esi
        popl    %ebx
        popl    %ebp
        ret

        .globl _start
_start:
        movl    $main_stack_top, %esp
        call    runner_main
        ud2

        .globl restore_signal
restore_signal:
        movl    $SYS_RT_SIGRETURN, %eax
        int     $0x80

        .bss
        .balign 16
        .globl  final, final_fx, final_environment
final:      .skip OUT_FX
final_fx:   .skip 512
final_environment:
            .skip 28
            .balign 4
saved_esp:  .skip 4
            .balign 8
case_stack: .skip 8
target:     .skip 8
            .balign 16
            .skip 256
stub_stack_top:
            .skip 65536
main_stack_top:

        .section .note.GNU-stack, "", @progbits
