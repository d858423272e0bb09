/*
 * The ring-0 program of the differential machine in long mode: kernel.S says what it does. It turns long mode on itself, and enters
 * 64-bit code by IRET alone, 32-bit code as kernel.S does.
 *
 * The program lies at the end of the address space, so everything of it is addressed by its sign-extended 32-bit address.
 * Selectors are those of Linux on a 64-bit host, so that LAR and LSL see the same descriptors.
 */
#include "layout.h"

#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER_CS32 0x23
#define USER_DS 0x2b
#define TSS_SELECTOR 0x40
#define LDT_SELECTOR 0x50
#define PHYSICAL(symbol) (symbol - KERNEL_BASE)

#define CR0_PG_AM_WP_NE_MP (1 << 31 | 1 << 18 | 1 << 16 | 1 << 5 | 1 << 1)
#define CR4_DE_PAE_OSFXSR_OSXMMEXCPT (1 << 3 | 1 << 5 | 1 << 9 | 1 << 10)
#define MSR_EFER 0xc0000080
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define EFER_LME_NXE (1 << 8 | 1 << 11)

#define INTERRUPT_GATE 0x8e00
#define GATE_DPL3 0x6000
#define VECTORS 256
#define STUB_BYTES 16

#if CODE_BITS == 64
#define LOAD_FX fxrstor64
#define SAVE_FX fxsave64
#else
#define LOAD_FX fxrstor
#define SAVE_FX fxsave
#endif

/* Base, limit, type/DPL/P byte and G/D/L nibble of a descriptor. */
#define DESCRIPTOR(base, limit, access, flags)                                           \
        .long ((limit) & 0xffff) | ((base) & 0xffff) << 16;                              \
        .long ((base) >> 16 & 0xff) | (access) << 8 | ((limit) & 0xf0000) | (flags) << 20 | ((base) & 0xff000000)

/* The upper eight bytes of a system descriptor. */
#define UPPER(base)                                                                      \
        .long (base) >> 32 & 0xffffffff;                                                 \
        .long 0

        .text
        .code32
        .globl _start
_start: lgdt    PHYSICAL(gdt_pointer_physical)
        movl    $PAGE_TABLES, %eax
        movl    %eax, %cr3
        movl    $CR4_DE_PAE_OSFXSR_OSXMMEXCPT, %eax
        movl    %eax, %cr4
        movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_LME_NXE, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $CR0_PG_AM_WP_NE_MP, %eax
        movl    %eax, %cr0
        ljmp    $KERNEL_CS, $PHYSICAL(low)

        .code64
low:    movq    $high, %rax
        jmp     *%rax

/* In the page that is mapped at its physical address while long mode comes on, which has no room for a 64-bit base of it. */
        .balign 8
gdt:    .quad   0
        DESCRIPTOR(0, 0xfffff, 0x9b, 0xc)       /* 0x08 ring-0 32-bit code */
        DESCRIPTOR(0, 0xfffff, 0x9b, 0xa)       /* 0x10 ring-0 code */
        DESCRIPTOR(0, 0xfffff, 0x93, 0xc)       /* 0x18 ring-0 data */
        DESCRIPTOR(0, 0xfffff, 0xfb, 0xc)       /* 0x20 ring-3 32-bit code */
        DESCRIPTOR(0, 0xfffff, 0xf3, 0xc)       /* 0x28 ring-3 data */
        DESCRIPTOR(0, 0xfffff, 0xfb, 0xa)       /* 0x30 ring-3 64-bit code */
        .quad   0
        DESCRIPTOR(TSS_ADDRESS, 103, 0x89, 0x0) /* 0x40 TSS */
        UPPER(TSS_ADDRESS)
        DESCRIPTOR(LDT_ADDRESS, LDT_LIMIT, 0x82, 0x0) /* 0x50 LDT, which the host fills */
        UPPER(LDT_ADDRESS)
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_LIMITED_LIMIT, 0xf3, 0x4)
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_DOWN_LIMIT, 0xf7, 0x4)
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_READ_ONLY_LIMIT, 0xf1, 0x4)
        .quad   0
gdt_end:
gdt_pointer_physical:
        .word   gdt_end - gdt - 1
        .long   PHYSICAL(gdt)
gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt
idt_pointer:
        .word   VECTORS * 16 - 1
        .quad   idt

high:   lgdt    gdt_pointer
        movl    $KERNEL_DS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movq    $stack_top, %rsp
        /* The identity mapping of this page was for the switch only. */
        movq    $0, IDENTITY_ENTRY
        movq    %cr3, %rax
        movq    %rax, %cr3
        call    build_idt
        lidt    idt_pointer
        movl    $TSS_SELECTOR, %eax
        ltr     %ax
        movl    $LDT_SELECTOR, %eax
        lldt    %ax

ready:  outb    %al, $STOP_PORT
        movq    $MAILBOX, %rbx
        LOAD_FX IN_FX(%rbx)
        movl    IN_DS(%rbx), %eax
        movl    %eax, %ds
        movl    IN_ES(%rbx), %eax
        movl    %eax, %es
        movl    IN_FS(%rbx), %edi
        movl    %edi, %fs
        movl    IN_GS(%rbx), %edi
        movl    %edi, %gs
#if CODE_BITS == 64
        /* Where there is null, the base is free. */
        testl   %edi, %edi
        jnz     1f
        movl    $MSR_GS_BASE, %ecx
        movl    IN_GS_BASE(%rbx), %eax
        movl    IN_GS_BASE+4(%rbx), %edx
        wrmsr
1:      cmpl    $0, IN_FS(%rbx)
        jne     2f
        movl    $MSR_FS_BASE, %ecx
        movl    IN_FS_BASE(%rbx), %eax
        movl    IN_FS_BASE+4(%rbx), %edx
        wrmsr
2:      movl    IN_SS(%rbx), %eax
        pushq   %rax
        pushq   IN_RSP(%rbx)
        pushq   IN_RFLAGS(%rbx)
        movl    IN_CS(%rbx), %eax
        pushq   %rax
        pushq   IN_RIP(%rbx)
#else
        pushq   $USER_DS
        pushq   IN_RSP(%rbx)
        pushq   IN_RFLAGS(%rbx)
        pushq   $USER_CS32
        pushq   $ENTER
#endif
        movq    IN_RAX(%rbx), %rax
        movq    IN_RCX(%rbx), %rcx
        movq    IN_RDX(%rbx), %rdx
        movq    IN_RBP(%rbx), %rbp
        movq    IN_RSI(%rbx), %rsi
        movq    IN_RDI(%rbx), %rdi
        movq    IN_R8(%rbx), %r8
        movq    IN_R9(%rbx), %r9
        movq    IN_R10(%rbx), %r10
        movq    IN_R11(%rbx), %r11
        movq    IN_R12(%rbx), %r12
        movq    IN_R13(%rbx), %r13
        movq    IN_R14(%rbx), %r14
        movq    IN_R15(%rbx), %r15
        movq    IN_RBX(%rbx), %rbx
        outb    %al, $STOP_PORT
        iretq

/* Vector stubs: the stack becomes vector, error code, RIP, CS, RFLAGS, RSP, SS. */
        .balign STUB_BYTES
stubs:
        .set    vector, 0
        .rept   VECTORS
        .balign STUB_BYTES
        outb    %al, $STOP_PORT
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        pushq   $0
        .endif
        pushq   $vector
        jmp     caught
        .set    vector, vector + 1
        .endr

caught: movq    %rax, MAILBOX_OUT+OUT_RAX
        movq    %rcx, MAILBOX_OUT+OUT_RCX
        movq    %rdx, MAILBOX_OUT+OUT_RDX
        movq    %rbx, MAILBOX_OUT+OUT_RBX
        movq    %rbp, MAILBOX_OUT+OUT_RBP
        movq    %rsi, MAILBOX_OUT+OUT_RSI
        movq    %rdi, MAILBOX_OUT+OUT_RDI
        movq    %r8, MAILBOX_OUT+OUT_R8
        movq    %r9, MAILBOX_OUT+OUT_R9
        movq    %r10, MAILBOX_OUT+OUT_R10
        movq    %r11, MAILBOX_OUT+OUT_R11
        movq    %r12, MAILBOX_OUT+OUT_R12
        movq    %r13, MAILBOX_OUT+OUT_R13
        movq    %r14, MAILBOX_OUT+OUT_R14
        movq    %r15, MAILBOX_OUT+OUT_R15
        movl    %ds, %eax
        movl    %eax, MAILBOX_OUT+OUT_DS
        movl    %es, %eax
        movl    %eax, MAILBOX_OUT+OUT_ES
        movl    %fs, %eax
        movl    %eax, MAILBOX_OUT+OUT_FS
        movl    %gs, %eax
        movl    %eax, MAILBOX_OUT+OUT_GS
        popq    %rax
        movl    %eax, MAILBOX_OUT+OUT_TRAP
        popq    %rax
        movl    %eax, MAILBOX_OUT+OUT_ERROR
        popq    MAILBOX_OUT+OUT_RIP
        /* CS: its privilege level tells a fault of the case from one of this program. */
        popq    %rax
        movl    %eax, MAILBOX_OUT+OUT_SIGNAL
        movl    %eax, MAILBOX_OUT+OUT_CS
        popq    MAILBOX_OUT+OUT_RFLAGS
        popq    MAILBOX_OUT+OUT_RSP
        popq    %rax
        movl    %eax, MAILBOX_OUT+OUT_SS
        movq    %cr2, %rax
        movq    %rax, MAILBOX_OUT+OUT_CR2
#if CODE_BITS == 64
        movl    $MSR_FS_BASE, %ecx
        rdmsr
        movl    %eax, MAILBOX_OUT+OUT_FS_BASE
        movl    %edx, MAILBOX_OUT+OUT_FS_BASE+4
        movl    $MSR_GS_BASE, %ecx
        rdmsr
        movl    %eax, MAILBOX_OUT+OUT_GS_BASE
        movl    %edx, MAILBOX_OUT+OUT_GS_BASE+4
#endif
        SAVE_FX MAILBOX_OUT+OUT_FX
        movq    $stack_top, %rsp
        cld
        jmp     ready

/* Fills the IDT: interrupt gates for ring 0, those of #BP and #OF open to ring 3. */
build_idt:
        movq    $idt, %rdi
        movq    $stubs, %rsi
        movl    $VECTORS, %ecx
1:      movl    %esi, %edx
        andl    $0xffff, %edx
        orl     $KERNEL_CS << 16, %edx
        movl    %edx, (%rdi)
        movl    %esi, %edx
        andl    $0xffff0000, %edx
        orl     $INTERRUPT_GATE, %edx
        movl    %edx, 4(%rdi)
        movq    %rsi, %rdx
        shrq    $32, %rdx
        movq    %rdx, 8(%rdi)
        addq    $16, %rdi
        addq    $STUB_BYTES, %rsi
        loop    1b
        orl     $GATE_DPL3, idt+3*16+4
        orl     $GATE_DPL3, idt+4*16+4
        ret

/* TSS: only the ring-0 stack matters; an I/O map base at the limit means no ports (SDM Vol. 3A, 7.7 "Task
   Management in 64-bit Mode"). */
        .org    KERNEL_TSS_OFFSET
tss:    .long   0
        .quad   stack_top
        .fill   22, 4, 0
        .long   104 << 16

        .balign 16
idt:    .fill   VECTORS, 16, 0
        .fill   1024, 4, 0
stack_top:
