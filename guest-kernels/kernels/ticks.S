# Ticks of a timer of 1000 Hz, counted while the processor waits in HLT and while it computes, and measured by another
# clock, the seconds of the MC146818.
#
# A byte that waits at COM1 is the number of seconds that each half takes; without one it is one second. Two remarks
# give the ticks of each half, a third one the number of all ticks that were handled:
#
#       idle NNN
#       busy NNN
#       all NNN
#
# The right number depends on how the machine is scheduled, so only the machine's own account can tell it. The cases
# here hold wherever the timer interrupts.

        .include "harness.inc"

        PIC1            = 0x20
        PIC1_DATA       = 0x21
        PIC2_DATA       = 0xa1
        OCW2_EOI        = 0x20
        IRQ0            = 0x20

        PIT_CHANNEL0    = 0x40
        PIT_CONTROL     = 0x43
        PIT0_MODE0      = 0x30
        PIT0_MODE2      = 0x34
        PIT_1MS         = 1193

        CMOS_INDEX      = 0x70
        CMOS_DATA       = 0x71
        RTC_SECONDS     = 0x00

        COM1_DATA       = 0x3f8
        COM1_MCR        = 0x3fc
        COM1_LSR        = 0x3fd
        MCR_RTS         = 0x02
        LSR_DATA_READY  = 0x01
        NOBODY          = 0xff                  # value of a port without COM1

        ROUNDS          = 20000                 # rounds of the computation between two reads of the seconds

.macro out_byte value, port
        movb    $\value, %al
        outb    %al, $\port
.endm

main:
        call    read_duration
        out_byte PIT0_MODE0, PIT_CONTROL        # OUT low: no edge before the count
        out_byte 0x11, PIC1
        out_byte IRQ0, PIC1_DATA
        out_byte 0x04, PIC1_DATA
        out_byte 0x01, PIC1_DATA
        out_byte 0xfe, PIC1_DATA
        out_byte 0xff, PIC2_DATA
        handle  IRQ0, count_tick
        out_byte PIT0_MODE2, PIT_CONTROL
        out_byte (PIT_1MS&0xff), PIT_CHANNEL0
        out_byte (PIT_1MS>>8), PIT_CHANNEL0
        sti
        movl    $pause, %ebx
        movl    $1, %edi
        call    spend                           # up to the beginning of a second

        movl    $pause, %ebx
        movl    duration, %edi
        call    spend
        movl    %eax, idle
        movl    $compute, %ebx
        movl    duration, %edi
        call    spend
        movl    %eax, busy
        cli

        movl    $idle_text, %ecx
        movl    idle, %eax
        call    remark
        movl    $busy_text, %ecx
        movl    busy, %eax
        call    remark
        movl    $all_text, %ecx
        movl    ticks, %eax
        call    remark
        cmpl    $1, idle
        sbbl    %eax, %eax
        check   ticks_wake_hlt, $0
        movl    computed, %eax
        subl    expected, %eax
        check   computation_is_undisturbed, $0
        out_byte 0xff, PIC1_DATA
        ret

# Returns the byte that waits at COM1, once COM1 may send.
read_duration:
        movl    $COM1_MCR, %edx
        movb    $MCR_RTS, %al
        outb    %al, %dx
        movl    $COM1_LSR, %edx
        inb     %dx, %al
        cmpb    $NOBODY, %al
        je      1f
        testb   $LSR_DATA_READY, %al
        jz      1f
        movl    $COM1_DATA, %edx
        inb     %dx, %al
        movzbl  %al, %eax
        movl    %eax, duration
1:      ret

# Calls EBX again and again until the seconds have changed EDI times. Returns the ticks of that time in EAX.
spend:
        pushl   ticks
        call    read_seconds
        movl    %eax, %esi
1:      call    *%ebx
        call    read_seconds
        cmpl    %esi, %eax
        je      1b
        movl    %eax, %esi
        decl    %edi
        jnz     1b
        movl    ticks, %eax
        popl    %edx
        subl    %edx, %eax
        ret

read_seconds:
        out_byte RTC_SECONDS, CMOS_INDEX
        inb     $CMOS_DATA, %al
        movzbl  %al, %eax
        ret

pause:
        hlt
        ret

# Computes a sum, which an interrupt must not disturb.
compute:
        movl    $ROUNDS, %ecx
        xorl    %eax, %eax
1:      leal    1(%eax, %ecx), %eax
        loop    1b
        movl    %eax, computed
        ret

count_tick:
        pushl   %eax
        incl    ticks
        out_byte OCW2_EOI, PIC1
        popl    %eax
        iret

# Prints a remark. ECX: text, EAX: number.
remark:
        call    print
        call    print_decimal
        movb    $'\n', %al
        outb    %al, $DEBUG_PORT
        ret

        .section .rodata
idle_text:      .asciz "idle "
busy_text:      .asciz "busy "
all_text:       .asciz "all "

        .data
        .balign 4
duration:       .long 1
expected:       .long ROUNDS * (ROUNDS + 1) / 2 + ROUNDS

        .bss
        .balign 4
ticks:          .skip 4
idle:           .skip 4
busy:           .skip 4
computed:       .skip 4
