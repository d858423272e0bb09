# Interrupts: the 8259A pair and the 8254 through their ports, and the delivery of their interrupts to the processor.
# SDM Vol. 3A, chapter 6 Interrupt and Exception Handling; Intel 8259A and 8254 datasheets.
#
# Most cases use a request that is pending before the case begins: counter 0 counts down once (mode 0) and OUT0 stays
# high, so that nothing depends on time. IRQ 8 comes from the periodic interrupt of the MC146818 clock.

        .include "harness.inc"

        PIC1            = 0x20
        PIC1_DATA       = 0x21
        PIC2            = 0xa0
        PIC2_DATA       = 0xa1
        ICW1_INIT_ICW4  = 0x11
        ICW4_8086       = 0x01
        ICW4_AEOI       = 0x02
        OCW2_EOI        = 0x20
        OCW2_SPECIFIC   = 0x60
        OCW2_PRIORITY   = 0xc0                  # set priority: the given level becomes the lowest
        OCW3_READ_IRR   = 0x0a
        OCW3_READ_ISR   = 0x0b
        OCW3_POLL       = 0x0c
        VECTOR_BASE1    = 0x20
        VECTOR_BASE2    = 0x28
        IRQ0            = VECTOR_BASE1 + 0
        IRQ7            = VECTOR_BASE1 + 7
        IRQ8            = VECTOR_BASE2 + 0

        PIT_CHANNEL0    = 0x40
        PIT_CHANNEL2    = 0x42
        PIT_CONTROL     = 0x43
        PIT0_MODE0      = 0x30
        PIT0_MODE2      = 0x34
        PIT0_LATCH      = 0x00
        PIT2_MODE0      = 0xb0
        PORT_B          = 0x61
        PORT_B_GATE2    = 0x01
        PORT_B_OUT2     = 0x20
        PIT_1MS         = 1193

        CMOS_INDEX      = 0x70
        CMOS_DATA       = 0x71
        RTC_A           = 0x0a
        RTC_B           = 0x0b
        RTC_C           = 0x0c
        RTC_RATE_1024HZ = 0x26                  # 32768 Hz time base, divider 6
        RTC_B_24H       = 0x02
        RTC_B_PIE       = 0x40

        PATIENCE        = 200000000             # polls before a wait gives up

main:
        call    init_pics
        call    registers
        call    delivery
        call    gates
        call    masking
        call    polling
        call    priorities
        call    automatic_eoi
        call    ticks_and_halt
        call    ring3
        call    counters
        movb    $0xff, %al
        outb    %al, $PIC1_DATA
        outb    %al, $PIC2_DATA
        ret

.macro out_byte value, port
        movb    $\value, %al
        outb    %al, $\port
.endm

.macro read_pic command, port
        out_byte \command, \port
        inb     $\port, %al
        movzbl  %al, %eax
.endm

.macro masks first, second
        out_byte \first, PIC1_DATA
        out_byte \second, PIC2_DATA
.endm

# Waits for a request to reach the processor.
.macro linger
        movl    $1000, %ecx
        loop    .
.endm

# Lets the processor take at most one interrupt.
.macro open_window
        arm     .Lclosed\@
        sti
        linger
        cli
.Lclosed\@:
.endm

.macro eoi
        out_byte OCW2_EOI, PIC1
.endm
.macro eoi_both
        out_byte OCW2_EOI, PIC2
        out_byte OCW2_EOI, PIC1
.endm

# Initializes both chips. AL: ICW4 of the master.
init_with_icw4:
        movb    %al, %ah
        out_byte ICW1_INIT_ICW4, PIC1
        out_byte ICW1_INIT_ICW4, PIC2
        out_byte VECTOR_BASE1, PIC1_DATA
        out_byte VECTOR_BASE2, PIC2_DATA
        out_byte 0x04, PIC1_DATA                # ICW3: slave on IR2
        out_byte 0x02, PIC2_DATA
        movb    %ah, %al
        outb    %al, $PIC1_DATA
        out_byte ICW4_8086, PIC2_DATA
        masks   0xfe, 0xff
        ret

init_pics:
        out_byte PIT0_MODE0, PIT_CONTROL        # OUT0 low: no edge before a case asks for it
        movb    $ICW4_8086, %al
        jmp     init_with_icw4

# Makes IRQ 0 pending: counts down once and waits for its bit in the IRR.
raise_irq0:
        pusha
        out_byte PIT0_MODE0, PIT_CONTROL
        out_byte 100, PIT_CHANNEL0
        out_byte 0, PIT_CHANNEL0
        movl    $PATIENCE, %ecx
1:      read_pic OCW3_READ_IRR, PIC1
        testb   $1, %al
        jnz     2f
        loop    1b
2:      popa
        ret

.macro cmos register, value
        out_byte \register, CMOS_INDEX
        out_byte \value, CMOS_DATA
.endm
.macro read_cmos register
        out_byte \register, CMOS_INDEX
        inb     $CMOS_DATA, %al
.endm

# Lowers the line of the MC146818, by disabling and acknowledging its interrupt.
.macro drop_irq8
        cmos    RTC_B, RTC_B_24H
        read_cmos RTC_C
.endm

# Makes IRQ 8 pending: waits one period of the MC146818, whose line stays high until register C is read.
raise_irq8:
        pusha
        read_cmos RTC_C
        cmos    RTC_A, RTC_RATE_1024HZ
        cmos    RTC_B, RTC_B_24H + RTC_B_PIE
        movl    $PATIENCE, %ecx
1:      read_pic OCW3_READ_IRR, PIC2
        testb   $1, %al
        jnz     2f
        loop    1b
2:      popa
        ret

# --- 8259A: Initialization and Operation Command Words ----------------------------------------------------------------

registers:
        out_byte 0xa5, PIC1_DATA
        inb     $PIC1_DATA, %al
        movzbl  %al, %eax
        check   imr_reads_back, $0xa5
        masks   0xfe, 0xff
        read_pic OCW3_READ_ISR, PIC1
        check   isr_clear_after_init, $0
        read_pic OCW3_READ_IRR, PIC1
        check   irr_clear_after_init, $0
        call    raise_irq0
        read_pic OCW3_READ_IRR, PIC1
        check   irr_shows_request, $1
        open_window
        read_pic OCW3_READ_IRR, PIC1
        check   irr_clear_after_acknowledge, $0
        read_pic OCW3_READ_ISR, PIC1
        check   isr_shows_service, $1
        out_byte OCW2_SPECIFIC + 0, PIC1
        read_pic OCW3_READ_ISR, PIC1
        check   specific_eoi_clears_isr, $0
        ret

# --- Taking an interrupt: 6.8.1 Masking Maskable Hardware Interrupts; Vol. 2, STI -------------------------------------

delivery:
        call    raise_irq0
        runs    if_clear_blocks, nop
        arm     1f
        sti
        nop                                     # runs in the shadow of sti
after_shadow:
        nop
1:      check_vector sti_delivers, IRQ0
        check_value sti_shadow_eip, record_eip, $after_shadow
        movl    record_eflags, %eax
        andl    $EFLAGS_IF + EFLAGS_RF, %eax
        check   interrupt_pushes_if, $EFLAGS_IF
        eoi

        call    raise_irq0
        arm     1f
        sti
        cli
        nop
        nop
1:      check_vector sti_cli_is_no_window, NONE
        arm     1f
        pushl   $EFLAGS_FIXED + EFLAGS_IF
        popf                                    # no shadow
after_popf:
        nop
        nop
1:      check_value popf_has_no_shadow, record_eip, $after_popf
        eoi

        call    raise_irq0
        arm     1f
        pushl   $EFLAGS_FIXED + EFLAGS_IF
        pushl   $KCODE
        pushl   $after_iret
        iret
        nop
after_iret:
        nop
1:      check_value iret_has_no_shadow, record_eip, $after_iret
        eoi

        call    raise_irq0
        arm     1f
        sti
        hlt                                     # the interrupt cannot be missed: HLT halts in the shadow, then wakes
after_hlt:
        nop
1:      check_value sti_hlt_wakes_after_hlt, record_eip, $after_hlt
        eoi

        call    raise_irq0                      # the next instruction faults, and its handler has IF clear
        arm     1f
        sti
        ud2
1:      check_vector fault_in_shadow, UD
        open_window
        check_vector still_pending, IRQ0
        eoi
        ret

# --- IF and gates: 6.12.1.3 Flag Usage By Exception- or Interrupt-Handler Procedure -----------------------------------

gates:
        masks   0xff, 0xff
        handle  0x50, save_flags
        handle  0x51, save_flags, PRESENT+SYS_TRAP_GATE
        sti
        int     $0x50
        check_value interrupt_gate_clears_if, saved_flags, $0
        pushf
        popl    %eax
        andl    $EFLAGS_IF, %eax
        check   iret_restores_if, $EFLAGS_IF
        int     $0x51
        check_value trap_gate_keeps_if, saved_flags, $EFLAGS_IF
        cli
        int     $0x51
        check_value trap_gate_keeps_if_clear, saved_flags, $0
        masks   0xfe, 0xff
        call    raise_irq0
        int     $0x50                           # software interrupts do not depend on IF or the 8259A
        check_value software_int_with_if_clear, saved_flags, $0
        restore_vector 0x50
        restore_vector 0x51
        open_window
        eoi
        ret

save_flags:
        pushf
        popl    saved_flags
        andl    $EFLAGS_IF, saved_flags
        iret

# --- Interrupt mask register, a request that is withdrawn -------------------------------------------------------------

masking:
        call    raise_irq0
        masks   0xff, 0xff
        open_window
        check_vector masked, NONE
        read_pic OCW3_READ_IRR, PIC1
        check   masked_request_stays, $1
        arm     1f
        sti
        out_byte 0xfe, PIC1_DATA
        linger
        cli
1:      check_vector unmasking_delivers, IRQ0
        eoi

        call    raise_irq0                      # OUT0 low again before the acknowledge: latched, or spurious as IR7
        out_byte PIT0_MODE0, PIT_CONTROL
        masks   0x7e, 0xff
        open_window
        read_pic OCW3_READ_ISR, PIC1
        movl    record_vector, %ebx
        cmpl    $NONE, %ebx
        je      2f
        movl    $IRQ7 << 8, %ecx                # spurious: no bit in service
        cmpl    $IRQ7, %ebx
        je      3f
        movl    $(IRQ0 << 8) + 1, %ecx
        jmp     3f
2:      movl    $NONE << 8, %ecx
3:      shll    $8, %ebx
        orl     %ebx, %eax
        check   withdrawn_request_is_consistent, %ecx
        eoi
        masks   0xfe, 0xff
        ret

# --- Poll command -----------------------------------------------------------------------------------------------------

polling:
        read_pic OCW3_POLL, PIC1
        andl    $0x80, %eax
        check   poll_without_request, $0
        call    raise_irq0
        read_pic OCW3_POLL, PIC1
        check   poll_names_level, $0x80
        read_pic OCW3_READ_ISR, PIC1
        check   poll_acknowledges, $1
        open_window
        check_vector polled_request_is_gone, NONE
        eoi
        ret

# --- Fully nested mode, cascade, rotation -----------------------------------------------------------------------------

priorities:
        masks   0xfa, 0xfe
        call    raise_irq8
        open_window
        check_vector irq8_delivered, IRQ8
        read_pic OCW3_READ_ISR, PIC1
        check   cascade_in_service, $4
        read_pic OCW3_READ_ISR, PIC2
        check   irq8_in_service, $1
        call    raise_irq0                      # higher than the cascade: nests
        open_window
        check_vector irq0_nests_in_irq8, IRQ0
        read_pic OCW3_READ_ISR, PIC1
        check   both_in_service, $5
        eoi                                     # non-specific: the highest in service
        read_pic OCW3_READ_ISR, PIC1
        check   eoi_ends_highest, $4
        eoi_both
        drop_irq8

        call    raise_irq0
        open_window
        call    raise_irq8                      # lower than IRQ 0 in service: waits for its EOI
        open_window
        check_vector irq8_waits_for_irq0, NONE
        arm     1f
        sti
        eoi
        linger
        cli
1:      check_vector irq8_after_eoi, IRQ8
        eoi_both
        drop_irq8

        call    raise_irq8
        call    raise_irq0
        open_window
        check_vector irq0_before_irq8, IRQ0
        eoi
        open_window
        check_vector irq8_second, IRQ8
        eoi_both
        drop_irq8

        out_byte OCW2_PRIORITY + 0, PIC1        # IRQ 0 becomes the lowest
        call    raise_irq0
        call    raise_irq8
        open_window
        check_vector rotated_irq8_first, IRQ8
        eoi_both
        drop_irq8
        open_window
        check_vector rotated_irq0_second, IRQ0
        eoi
        out_byte OCW2_PRIORITY + 7, PIC1        # IRQ 7 the lowest, as after initialization
        masks   0xfe, 0xff
        ret

# --- Automatic end of interrupt ---------------------------------------------------------------------------------------

automatic_eoi:
        out_byte PIT0_MODE0, PIT_CONTROL
        movb    $ICW4_8086 + ICW4_AEOI, %al
        call    init_with_icw4
        call    raise_irq0
        open_window
        check_vector aeoi_delivers, IRQ0
        read_pic OCW3_READ_ISR, PIC1
        check   aeoi_leaves_isr_clear, $0
        jmp     init_pics

# --- Running time: ticks, HLT, repeated strings -----------------------------------------------------------------------

start_ticks:
        handle  IRQ0, count_tick
        movl    $0, ticks
        out_byte PIT0_MODE2, PIT_CONTROL
        out_byte (PIT_1MS&0xff), PIT_CHANNEL0
        out_byte (PIT_1MS>>8), PIT_CHANNEL0
        ret

stop_ticks:
        cli
        out_byte PIT0_MODE0, PIT_CONTROL        # OUT0 low, counter stopped until a count is written
        restore_vector IRQ0
        jmp     init_pics

ticks_and_halt:
        call    start_ticks
        sti
1:      hlt
        cmpl    $10, ticks
        jb      1b
        cli
        cmpl    $10, ticks
        sbbl    %eax, %eax
        check   ten_ticks_wake_hlt, $0
        call    stop_ticks

        call    start_ticks
        sti
        movl    $PATIENCE, %ecx
1:      cmpl    $3, ticks                       # a loop with neither hlt nor I/O is interrupted too
        jae     2f
        loop    1b
2:      cli
        cmpl    $3, ticks
        sbbl    %eax, %eax
        check   busy_loop_is_interrupted, $0
        call    stop_ticks

        call    start_ticks                     # rep stos is interrupted between iterations and completes
        sti
1:      movl    $buffer, %edi
        movl    $BUFFER_BYTES, %ecx
        movb    $0x5a, %al
        rep stosb
        cmpl    $20, ticks
        jb      1b
        cli
        movl    %edi, %eax
        check   string_final_edi, $buffer + BUFFER_BYTES
        movl    %ecx, %eax
        check   string_final_ecx, $0
        movl    $buffer, %edi
        movl    $BUFFER_BYTES, %ecx
        movb    $0x5a, %al
        repe scasb
        movl    %ecx, %eax
        check   string_filled_everything, $0
        call    stop_ticks
        ret

count_tick:
        incl    ticks
        pushl   %eax
        eoi
        popl    %eax
        iret

# --- From ring 3: 6.12.1 Exception- or Interrupt-Handler Procedures ---------------------------------------------------

ring3:
        call    raise_irq0
        arm     1f
        enter_user user_loop, EFLAGS_FIXED+EFLAGS_IF
user_loop:
        jmp     user_loop
1:      check_vector user_interrupted, IRQ0
        check_value user_interrupted_at_entry, record_eip, $user_loop
        movzwl  record_cs, %eax
        check   user_interrupted_cs, $UCODE
        check_value user_interrupted_esp, record_esp, $user_stack_top
        movzwl  record_ss, %eax
        check   user_interrupted_ss, $UDATA
        eoi
        ret

# --- 8254: read-back of a running counter, counter 2 behind port 0x61 -------------------------------------------------

counters:
        out_byte PIT0_MODE2, PIT_CONTROL
        out_byte (PIT_1MS&0xff), PIT_CHANNEL0
        out_byte (PIT_1MS>>8), PIT_CHANNEL0
        movl    $1000, %ecx
        xorl    %ebx, %ebx                      # samples outside 1..=PIT_1MS
1:      out_byte PIT0_LATCH, PIT_CONTROL
        inb     $PIT_CHANNEL0, %al
        movb    %al, %dl
        inb     $PIT_CHANNEL0, %al
        movb    %al, %dh
        movzwl  %dx, %edx
        decl    %edx
        cmpl    $PIT_1MS, %edx
        cmc
        adcl    $0, %ebx
        loop    1b
        movl    %ebx, %eax
        check   rate_generator_stays_in_range, $0
        out_byte PIT0_MODE0, PIT_CONTROL

        out_byte PORT_B_GATE2, PORT_B
        out_byte PIT2_MODE0, PIT_CONTROL
        inb     $PORT_B, %al
        andl    $PORT_B_OUT2, %eax
        check   mode0_output_low, $0
        out_byte 0x10, PIT_CHANNEL2
        out_byte 0x00, PIT_CHANNEL2
        movl    $PATIENCE, %ecx
1:      inb     $PORT_B, %al
        testb   $PORT_B_OUT2, %al
        jnz     2f
        loop    1b
2:      andl    $PORT_B_OUT2, %eax
        check   terminal_count_raises_output, $PORT_B_OUT2
        out_byte 0, PORT_B
        ret

        BUFFER_BYTES    = 1 << 20
        .bss
        .balign 4
ticks:          .skip 4
saved_flags:    .skip 4
        .balign 4096
buffer:         .skip BUFFER_BYTES
