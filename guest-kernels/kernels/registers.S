# Registers of a PC's devices: the 16550A of COM1 in loopback, so that nothing leaves it, the keyboard controller, and the
# MC146818A clock.
# PC16550D datasheet, 8.0 Registers; IBM PS/2 Hardware Interface Technical Reference; MC146818A datasheet, Registers.

        .include "harness.inc"

        PIC1            = 0x20
        PIC1_DATA       = 0x21
        COM             = 0x3f8
        IRQ4            = 0x24

        KEYBOARD        = 0x60
        KEYBOARD_COMMAND = 0x64
        CMOS            = 0x70
        CMOS_DATA       = 0x71

        PIT_CONTROL     = 0x43
        PIT_COUNTER2    = 0x42
        PORT_B          = 0x61
        PORT_B_OUT2     = 1 << 5
        TWENTY_MS       = 23864         # pulses of 1193182 Hz

main:
        call    uart_registers
        call    uart_fifo
        call    uart_identification
        call    uart_modem
        call    uart_storm
        call    keyboard
        call    clock
        ret

.macro put port, value
        movl    $\port, %edx
        movb    $(\value), %al
        outb    %al, %dx
.endm

# Reads PORT; what it reads must be WANT under MASK.
.macro expect name, port, want, mask=0xff
        movl    $\port, %edx
        xorl    %eax, %eax
        inb     %dx, %al
        andl    $\mask, %eax
        check   \name, $\want
.endm

.macro drop port
        movl    $\port, %edx
        inb     %dx, %al
.endm

# Reads PORT every 20 ms until it is WANT under MASK; a host may be late with its timers, but not by 10 s.
.macro await name, port, want, mask=0xff
        movl    $500, %ecx
1:      movl    $\port, %edx
        xorl    %eax, %eax
        inb     %dx, %al
        andl    $\mask, %eax
        cmpl    $\want, %eax
        je      2f
        call    wait_20_ms
        loop    1b
2:      check   \name, $\want
.endm

# Lets 20 ms of counter 2 pass.
wait_20_ms:
        pusha
        put     PORT_B, 1
        put     PIT_CONTROL, 0xb0
        put     PIT_COUNTER2, TWENTY_MS & 0xff
        put     PIT_COUNTER2, TWENTY_MS >> 8
1:      inb     $PORT_B, %al
        testb   $PORT_B_OUT2, %al
        jz      1b
        popa
        ret

# --- 16550A ----------------------------------------------------------------------------------------------------------

# Eight bits, and DIVISOR 115,200ths of a second each.
.macro divisor divisor
        put     COM+3, 0x83
        put     COM, \divisor & 0xff
        put     COM+1, \divisor >> 8
        put     COM+3, 0x03
.endm

# 115,200 bits per second, in loopback, no FIFO, nothing received, no interrupt enabled or pending.
uart_reset:
        put     COM+4, 0x10
        divisor 1
        put     COM+1, 0
        put     COM+2, 0x07
        put     COM+2, 0
        drop    COM+5
        drop    COM+6
        drop    COM+2
        ret

uart_registers:
        call    uart_reset
        put     COM+1, 0xf0
        expect  ier_high_bits, COM+1, 0x00
        put     COM+3, 0x55
        expect  lcr_bits, COM+3, 0x55
        put     COM+3, 0x03
        put     COM+4, 0xf0
        expect  mcr_high_bits, COM+4, 0x10
        put     COM+7, 0xa5
        expect  scratch_bits, COM+7, 0xa5
        put     COM+3, 0x83
        put     COM+1, 0x12
        put     COM, 0x34
        expect  divisor_low, COM, 0x34
        expect  divisor_high, COM+1, 0x12
        put     COM+3, 0x03
        expect  ier_behind_divisor, COM+1, 0x00
        expect  lsr_idle, COM+5, 0x60
        ret

uart_fifo:
        call    uart_reset
        expect  iir_without_fifo, COM+2, 0x01
        put     COM, 0x41
        put     COM, 0x42
        expect  overrun_without_fifo, COM+5, 0x63
        expect  overrun_is_cleared, COM+5, 0x61
        expect  overrun_keeps_the_newest, COM, 0x42
        expect  data_is_read, COM+5, 0x60

        put     COM+2, 0x01
        expect  iir_with_fifo, COM+2, 0xc1
        put     COM, 0x55
        put     COM+2, 0x03
        expect  fcr_empties_the_receiver, COM+5, 0x60
        put     COM, 0x55
        put     COM+2, 0x00
        expect  fifo_off_empties_the_receiver, COM+5, 0x60

        put     COM+2, 0x01
        movl    $16, %ecx
        movl    $COM, %edx
        movb    $0x30, %al
1:      outb    %al, %dx
        incb    %al
        loop    1b
        expect  fifo_takes_16, COM+5, 0x61
        put     COM, 0x77
        expect  overrun_with_fifo, COM+5, 0x63
        xorl    %eax, %eax
        xorl    %ebx, %ebx
        movl    $16, %ecx
        movl    $COM, %edx
2:      inb     %dx, %al
        addl    %eax, %ebx
        loop    2b
        movl    %ebx, %eax
        check   overrun_loses_the_newest, $16*0x30+15*16/2
        expect  fifo_is_read, COM+5, 0x60
        ret

uart_identification:
        call    uart_reset
        divisor 0xffff                          # four characters last longer than any host stands still
        put     COM+1, 0x01
        put     COM+2, 0x41                     # trigger level 4
        put     COM, 1
        put     COM, 2
        put     COM, 3
        expect  below_trigger_level, COM+2, 0xc1
        put     COM, 4
        expect  at_trigger_level, COM+2, 0xc4
        drop    COM
        expect  below_trigger_level_again, COM+2, 0xc1
        divisor 1
        drop    COM
        await   time_out, COM+2, 0xcc
        expect  time_out_stays, COM+2, 0xcc
        drop    COM
        drop    COM
        expect  time_out_is_cleared_by_reading, COM+2, 0xc1

        call    uart_reset
        put     COM+1, 0x02
        expect  thre_when_enabled, COM+2, 0x02
        expect  thre_is_cleared_by_iir, COM+2, 0x01
        put     COM+1, 0x02
        expect  thre_enabled_again, COM+2, 0x01
        put     COM+1, 0x00
        put     COM+1, 0x02
        expect  thre_off_and_on, COM+2, 0x02
        put     COM, 0x41
        expect  thre_after_a_character, COM+2, 0x02

        call    uart_reset
        put     COM+1, 0x07
        put     COM, 0x41
        put     COM, 0x42
        expect  line_status_first, COM+2, 0x06
        drop    COM+5
        expect  data_second, COM+2, 0x04
        drop    COM
        expect  thre_third, COM+2, 0x02
        expect  nothing_left, COM+2, 0x01
        ret

uart_modem:
        call    uart_reset
        put     COM+4, 0x11
        expect  dtr_is_dsr, COM+6, 0x20, 0xf0
        put     COM+4, 0x12
        expect  rts_is_cts, COM+6, 0x10, 0xf0
        put     COM+4, 0x14
        expect  out1_is_ri, COM+6, 0x40, 0xf0
        put     COM+4, 0x18
        expect  out2_is_dcd, COM+6, 0x80, 0xf0
        put     COM+4, 0x10
        drop    COM+6
        put     COM+4, 0x1f
        expect  modem_deltas_on, COM+6, 0xfb
        expect  modem_deltas_are_read, COM+6, 0xf0
        put     COM+4, 0x1b
        expect  modem_deltas_ri_off, COM+6, 0xb4
        put     COM+1, 0x08
        expect  no_modem_interrupt, COM+2, 0x01
        put     COM+4, 0x1a
        expect  modem_interrupt, COM+2, 0x00
        expect  modem_deltas_dsr, COM+6, 0x92
        expect  modem_interrupt_is_read, COM+2, 0x01
        call    uart_reset
        ret

# A handler that writes the same value to IER again: the transmitter has not become empty anew.
uart_storm:
        handle  IRQ4, count_irq4
        put     PIC1, 0x11
        put     PIC1_DATA, 0x20
        put     PIC1_DATA, 0x04
        put     PIC1_DATA, 0x01
        put     PIC1_DATA, 0xef
        put     COM+4, 0x0b
        put     COM+2, 0x01
        movl    $0, count
        sti
        put     COM+1, 0x02
        call    wait_20_ms
        cli
        put     PIC1_DATA, 0xff
        check_value interrupts_for_one_event, count, $1
        call    uart_reset
        restore_vector IRQ4
        ret

count_irq4:
        pusha
        incl    count
        drop    COM+2
        put     COM+1, 0x02
        put     PIC1, 0x20
        popa
        iret

# --- Keyboard controller ---------------------------------------------------------------------------------------------

# Sends COMMAND and waits for its answer in EAX.
.macro answer command
        put     KEYBOARD_COMMAND, \command
        call    keyboard_answer
.endm

keyboard_answer:
        xorl    %eax, %eax
1:      inb     $KEYBOARD_COMMAND, %al
        testb   $1, %al
        jz      1b
        inb     $KEYBOARD, %al
        ret

keyboard:
        put     KEYBOARD_COMMAND, 0x60
        put     KEYBOARD, 0x30                  # both devices disabled, no interrupts
        drop    KEYBOARD
        drop    KEYBOARD
        answer  0x20
        check   command_byte, $0x30
        answer  0xaa
        check   self_test, $0x55
        answer  0xab
        check   keyboard_interface, $0x00
        answer  0xa9
        check   auxiliary_interface, $0x00
        put     KEYBOARD_COMMAND, 0x60
        put     KEYBOARD, 0x30
        put     KEYBOARD_COMMAND, 0xae
        answer  0x20
        check   keyboard_enabled, $0x20
        put     KEYBOARD_COMMAND, 0xa8
        answer  0x20
        check   auxiliary_enabled, $0x00
        put     KEYBOARD_COMMAND, 0xad
        put     KEYBOARD_COMMAND, 0xa7
        answer  0x20
        check   both_disabled, $0x30
        put     KEYBOARD_COMMAND, 0xd2
        put     KEYBOARD, 0x5a
        expect  from_keyboard, KEYBOARD_COMMAND, 0x01, 0x21
        expect  from_keyboard_data, KEYBOARD, 0x5a
        put     KEYBOARD_COMMAND, 0xd3
        put     KEYBOARD, 0xa5
        expect  from_auxiliary, KEYBOARD_COMMAND, 0x21, 0x21
        expect  from_auxiliary_data, KEYBOARD, 0xa5
        expect  output_buffer_is_read, KEYBOARD_COMMAND, 0x00, 0x01
        expect  data_was_written, KEYBOARD_COMMAND, 0x00, 0x08
        put     KEYBOARD_COMMAND, 0xae
        expect  command_was_written, KEYBOARD_COMMAND, 0x08, 0x08
        ret

# --- MC146818A -------------------------------------------------------------------------------------------------------

.macro cmos_put index, value
        put     CMOS, \index
        put     CMOS_DATA, \value
.endm

.macro cmos_expect name, index, want, mask=0xff
        put     CMOS, \index
        expect  \name, CMOS_DATA, \want, \mask
.endm

clock:
        cmos_put 0x0a, 0x26
        cmos_put 0x0b, 0x82                     # SET, BCD, 24 hours
        cmos_put 0x00, 0x31
        cmos_put 0x02, 0x41
        cmos_put 0x04, 0x17
        cmos_put 0x06, 0x02                     # no such day of the week
        cmos_put 0x09, 0x24
        cmos_put 0x08, 0x02
        cmos_put 0x07, 0x29
        cmos_put 0x01, 0x59
        cmos_put 0x03, 0x58
        cmos_put 0x05, 0xff
        cmos_put 0x40, 0xa5
        cmos_expect set_minutes, 0x02, 0x41
        cmos_expect set_seconds, 0x00, 0x31
        cmos_expect set_hours, 0x04, 0x17
        cmos_expect set_weekday, 0x06, 0x02
        cmos_expect set_day, 0x07, 0x29
        cmos_expect set_month, 0x08, 0x02
        cmos_expect set_year, 0x09, 0x24
        cmos_expect alarm_seconds, 0x01, 0x59
        cmos_expect alarm_minutes, 0x03, 0x58
        cmos_expect alarm_hours, 0x05, 0xff
        cmos_expect ram_byte, 0x40, 0xa5
        cmos_expect index_without_nmi_mask, 0x8d, 0x80
        cmos_put 0x0d, 0x00
        cmos_expect register_d_is_read_only, 0x0d, 0x80
        cmos_put 0x0a, 0xa6
        cmos_expect uip_is_read_only, 0x0a, 0x26
        cmos_put 0x0b, 0xc2                     # the periodic interrupt goes on under SET
        put     CMOS, 0x0c
        await   period_under_set, CMOS_DATA, 0xc0
        cmos_put 0x0b, 0x82
        put     CMOS, 0x0c
        drop    CMOS_DATA
        call    wait_20_ms
        cmos_expect period_not_enabled, 0x0c, 0x40
        cmos_expect time_stood_still, 0x00, 0x31
        cmos_put 0x0a, 0x20                     # no rate
        put     CMOS, 0x0c
        drop    CMOS_DATA
        call    wait_20_ms
        cmos_expect no_period, 0x0c, 0x00
        cmos_put 0x0b, 0x92
        cmos_put 0x0b, 0x02
        cmos_put 0x0b, 0x92
        cmos_expect set_clears_uie, 0x0b, 0x82
        cmos_put 0x0a, 0x26
        cmos_put 0x0b, 0x02
        ret

        .bss
count:  .skip 4
