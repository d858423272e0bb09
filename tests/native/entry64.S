/*
 * The way into a case of 64-bit code and the two ways out of it, as entry32.S draws them.
 *
 * This program lies below 2 GiB, so everything of it is addressed by its sign-extended 32-bit address, from wherever the code
 * runs. The code of a case may leave DS, ES, FS, GS and SS holding anything a user program can load: nothing here depends on them.
 */
#include "layout.h"
#include "linux.h"

        .text
        .globl enter_case
/* void enter_case(const struct case_in *in): runs one case; `final` and `final_fx` then hold the state it ended in. The bases of
   FS and GS are loaded already, and stay unless there are selectors to load. */
enter_case:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, saved_rsp
        /* IRET is a serializing instruction: the code was written through another linear address
           (SDM Vol. 3A, 8.1.3 "Handling Self- and Cross-Modifying Code"). */
        movq    %rsp, %rax
        pushq   $FLAT_DATA
        pushq   %rax
        pushq   $PLAIN_EFLAGS
        pushq   $FLAT_CODE_64
        pushq   $1f
        iretq
1:      fxrstor64 IN_FX(%rdi)
        movl    IN_DS(%rdi), %eax
        movl    %eax, %ds
        movl    IN_ES(%rdi), %eax
        movl    %eax, %es
        movl    IN_SS(%rdi), %eax
        movl    %eax, %ss
        movl    IN_FS(%rdi), %eax
        testl   %eax, %eax
        jz      2f
        movl    %eax, %fs
2:      movl    IN_GS(%rdi), %eax
        testl   %eax, %eax
        jz      3f
        movl    %eax, %gs
3:      movq    IN_RIP(%rdi), %rax
        movq    %rax, target
        movq    IN_RSP(%rdi), %rax
        movq    %rax, case_stack
        pushq   IN_RFLAGS(%rdi)
        movq    IN_RAX(%rdi), %rax
        movq    IN_RCX(%rdi), %rcx
        movq    IN_RDX(%rdi), %rdx
        movq    IN_RBX(%rdi), %rbx
        movq    IN_RBP(%rdi), %rbp
        movq    IN_RSI(%rdi), %rsi
        movq    IN_R8(%rdi), %r8
        movq    IN_R9(%rdi), %r9
        movq    IN_R10(%rdi), %r10
        movq    IN_R11(%rdi), %r11
        movq    IN_R12(%rdi), %r12
        movq    IN_R13(%rdi), %r13
        movq    IN_R14(%rdi), %r14
        movq    IN_R15(%rdi), %r15
        movq    IN_RDI(%rdi), %rdi
        popfq
        movq    case_stack, %rsp
        jmp     *target

/* Where the code of every case jumps when it is through; a copy is at each place. */
        .section .exit, "ax", @progbits
        .globl exit_case
exit_case:
        movq    %rsp, final+OUT_RSP
        movq    $stub_stack_top, %rsp
        pushfq
        popq    final+OUT_RFLAGS
        pushq   $PLAIN_EFLAGS
        popfq
        movq    %rax, final+OUT_RAX
        movq    %rcx, final+OUT_RCX
        movq    %rdx, final+OUT_RDX
        movq    %rbx, final+OUT_RBX
        movq    %rbp, final+OUT_RBP
        movq    %rsi, final+OUT_RSI
        movq    %rdi, final+OUT_RDI
        movq    %r8, final+OUT_R8
        movq    %r9, final+OUT_R9
        movq    %r10, final+OUT_R10
        movq    %r11, final+OUT_R11
        movq    %r12, final+OUT_R12
        movq    %r13, final+OUT_R13
        movq    %r14, final+OUT_R14
        movq    %r15, final+OUT_R15
        movl    %ds, %eax
        movl    %eax, final+OUT_DS
        movl    %es, %eax
        movl    %eax, final+OUT_ES
        movl    %fs, %eax
        movl    %eax, final+OUT_FS
        movl    %gs, %eax
        movl    %eax, final+OUT_GS
        movl    %ss, %eax
        movl    %eax, final+OUT_SS
        movl    %cs, %eax
        movl    %eax, final+OUT_CS
        leaq    exit_case(%rip), %rax
        movq    %rax, final+OUT_RIP
        movq    $leave_faulted, %rax
        jmp     *%rax

        .org    EXIT_FAR_OFFSET
        hlt

        .text
        .globl leave_faulted
/* Reached from exit_case, and from on_signal through sigreturn, with any stack. */
leave_faulted:
        fxsave64 final_fx
        movq    saved_rsp, %rsp
        /* sigreturn leaves NT as it was, with which IRET faults. */
        pushq   $PLAIN_EFLAGS
        popfq
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret

        .globl _start
_start:
        movq    $main_stack_top, %rsp
        call    runner_main
        ud2

        .globl restore_signal
restore_signal:
        movl    $SYS_RT_SIGRETURN, %eax
        syscall

        .bss
        .balign 16
        .globl  final, final_fx
final:      .skip OUT_FX
final_fx:   .skip 512
saved_rsp:  .skip 8
case_stack: .skip 8
target:     .skip 8
            .balign 16
            .skip 256
stub_stack_top:
            .skip 65536
main_stack_top:

        .section .note.GNU-stack, "", @progbits
