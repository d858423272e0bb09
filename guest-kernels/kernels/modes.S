# Real-address mode and virtual-8086 mode, with its extensions if CPUID announces them.
# SDM Vol. 3A, 9.9 Mode Switching; Vol. 3B, chapter 20 8086 Emulation.
#
#   0x00008000  16-bit code, copied here from low_begin..low_end; CS = 0x0800 in both modes
#   0x0000a000  its data: DS = ES = 0x0a00
#   0x0000c000  top of its stack: SS = 0

        .include "harness.inc"

        LOW             = 0x8000
        LOW_DATA        = 0xa000
        LOW_STACK_TOP   = 0xc000
        LOW_CODE16      = FREE + 0x00           # 16-bit code over LOW
        LOW_DATA16      = FREE + 0x08           # data as real-address mode has it
        TSS_IO          = FREE + 0x10           # a TSS with both bitmaps
        CONF0           = FREE + 0x18           # conforming code, DPL 0
        REDIRECTION     = TSS_SIZE              # interrupt redirection bitmap, then the I/O permission bitmap
        IO_BITMAP       = REDIRECTION + 32
        TSS_IO_SIZE     = IO_BITMAP + 256 / 8 + 1

main:
        segment LOW_CODE16, $LOW, $0xffff, PRESENT+CODE
        segment LOW_DATA16, $0, $0xffff, PRESENT+DATA
        segment CONF0, $0, $0xfffff, PRESENT+CODE+CONFORMING+BIG+PAGES
        handle  BP, stubs+16*BP, PRESENT+DPL3+SYS_INT_GATE
        movl    $low_begin, %esi
        movl    $LOW, %edi
        movl    $low_end - low_begin, %ecx
        rep movsb
        movl    $exception_stack_top, tss_io + TSS_ESP0
        movl    $KDATA, tss_io + TSS_SS0
        movw    $IO_BITMAP, tss_io + TSS_IOMAP
        movl    $tss_io + REDIRECTION, %edi
        movl    $TSS_IO_SIZE - REDIRECTION, %ecx
        movb    $0xff, %al
        rep stosb
        movb    $0xfe, tss_io + IO_BITMAP + 0x80 / 8    # port 0x80
        call    real_mode
        call    virtual_8086
        call    virtual_8086_extensions
        ret

# Loads the task register with the TSS that has the bitmaps.
load_tss_io:
        movl    $TSS_IO, %eax
        segment TSS_IO, $tss_io, $TSS_IO_SIZE-1, PRESENT+SYS_TSS
        ltr     %ax
        ret

# --- 9.9 Mode Switching: to real-address mode and back ----------------------------------------------------------------

        .pushsection .data, 1
        .code16
low_begin:
                                                # entered by LOW_CODE16, still in protected mode
        movl    %cr0, %eax
        andb    $~CR0_PE, %al
        movl    %eax, %cr0
        ljmpw   $LOW >> 4, $real_code - low_begin
real_code:
        xorw    %ax, %ax
        movw    %ax, %ss
        movl    $LOW_STACK_TOP, %esp
        movw    $LOW_DATA >> 4, %ax
        movw    %ax, %ds
        int     $0x60
after_int60:
        movw    %sp, 0
        movw    %cx, 2
        movw    %cs, 4
        movw    $0xffff, %ax                    # 0xffff:0x0010 is 0x100000 with A20 open
        movw    %ax, %es
        movl    %es:0x10, %eax
        movl    %eax, 8
        movl    $0x12345678, %eax               # 32-bit operands and addresses work
        movl    $0x20, %ebx
        movl    %eax, (%ebx)
        pushl   %eax
        popw    %dx
        popw    %si
        movw    %dx, 12
        movw    %si, 14
        smsw    %ax
        movw    %ax, 16
        lcallw  $LOW >> 4, $real_far - low_begin
        movw    %di, 18
        movl    %cr0, %eax
        orb     $CR0_PE, %al
        movl    %eax, %cr0
        ljmpl   $KCODE, $back_from_real
real_far:
        movw    $0x5a5a, %di
        lretw
real_handler:
        movw    %sp, %bp
        movw    (%bp), %cx
        subw    $after_int60 - low_begin, %cx
        iretw
virtual_handler:
        movw    $0x1234, %di
        iretw
        .code32
        .popsection

real_mode:
        movl    %esp, saved_esp
        movl    $(LOW >> 4 << 16) + (real_handler - low_begin), 4 * 0x60
        lidt    real_idt_pointer
        movl    $LOW_DATA16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        ljmp    $LOW_CODE16, $0
back_from_real:
        movl    $KDATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    saved_esp, %esp
        lidt    idt_pointer
        movzwl  LOW_DATA, %eax
        check   real_iret_restores_sp, $LOW_STACK_TOP
        movzwl  LOW_DATA + 2, %eax
        check   real_int_pushes_ip, $0
        movzwl  LOW_DATA + 4, %eax
        check   real_cs, $LOW>>4
        movl    LOW_DATA + 8, %eax
        check   real_above_1_mib, 0x100000
        movl    LOW_DATA + 0x20, %eax
        check   real_32_bit_operand, $0x12345678
        movzwl  LOW_DATA + 12, %eax
        check   real_push_dword_low, $0x5678
        movzwl  LOW_DATA + 14, %eax
        check   real_push_dword_high, $0x1234
        movzwl  LOW_DATA + 16, %eax
        andl    $CR0_PE, %eax
        check   real_pe_clear, $0
        movzwl  LOW_DATA + 18, %eax
        check   real_far_call, $0x5a5a
        runs    protected_again, movl tss_io, %eax
        ret

# --- Vol. 3B, 20.2 Virtual-8086 Mode ----------------------------------------------------------------------------------

# Runs INSN in virtual-8086 mode with CS = LOW, DS = ES = LOW_DATA, SS = 0. Without an exception it returns by int3.
.macro attempt_v86 eflags, insn:vararg
        .pushsection .data, 1
        .code16
.Lvirtual\@:
        \insn
.Lvirtual_end\@:
        int3
        .code32
        .popsection
        arm     .Lvirtual_done\@
        movl    $.Lvirtual\@ - low_begin, attempt_eip
        movl    $.Lvirtual_end\@ - low_begin, attempt_end
        pushl   $0x6666                         # GS
        pushl   $0x5555                         # FS
        pushl   $LOW_DATA >> 4
        pushl   $LOW_DATA >> 4
        pushl   $0
        pushl   $LOW_STACK_TOP
        pushl   $EFLAGS_VM + (\eflags)
        pushl   $LOW >> 4
        pushl   $.Lvirtual\@ - low_begin
        iret
.Lvirtual_done\@:
        pushl   $KDATA                          # ES is null after an exception in virtual-8086 mode
        popl    %es
.endm

.macro v86_faults name, eflags, vector, error, insn:vararg
        attempt_v86 \eflags, \insn
        check_outcome \name, $(\vector << 24) + (\error)
.endm

.macro v86_traps name, eflags, vector, insn:vararg
        attempt_v86 \eflags, \insn
        check_trap \name, \vector
.endm

.macro v86_runs name, eflags, insn:vararg
        attempt_v86 \eflags, \insn
        check_vector \name, BP
.endm

        LOW_IOPL        = EFLAGS_FIXED
        HIGH_IOPL       = EFLAGS_FIXED + EFLAGS_IOPL

.macro push_and_read_flags
        pushfw
        popw    %ax
.endm
.macro pop_flags value
        pushw   $\value
        popfw
.endm
.macro virtual_iret
        pushw   $EFLAGS_FIXED + EFLAGS_CF
        pushw   $LOW >> 4
        pushw   $.Liret\@ - low_begin
        iretw
        hlt
.Liret\@:
.endm

virtual_8086:
        v86_runs v86_nop, LOW_IOPL, nop
        movzwl  record_cs, %eax
        check   v86_saved_cs, $LOW>>4
        movzwl  record_ss, %eax
        check   v86_saved_ss, $0
        check_value v86_saved_esp, record_esp, $LOW_STACK_TOP
        movl    record_eflags, %eax
        andl    $EFLAGS_VM, %eax
        check   v86_saved_vm, $EFLAGS_VM
        movzwl  exception_stack_top - 4, %eax   # ES, DS, FS, GS lie above SS
        check   v86_saved_gs, $0x6666
        movzwl  exception_stack_top - 8, %eax
        check   v86_saved_fs, $0x5555
        movzwl  exception_stack_top - 12, %eax
        check   v86_saved_ds, $LOW_DATA>>4
        movzwl  record_es, %eax
        check   v86_handler_es_is_null, $0
        xorl    %eax, %eax
        movw    %gs, %ax
        check   v86_handler_gs_is_null, $0
        movl    $0xc0dec0de, LOW_DATA + 0x10
        v86_runs v86_load, LOW_IOPL, movl 0x10, %eax
        check_value v86_load_value, record_eax, $0xc0dec0de
        movl    $0x20, %ebx
        movl    $0x77665544, %eax
        v86_runs v86_store, LOW_IOPL, movl %eax, (%ebx)
        movl    LOW_DATA + 0x20, %eax
        check   v86_store_value, $0x77665544
        movl    $0x10000, %ebx
        v86_faults v86_gp_above_64k, LOW_IOPL, GP, 0, movb (%ebx), %al
        v86_faults v86_gp_word_at_limit, LOW_IOPL, GP, 0, movw 0xffff, %ax
        v86_faults v86_gp_cli, LOW_IOPL, GP, 0, cli
        v86_faults v86_gp_sti, LOW_IOPL, GP, 0, sti
        v86_faults v86_gp_pushf, LOW_IOPL, GP, 0, pushfw
        v86_faults v86_gp_popf, LOW_IOPL, GP, 0, popfw
        v86_faults v86_gp_int, LOW_IOPL, GP, 0, int $0x21
        v86_faults v86_gp_iret, LOW_IOPL, GP, 0, iretw
        v86_runs v86_cli, HIGH_IOPL, cli
        v86_runs v86_sti, HIGH_IOPL, sti
        movl    record_eflags, %eax
        andl    $EFLAGS_IF, %eax
        check   v86_sti_sets_if, $EFLAGS_IF
        v86_runs v86_pushf, HIGH_IOPL+EFLAGS_CF, push_and_read_flags
        movzwl  record_eax, %eax
        check   v86_pushf_image, $EFLAGS_FIXED+EFLAGS_IOPL+EFLAGS_CF
        v86_runs v86_popf, HIGH_IOPL, pop_flags EFLAGS_FIXED+EFLAGS_CF+EFLAGS_IF
        movl    record_eflags, %eax
        andl    $EFLAGS_IF + EFLAGS_IOPL + EFLAGS_CF + EFLAGS_VM, %eax
        check   v86_popf_keeps_iopl_and_vm, $EFLAGS_IF+EFLAGS_IOPL+EFLAGS_CF+EFLAGS_VM
        v86_runs v86_iret, HIGH_IOPL, virtual_iret
        v86_traps v86_int_through_idt, HIGH_IOPL, RETURN, int $RETURN
        v86_faults v86_int_gate_dpl, HIGH_IOPL, GP, 0x99*8+ERR_IDT, int $0x99
        v86_traps v86_int3_ignores_iopl, LOW_IOPL, BP, int3
        v86_faults v86_gp_hlt, HIGH_IOPL, GP, 0, hlt
        v86_faults v86_gp_mov_cr, HIGH_IOPL, GP, 0, movl %cr0, %eax
        v86_faults v86_gp_lgdt, HIGH_IOPL, GP, 0, lgdtl 0
        v86_faults v86_ud_lldt, HIGH_IOPL, UD, 0, lldt %ax
        v86_faults v86_ud_lar, HIGH_IOPL, UD, 0, lar %ax, %ax
        v86_faults v86_ud_arpl, HIGH_IOPL, UD, 0, arpl %ax, %ax
        v86_faults v86_gp_in, HIGH_IOPL, GP, 0, inb $0x80, %al     # by the bitmap, whatever IOPL is
        call    load_tss_io
        v86_runs v86_in_permitted, LOW_IOPL, inb $0x80, %al
        v86_faults v86_in_denied, HIGH_IOPL, GP, 0, inb $0x81, %al
        call    load_tss
        xorl    %ecx, %ecx
        v86_faults v86_de, LOW_IOPL, DE, 0, divb %cl

        gate    idt+8*0x51, CONF0, call_back, PRESENT+DPL3+SYS_INT_GATE
        v86_faults v86_gp_handler_not_ring0, HIGH_IOPL, GP, CONF0, int $0x51
        restore_vector 0x51
        ret

call_back:
        int     $RETURN

# --- Vol. 3B, 20.3 Interrupt and Exception Handling in Virtual-8086 Mode: extensions (CR4.VME) ------------------------

virtual_8086_extensions:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_VME, %edx
        jnz     1f
        note    "skip: CPUID does not announce VME"
        ret
1:      movl    $CR4_VME, %eax
        movl    %eax, %cr4
        v86_runs vme_cli, LOW_IOPL+EFLAGS_VIF+EFLAGS_IF, cli
        movl    record_eflags, %eax
        andl    $EFLAGS_VIF + EFLAGS_IF, %eax
        check   vme_cli_clears_vif, $EFLAGS_IF
        v86_runs vme_sti, LOW_IOPL, sti
        movl    record_eflags, %eax
        andl    $EFLAGS_VIF + EFLAGS_IF, %eax
        check   vme_sti_sets_vif, $EFLAGS_VIF
        v86_faults vme_sti_with_vip, LOW_IOPL+EFLAGS_VIP, GP, 0, sti
        v86_runs vme_pushf, LOW_IOPL+EFLAGS_VIF, push_and_read_flags
        movzwl  record_eax, %eax
        check   vme_pushf_image, $EFLAGS_FIXED+EFLAGS_IOPL+EFLAGS_IF
        v86_runs vme_popf, LOW_IOPL, pop_flags EFLAGS_FIXED+EFLAGS_IF
        movl    record_eflags, %eax
        andl    $EFLAGS_VIF + EFLAGS_IF + EFLAGS_IOPL, %eax
        check   vme_popf_sets_vif, $EFLAGS_VIF
        movl    $(LOW >> 4 << 16) + (virtual_handler - low_begin), 4 * 0x61
        call    load_tss_io
        movb    $0xff, tss_io + REDIRECTION + 0x60 / 8
        v86_faults vme_int_not_redirected, LOW_IOPL, GP, 0, int $0x61
        movb    $0xfd, tss_io + REDIRECTION + 0x60 / 8
        xorl    %edi, %edi
        v86_runs vme_int_redirected, LOW_IOPL, int $0x61
        movzwl  record_edi, %eax
        check   vme_handler_ran, $0x1234
        movl    record_esp, %eax
        check   vme_iret_balances, $LOW_STACK_TOP
        call    load_tss
        xorl    %eax, %eax
        movl    %eax, %cr4
        ret

        .pushsection .data, 2
low_end:
        .popsection

        .section .rodata
        .balign 4
real_idt_pointer:
        .word   0x3ff
        .long   0

        .bss
        .balign 8
tss_io:         .skip TSS_IO_SIZE
        .balign 4
saved_esp:      .skip 4
