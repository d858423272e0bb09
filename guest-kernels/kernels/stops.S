# A tour through every kind of code segment, for debuggers: 32 bits flat, 32 bits with a base, 16 bits in the LDT, real-address mode
# and virtual-8086 mode. SDM Vol. 3A, 3.4.5 Segment Descriptors; Vol. 3B, chapter 20 8086 Emulation.
#
# In each, a function is called and a doubleword counted, at labels that are global. All labels are linear addresses, which only flat
# code has in EIP: the bases are such that the code lies where it was linked, in the first 64 KiB above 1 MiB.
#
#   0x00009000  stack: SS has this base, SP or ESP is 0x1000
#   0x0000a000  counter: DS has this base, the offset is 0

        .include "harness.inc"

        STACK           = 0x9000
        STACK_SIZE      = 0x1000
        COUNTER         = 0xa000
        BASE32          = 0x10000
        BASE16          = 0x100000
        PARAGRAPH       = 0xffff                # CS in real-address and virtual-8086 mode
        CODE32          = FREE + 0x00
        CODE16          = FREE + 0x08
        STACK32         = FREE + 0x10
        COUNTER_DATA    = FREE + 0x18
        THE_LDT         = FREE + 0x20
        LOCAL_CODE16    = 0x00 + 4
        LOCAL_STACK16   = 0x08 + 4

# A stop of the tour. Returns nowhere: what follows is executed next.
.macro visit place
\place\()_function:
        movw    $0x5a5a, %bx
        ret
\place: xorw    %bx, %bx
        .globl  \place\()_stop, \place\()_function, \place\()_back
\place\()_stop:
        incl    0
        call    \place\()_function
\place\()_back:
        nop
.endm

# Back in flat code: checks that the stop has been executed.
.macro arrive place
        movl    $KDATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    saved_esp, %esp
        movzwl  %bx, %eax
        check   \place\()_called, $0x5a5a
        xorl    %eax, %eax
        cmpl    COUNTER, %eax                   # a debugger may have repeated it
        adcl    %eax, %eax
        check   \place\()_counted, $1
        movl    $0, COUNTER
.endm

.macro load_data selector, stack, sp
        movl    $\selector, %eax
        movl    %eax, %ds
        movl    $\stack, %eax
        movl    %eax, %ss
        movl    $\sp, %esp
.endm

main:
        movl    $0, COUNTER
        movl    %esp, saved_esp
        segment CODE32, $BASE32, $0xfffff, PRESENT+CODE+BIG+PAGES
        segment CODE16, $BASE16, $0xffff, PRESENT+CODE
        segment STACK32, $STACK, $0xffff, PRESENT+DATA+BIG
        segment COUNTER_DATA, $COUNTER, $0xffff, PRESENT+DATA
        segment THE_LDT, $ldt, $0xf, PRESENT+SYS_LDT
        movl    $THE_LDT, %eax
        lldt    %ax
        movl    $COUNTER_DATA, %eax
        movl    %eax, %ds
        jmp     flat
        visit   flat
        arrive  flat

        load_data COUNTER_DATA, STACK32, STACK_SIZE
        ljmp    $CODE32, $based - BASE32
        visit   based
        ljmp    $KCODE, $back_from_based
back_from_based:
        arrive  based

        load_data COUNTER_DATA, LOCAL_STACK16, 0x10000 + STACK_SIZE     # ESP's upper half does not count
        ljmp    $LOCAL_CODE16, $local - BASE16
        .code16
        visit   local
        ljmpl   $KCODE, $back_from_local
        .code32
back_from_local:
        arrive  local

        load_data COUNTER_DATA, LOCAL_STACK16, STACK_SIZE
        ljmp    $CODE16, $to_real - BASE16
        .code16
to_real:
        movl    %cr0, %eax
        andb    $~CR0_PE, %al
        movl    %eax, %cr0
        ljmpl   $PARAGRAPH, $in_real - (PARAGRAPH << 4)
in_real:
        movw    $COUNTER >> 4, %ax
        movw    %ax, %ds
        movw    $STACK >> 4, %ax
        movw    %ax, %ss
        jmp     real
        visit   real
        movl    %cr0, %eax
        orb     $CR0_PE, %al
        movl    %eax, %cr0
        ljmpl   $KCODE, $back_from_real
        .code32
back_from_real:
        arrive  real

        arm     back_from_virtual
        pushl   $0                              # GS
        pushl   $0                              # FS
        pushl   $COUNTER >> 4
        pushl   $0
        pushl   $STACK >> 4
        pushl   $STACK_SIZE
        pushl   $EFLAGS_VM + EFLAGS_FIXED
        pushl   $PARAGRAPH
        pushl   $virtual - (PARAGRAPH << 4)
        iret
        .code16
        visit   virtual
        int3
        .code32
back_from_virtual:
        arrive  virtual
        ret

        .data
        .balign 8
ldt:    .quad   0x00009b100000ffff              # LOCAL_CODE16: base BASE16
        .quad   0x000093009000ffff              # LOCAL_STACK16: base STACK

        .bss
        .balign 4
saved_esp:      .skip 4
