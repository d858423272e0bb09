# Events that a monitor may intercept, counted by the handlers: page faults, INT 0x80 and timer interrupts. The kernel
# also reads text that it executes, so that no breakpoint can be written into it unnoticed.
# SDM Vol. 3A, chapter 4 Paging and chapter 6 Interrupt and Exception Handling.
#
# Beside the verdicts it prints its counts, each in a line `NAME XXXXXXXX`:
#
#       faults      page faults that the handler has served
#       calls       INT 0x80 that the handler has served
#       ticks       timer interrupts that the handler has served, at least TICKS
#       text        first address of the bytes that are summed up, which are those of the function that does so
#       length      the number of these bytes
#       sum         their sum in the last round
#       rounds      the number of rounds
#
#   linear 0x00000000  identity, 4 MiB: this kernel
#          0x00400000  table demand_pt: at first absent, mapped by the handler to frames of `frames`

        .include "harness.inc"

        PAGE            = 4096
        P               = 1 << 0
        W               = 1 << 1

        DEMAND          = 0x400000
        PAGES           = 8
        CALLS           = 5
        TICKS           = 10
        ROUNDS          = 20

        PIC1            = 0x20
        PIC1_DATA       = 0x21
        PIC2_DATA       = 0xa1
        PIC2            = 0xa0
        ICW1_INIT_ICW4  = 0x11
        ICW4_8086       = 0x01
        OCW2_EOI        = 0x20
        IRQ0            = 0x20
        SYSCALL         = 0x80

        PIT_CHANNEL0    = 0x40
        PIT_CONTROL     = 0x43
        PIT0_MODE2      = 0x34
        PIT_1MS         = 1193

main:
        call    demand_paging
        call    software_interrupts
        call    timer
        call    own_text
        ret

.macro out_byte value, port
        movb    $\value, %al
        outb    %al, $\port
.endm

# Prints a line `NAME XXXXXXXX`. VALUE is any operand but EAX.
.macro say name, value
        pusha
        movl    \value, %eax
        movl    $.Lsay\@, %ecx
        call    print
        call    print_hex
        movb    $'\n', %al
        outb    %al, $DEBUG_PORT
        popa
        .pushsection .rodata
.Lsay\@:
        .asciz  "\name "
        .popsection
.endm

# --- Page faults: 4.7 Page-Fault Exceptions, 6.15 Interrupt 14 --------------------------------------------------------

demand_paging:
        xorl    %ecx, %ecx
        movl    $P + W, %eax
1:      movl    %eax, low_pt(, %ecx, 4)
        addl    $PAGE, %eax
        incl    %ecx
        cmpl    $1024, %ecx
        jne     1b
        movl    $low_pt + P + W, pd
        movl    $demand_pt + P + W, pd + 4
        movl    $pd, %eax
        movl    %eax, %cr3
        movl    $CR0_PE + CR0_NE + CR0_PG, %eax
        movl    %eax, %cr0

        handle  PF, map_page
        xorl    %ecx, %ecx                      # page n holds n + 1
        movl    $DEMAND, %edi
1:      incl    %ecx
        movl    %ecx, (%edi)
        addl    $PAGE, %edi
        cmpl    $PAGES, %ecx
        jne     1b
        restore_vector PF

        say     faults, faults
        check_value each_page_faults_once, faults, $PAGES
        xorl    %eax, %eax
        movl    $PAGES, %ecx
        movl    $DEMAND, %esi
1:      addl    (%esi), %eax
        addl    $PAGE, %esi
        loop    1b
        check   each_store_completes, $(PAGES*(PAGES+1)/2)
        ret

# Maps the page at CR2 to the next frame. Stack above the saved registers: error code, EIP, CS, EFLAGS.
map_page:
        pusha
        movl    faults, %eax
        incl    faults
        shll    $12, %eax
        addl    $frames + P + W, %eax
        movl    %cr2, %edx
        movl    %edx, %ecx
        shrl    $12, %ecx
        andl    $1023, %ecx
        movl    %eax, demand_pt(, %ecx, 4)
        invlpg  (%edx)
        popa
        addl    $4, %esp
        iret

# --- INT n: 6.4.4 INT n Instruction -----------------------------------------------------------------------------------

software_interrupts:
        handle  SYSCALL, count_call
        xorl    %ecx, %ecx
1:      incl    %ecx
        movl    %ecx, %eax
        int     $SYSCALL
        cmpl    $CALLS, %ecx
        jne     1b
        restore_vector SYSCALL
        say     calls, calls
        check_value each_call_is_counted, calls, $CALLS
        check_value each_argument_arrives, arguments, $(CALLS*(CALLS+1)/2)
        ret

count_call:
        incl    calls
        addl    %eax, arguments
        iret

# --- External interrupts: 6.3.1 External Interrupts -------------------------------------------------------------------

timer:
        out_byte ICW1_INIT_ICW4, PIC1
        out_byte ICW1_INIT_ICW4, PIC2
        out_byte IRQ0, PIC1_DATA
        out_byte (IRQ0+8), PIC2_DATA
        out_byte 0x04, PIC1_DATA                # ICW3: slave on IR2
        out_byte 0x02, PIC2_DATA
        out_byte ICW4_8086, PIC1_DATA
        out_byte ICW4_8086, PIC2_DATA
        out_byte 0xfe, PIC1_DATA
        out_byte 0xff, PIC2_DATA
        handle  IRQ0, count_tick
        out_byte PIT0_MODE2, PIT_CONTROL
        out_byte (PIT_1MS&0xff), PIT_CHANNEL0
        out_byte (PIT_1MS>>8), PIT_CHANNEL0
1:      sti
        hlt
        cli
        cmpl    $TICKS, ticks
        jb      1b
        out_byte 0xff, PIC1_DATA
        restore_vector IRQ0
        say     ticks, ticks
        cmpl    $TICKS, ticks
        sbbl    %eax, %eax
        check   ticks_wake_hlt, $0
        ret

count_tick:
        incl    ticks
        pushl   %eax
        out_byte OCW2_EOI, PIC1
        popl    %eax
        iret

# --- Text -------------------------------------------------------------------------------------------------------------

own_text:
        movl    $ROUNDS, rounds
        call    sum_up
        movl    %eax, %ebx                      # sum of the first round; the others must give the same
        xorl    %edi, %edi
1:      call    sum_up
        cmpl    %eax, %ebx
        setne   %dl
        movzbl  %dl, %edx
        addl    %edx, %edi
        decl    rounds
        jnz     1b
        movl    %eax, sum
        say     text, $sum_up
        say     length, $(sum_up_end-sum_up)
        say     sum, sum
        say     rounds, $(ROUNDS+1)
        movl    %edi, %eax
        check   sums_are_equal, $0
        ret

# Returns the sum of the bytes of this function in EAX.
sum_up:
        xorl    %eax, %eax
        movl    $sum_up, %esi
        movl    $sum_up_end - sum_up, %ecx
1:      movzbl  (%esi), %edx
        addl    %edx, %eax
        incl    %esi
        decl    %ecx
        jnz     1b
        ret
sum_up_end:

        .bss
faults:         .skip 4
calls:          .skip 4
arguments:      .skip 4
ticks:          .skip 4
rounds:         .skip 4
sum:            .skip 4
        .balign PAGE
pd:             .skip PAGE
low_pt:         .skip PAGE
demand_pt:      .skip PAGE
frames:         .skip PAGE * PAGES
