# Devices of the program that runs the machine: memory-mapped registers of every width, a level triggered interrupt line that
# two devices share, a deadline, DMA, and regions that come and go.
# SDM Vol. 3A, chapter 4 Paging; 8259A datasheet (231468); PIIX (290562), ELCR.
#
# The devices are "stations". All of them have the registers below, in each of their regions. Where no station answers at port
# 0x300, there is nothing to check.
#
#       00-3F   storage, one for each region
#       40      request: written, drives the line high; reads as 1 while it is
#       44      acknowledge: written, drives the line low
#       48      timer: written, drives the line high so many nanoseconds later
#       4C      DMA address
#       50      DMA: written, stores the doubleword at the DMA address
#       54      latest access to storage: bytes << 24 | region << 16 | offset
#       58, 5C  unmap, map the region with the number written
#
#   station A   region 0: ports 300-30F     storage only, first byte IDENTITY
#               region 1: B8000             in the hole of RAM
#               region 2: 2000000           above RAM
#               region 3: FEE00000
#               region 4: 800000000         above 4 GiB
#   station B   region 0: FED00000
#   both drive IRQ 11

        .include "harness.inc"

        STATION         = 0x300
        IDENTITY        = 0x5a
        HOLE            = 0xb8000
        HIGH            = 0x2000000
        LOCAL           = 0xfee00000
        OTHER           = 0xfed00000

        REQUEST         = 0x40
        ACKNOWLEDGE     = 0x44
        TIMER           = 0x48
        DMA_ADDRESS     = 0x4c
        DMA             = 0x50
        LATEST          = 0x54
        UNMAP           = 0x58
        MAP             = 0x5c

        P               = 1 << 0
        W               = 1 << 1
        LARGE           = 1 << 7
        LARGE_PAGE      = 0x200000
        CPUID1_EDX_PAE  = 1 << 6
        # Linear addresses with PAE: 800000000 and FEE00000.
        ABOVE           = 0x40000000
        LOCAL_ALIAS     = 0x40200000

        PIC1            = 0x20
        PIC1_DATA       = 0x21
        PIC2            = 0xa0
        PIC2_DATA       = 0xa1
        ELCR1           = 0x4d0
        ELCR2           = 0x4d1
        ICW1_INIT_ICW4  = 0x11
        ICW4_8086       = 0x01
        OCW2_EOI        = 0x20
        OCW3_READ_IRR   = 0x0a
        VECTORS         = 0x20
        LINE            = 11
        SLAVE_BIT       = 1 << (LINE-8)

        ROUNDS          = 100
        MILLISECOND     = 1000000

main:
        movl    $STATION, %edx
        inb     %dx, %al
        cmpb    $IDENTITY, %al
        je      1f
        note    "skip: no station at port 0x300"
        ret
1:      call    ports
        call    memory
        call    dma
        call    regions
        call    lines
        call    wake
        call    above_4_gib
        ret

.macro out_byte value, port
        movb    $(\value), %al
        outb    %al, $\port
.endm

.macro in_byte port
        movl    $\port, %edx
        xorl    %eax, %eax
        inb     %dx, %al
.endm

# --- I/O ports -------------------------------------------------------------------------------------------------------

ports:
        movl    $STATION + 4, %edx
        movl    $0x88776655, %eax
        outl    %eax, %dx
        xorl    %eax, %eax
        inl     %dx, %eax
        check   port_dword, $0x88776655
        check_value port_dword_is_undivided, HOLE+LATEST, $0x04000004
        movl    $STATION + 6, %edx
        movl    $0, %eax
        inw     %dx, %ax
        check   port_word, $0x8877
        movl    $STATION + 5, %edx
        inb     %dx, %al
        check   port_byte, $0x8866
        movl    $STATION + 0xe, %edx            # two ports of the station, then nobody's
        inl     %dx, %eax
        check   port_dword_across_the_end, $0xffff0000
        check_value port_dword_across_the_end_is_split, HOLE+LATEST, $0x0100000f
        ret

# --- Memory-mapped registers -----------------------------------------------------------------------------------------

# Reads and writes storage in every width. REGION: the station's number of the region at BASE.
.macro widths name, base, region
        movb    $0x11, \base
        movb    $0x22, \base+1
        movw    $0x4433, \base+2
        movl    $0x88776655, \base+4
        check_value \name\()_latest_dword, \base+LATEST, $0x04000004+(\region<<16)
        check_value \name\()_dwords_low, \base, $0x44332211
        check_value \name\()_dwords_high, \base+4, $0x88776655
        movzwl  \base+6, %eax
        check   \name\()_word, $0x8877
        check_value \name\()_latest_word, \base+LATEST, $0x02000006+(\region<<16)
        movzbl  \base+3, %eax
        check   \name\()_byte, $0x44
        check_value \name\()_latest_byte, \base+LATEST, $0x01000003+(\region<<16)
        fildll  \base
        check_value \name\()_latest_qword, \base+LATEST, $0x08000000+(\region<<16)
        fistpll \base+8
        check_value \name\()_latest_qword_store, \base+LATEST, $0x08000008+(\region<<16)
        check_value \name\()_qword_low, \base+8, $0x44332211
        check_value \name\()_qword_high, \base+12, $0x88776655
        movl    \base+1, %eax                 # cycles of 1, 2 and 1 bytes
        check   \name\()_misaligned, $0x55443322
        check_value \name\()_latest_of_misaligned, \base+LATEST, $0x01000004+(\region<<16)
        incl    \base
        xchgl   %eax, \base+4
        check   \name\()_exchange, $0x88776655
        cld
        movl    $\base, %esi
        movl    $copy, %edi
        movl    $4, %ecx
        rep movsl
        check_value \name\()_copied_0, copy, $0x44332212
        check_value \name\()_copied_4, copy+4, $0x55443322
        check_value \name\()_copied_8, copy+8, $0x44332211
        check_value \name\()_copied_12, copy+12, $0x88776655
        movl    $0x0f0f0f0f, %eax
        movl    $\base+0x20, %edi
        movl    $8, %ecx
        rep stosl
        check_value \name\()_filled, \base+0x3c, $0x0f0f0f0f
.endm

memory:
        fninit
        widths  hole, HOLE, 1
        widths  high, HIGH, 2
        widths  local, LOCAL, 3
        widths  other, OTHER, 0
        check_value regions_are_told_apart, HOLE+0x10, $0
        check_value nobody_below, HIGH-4, $0xffffffff
        ret

# --- DMA -------------------------------------------------------------------------------------------------------------

dma:
        movl    $copy+4, HIGH+DMA_ADDRESS
        movl    $0xcafef00d, HIGH+DMA
        check_value dma_stores, copy+4, $0xcafef00d
        movl    $patched+1, HIGH+DMA_ADDRESS
        xorl    %ebx, %ebx
1:      incl    %ebx                            # into code that has just run
        movl    %ebx, HIGH+DMA
        call    patched
        check   dma_into_code, %ebx
        cmpl    $5, %ebx
        jne     1b
        ret

        .balign 16
patched:
        movl    $0, %eax
        ret

# --- Regions that come and go ----------------------------------------------------------------------------------------

regions:
        movl    $3, HOLE+UNMAP
        check_value unmapped_reads_as_ones, LOCAL, $0xffffffff
        movl    $0x12345678, LOCAL
        movl    $3, HOLE+MAP
        check_value mapped_again, LOCAL, $0x44332212
        ret

# --- A line that two devices share -----------------------------------------------------------------------------------

lines:
        in_byte ELCR1
        check   elcr_master, $0
        in_byte ELCR2
        check   elcr_is_preset, $SLAVE_BIT
        out_byte ICW1_INIT_ICW4, PIC1
        out_byte ICW1_INIT_ICW4, PIC2
        out_byte VECTORS, PIC1_DATA
        out_byte VECTORS+8, PIC2_DATA
        out_byte 0x04, PIC1_DATA                # ICW3: second chip on IR2
        out_byte 0x02, PIC2_DATA
        out_byte ICW4_8086, PIC1_DATA
        out_byte ICW4_8086, PIC2_DATA
        out_byte 0xfb, PIC1_DATA
        out_byte ~SLAVE_BIT&0xff, PIC2_DATA
        handle  VECTORS+LINE, serve
        in_byte ELCR2
        check   elcr_after_initialization, $SLAVE_BIT

        xorl    %ebx, %ebx
1:      movl    $1, HOLE+REQUEST
        movl    $1, OTHER+REQUEST
        sti
        nop
        cli
        incl    %ebx
        cmpl    $ROUNDS, %ebx
        jne     1b
        check_value handler_entered_for_each, entered, $ROUNDS*2
        check_value served_a, served_a, $ROUNDS
        check_value served_b, served_b, $ROUNDS
        check_value nobody_unserved, unserved, $0
        check_value line_stays_high_for_the_other, still_high, $ROUNDS
        check_value request_a_is_gone, HOLE+REQUEST, $0
        check_value request_b_is_gone, OTHER+REQUEST, $0
        call    requested
        check   line_is_low, $0

        movl    $1, OTHER+REQUEST             # not served: requests again as soon as interrupts are enabled
        call    requested
        check   line_is_high, $SLAVE_BIT
        movl    $1, HOLE+REQUEST
        movl    $1, OTHER+ACKNOWLEDGE
        call    requested
        check   line_is_high_by_the_other, $SLAVE_BIT
        movl    $1, HOLE+ACKNOWLEDGE
        call    requested
        check   line_falls_with_the_last, $0
        sti
        nop
        cli
        check_value a_level_that_falls_requests_nothing, entered, $ROUNDS*2
        ret

# EAX: the request of the line at the second controller.
requested:
        out_byte OCW3_READ_IRR, PIC2
        in_byte PIC2
        andl    $SLAVE_BIT, %eax
        ret

# Serves one of the devices.
serve:
        pushl   %eax
        pushl   %edx
        incl    entered
        cmpl    $0, HOLE+REQUEST
        je      1f
        incl    served_a
        movl    $1, HOLE+ACKNOWLEDGE
        jmp     3f
1:      cmpl    $0, OTHER+REQUEST
        je      2f
        incl    served_b
        movl    $1, OTHER+ACKNOWLEDGE
        jmp     3f
2:      incl    unserved
3:      out_byte OCW2_EOI, PIC2
        out_byte OCW2_EOI, PIC1
        call    requested
        testl   %eax, %eax
        jz      4f
        incl    still_high
4:      popl    %edx
        popl    %eax
        iret

# --- HLT waits for a device ------------------------------------------------------------------------------------------

wake:
        movl    $0, entered
        movl    $0, served_b
        movl    $MILLISECOND, OTHER+TIMER
        sti
        hlt
        cli
        check_value deadline_wakes_hlt, served_b, $1
        check_value deadline_interrupts_once, entered, $1
        movb    $0xff, %al
        outb    %al, $PIC1_DATA
        outb    %al, $PIC2_DATA
        restore_vector VECTORS+LINE
        ret

# --- 4.4 PAE Paging --------------------------------------------------------------------------------------------------

above_4_gib:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_PAE, %edx
        jnz     1f
        note    "skip: CPUID does not announce PAE"
        ret
1:      movl    $low_pd + P, pdpt
        movl    $high_pd + P, pdpt + 8          # linear 40000000 to 7FFFFFFF
        xorl    %ecx, %ecx
        movl    $P + W + LARGE, %eax
2:      movl    %eax, low_pd(, %ecx, 8)         # identity: 16 MiB
        addl    $LARGE_PAGE, %eax
        incl    %ecx
        cmpl    $8, %ecx
        jne     2b
        movl    $P + W + LARGE, high_pd
        movl    $8, high_pd + 4
        movl    $LOCAL+P + W + LARGE, high_pd + 8
        movl    $CR4_PAE, %eax
        movl    %eax, %cr4
        movl    $pdpt, %eax
        movl    %eax, %cr3
        movl    $CR0_PE + CR0_NE + CR0_PG, %eax
        movl    %eax, %cr0
        widths  above, ABOVE, 4
        check_value alias, LOCAL_ALIAS, $0x44332212
        widths  local_by_alias, LOCAL_ALIAS, 3
        movl    $4, ABOVE+UNMAP
        check_value above_unmapped, ABOVE, $0xffffffff
        movl    $4, LOCAL_ALIAS+MAP
        check_value above_mapped_again, ABOVE, $0x44332212
        movl    $CR0_PE + CR0_NE, %eax
        movl    %eax, %cr0
        xorl    %eax, %eax
        movl    %eax, %cr4
        ret

        .bss
copy:           .skip 16
entered:        .skip 4
served_a:       .skip 4
served_b:       .skip 4
unserved:       .skip 4
still_high:     .skip 4
        .balign 4096
pdpt:           .skip 4096
low_pd:         .skip 4096
high_pd:        .skip 4096
