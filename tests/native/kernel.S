/*
 * The ring-0 program of the differential machine: enters cases in ring 3 and takes their exceptions.
 *
 *   boot ─> ready: OUT (the machine stops; the host writes a case into the mailbox)
 *             │
 *             └─> state from the mailbox, OUT (stop), IRET ──> ENTER, ring 3: LSS, far JMP ──> code of the case
 *                                                             │ any exception
 *             ready <── state into the mailbox <── vector stubs: OUT (stop)
 *
 * The stops around the case let the host count what it took. A case that ends normally jumps to EXIT, whose first instruction is HLT: #GP there is the end, not a fault of the case.
 * SS:ESP and CS:EIP are loaded in ring 3, as the native program does: an IRET to a 16-bit stack loads half of ESP only.
 * The program uses only what the architecture defines, so it runs on every engine. Paging is on with this program at
 * KERNEL_BASE + physical address, for the supervisor only; the user pages are those of the native program.
 * Selectors are those of Linux on a 64-bit host, so that LAR and LSL see the same descriptors.
 */
#include "layout.h"

#define KERNEL_CS 0x08
#define KERNEL_DS 0x18
#define USER_CS 0x23
#define USER_DS 0x2b
#define TSS_SELECTOR 0x40
#define LDT_SELECTOR 0x50
#define PHYSICAL(symbol) (symbol - KERNEL_BASE)

#define CR0_PG_AM_WP_NE_MP (1 << 31 | 1 << 18 | 1 << 16 | 1 << 5 | 1 << 1)
#define CR4_DE_PAE_OSFXSR_OSXMMEXCPT (1 << 3 | 1 << 5 | 1 << 9 | 1 << 10)
#define MSR_EFER 0xc0000080
#define EFER_NXE (1 << 11)

#define INTERRUPT_GATE 0x8e00
#define GATE_DPL3 0x6000
#define VECTORS 256
#define STUB_BYTES 16

/* Base, limit, type/DPL/P byte and G/D nibble of a descriptor. */
#define DESCRIPTOR(base, limit, access, flags)                                           \
        .long ((limit) & 0xffff) | ((base) & 0xffff) << 16;                              \
        .long ((base) >> 16 & 0xff) | (access) << 8 | ((limit) & 0xf0000) | (flags) << 20 | ((base) & 0xff000000)

        .text
        .globl _start
_start: lgdt    PHYSICAL(gdt_pointer)
        movl    $PAGE_TABLES, %eax
        movl    %eax, %cr3
        movl    $CR4_DE_PAE_OSFXSR_OSXMMEXCPT, %eax
        movl    %eax, %cr4
        movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_NXE, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $CR0_PG_AM_WP_NE_MP, %eax
        movl    %eax, %cr0
        ljmp    $KERNEL_CS, $high

high:   movl    $KERNEL_DS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $stack_top, %esp
        /* The identity mapping of this page was for the switch only. */
        movl    $0, IDENTITY_ENTRY
        movl    %cr3, %eax
        movl    %eax, %cr3
        call    build_idt
        lidt    idt_pointer
        movl    $TSS_SELECTOR, %eax
        ltr     %ax
        movl    $LDT_SELECTOR, %eax
        lldt    %ax

ready:  outb    %al, $STOP_PORT
        movl    $MAILBOX, %ebx
        fxrstor IN_FX(%ebx)
        pushl   $USER_DS
        pushl   IN_RSP(%ebx)
        pushl   IN_RFLAGS(%ebx)
        pushl   $USER_CS
        pushl   $ENTER
        movl    IN_RAX(%ebx), %eax
        movl    IN_RCX(%ebx), %ecx
        movl    IN_RDX(%ebx), %edx
        movl    IN_RBP(%ebx), %ebp
        movl    IN_RSI(%ebx), %esi
        movl    IN_RDI(%ebx), %edi
        movw    IN_FS(%ebx), %fs
        movw    IN_GS(%ebx), %gs
        movw    IN_ES(%ebx), %es
        movw    %ss:IN_DS(%ebx), %ds
        movl    %ss:IN_RBX(%ebx), %ebx
        outb    %al, $STOP_PORT
        iretl

/* Vector stubs: the stack becomes vector, error code, EIP, CS, EFLAGS, ESP, SS. */
        .balign STUB_BYTES
stubs:
        .set    vector, 0
        .rept   VECTORS
        .balign STUB_BYTES
        outb    %al, $STOP_PORT
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        pushl   $0
        .endif
        pushl   $vector
        jmp     caught
        .set    vector, vector + 1
        .endr

caught: movl    %eax, %ss:MAILBOX_OUT+OUT_RAX
        movl    %ecx, %ss:MAILBOX_OUT+OUT_RCX
        movl    %edx, %ss:MAILBOX_OUT+OUT_RDX
        movl    %ebx, %ss:MAILBOX_OUT+OUT_RBX
        movl    %ebp, %ss:MAILBOX_OUT+OUT_RBP
        movl    %esi, %ss:MAILBOX_OUT+OUT_RSI
        movl    %edi, %ss:MAILBOX_OUT+OUT_RDI
        xorl    %eax, %eax
        movw    %ds, %ax
        movl    %eax, %ss:MAILBOX_OUT+OUT_DS
        movw    %es, %ax
        movl    %eax, %ss:MAILBOX_OUT+OUT_ES
        movw    %fs, %ax
        movl    %eax, %ss:MAILBOX_OUT+OUT_FS
        movw    %gs, %ax
        movl    %eax, %ss:MAILBOX_OUT+OUT_GS
        movl    %ss, %eax
        movl    %eax, %ds
        popl    MAILBOX_OUT+OUT_TRAP
        popl    MAILBOX_OUT+OUT_ERROR
        popl    MAILBOX_OUT+OUT_RIP
        /* CS: its privilege level tells a fault of the case from one of this program. */
        popl    %eax
        movl    %eax, MAILBOX_OUT+OUT_SIGNAL
        movl    %eax, MAILBOX_OUT+OUT_CS
        popl    MAILBOX_OUT+OUT_RFLAGS
        popl    MAILBOX_OUT+OUT_RSP
        popl    MAILBOX_OUT+OUT_SS
        movl    %cr2, %eax
        movl    %eax, MAILBOX_OUT+OUT_CR2
        fxsave  MAILBOX_OUT+OUT_FX
        movl    $stack_top, %esp
        cld
        jmp     ready

/* Fills the IDT: interrupt gates for ring 0, those of #BP and #OF open to ring 3. */
build_idt:
        movl    $idt, %edi
        movl    $stubs, %eax
        movl    $VECTORS, %ecx
1:      movl    %eax, %edx
        andl    $0xffff, %edx
        orl     $KERNEL_CS << 16, %edx
        movl    %edx, (%edi)
        movl    %eax, %edx
        andl    $0xffff0000, %edx
        orl     $INTERRUPT_GATE, %edx
        movl    %edx, 4(%edi)
        addl    $8, %edi
        addl    $STUB_BYTES, %eax
        loop    1b
        orl     $GATE_DPL3, idt+3*8+4
        orl     $GATE_DPL3, idt+4*8+4
        ret

        .balign 8
gdt:    .quad   0
        DESCRIPTOR(0, 0xfffff, 0x9b, 0xc)       /* 0x08 ring-0 code */
        DESCRIPTOR(0, 0xfffff, 0x9b, 0xa)       /* 0x10 ring-0 64-bit code */
        DESCRIPTOR(0, 0xfffff, 0x93, 0xc)       /* 0x18 ring-0 data */
        DESCRIPTOR(0, 0xfffff, 0xfb, 0xc)       /* 0x20 ring-3 code */
        DESCRIPTOR(0, 0xfffff, 0xf3, 0xc)       /* 0x28 ring-3 data */
        DESCRIPTOR(0, 0xfffff, 0xfb, 0xa)       /* 0x30 ring-3 64-bit code */
        .quad   0
        DESCRIPTOR(TSS_ADDRESS, 103, 0x89, 0x0) /* 0x40 TSS */
        .quad   0
        DESCRIPTOR(LDT_ADDRESS, LDT_LIMIT, 0x82, 0x0) /* 0x50 LDT, which the host fills */
        .quad   0
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_LIMITED_LIMIT, 0xf3, 0x4)
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_DOWN_LIMIT, 0xf7, 0x4)
        DESCRIPTOR(SEGMENT_BASE, SEGMENT_READ_ONLY_LIMIT, 0xf1, 0x4)
        .quad   0
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
idt_pointer:
        .word   VECTORS * 8 - 1
        .long   idt

/* TSS: only the ring-0 stack matters; an I/O map base at the limit means no ports (SDM Vol. 3A, 7.2.1). Its address is
   a number, because a descriptor's scattered base is no relocation. */
        .org    KERNEL_TSS_OFFSET
tss:    .long   0
        .long   stack_top
        .long   KERNEL_DS
        .fill   22, 4, 0
        .long   104 << 16

        .balign 8
idt:    .fill   VECTORS, 8, 0
        .fill   1024, 4, 0
stack_top:
