# Segmentation, privilege rings, tasks.
# SDM Vol. 3A, chapters 3 Protected-Mode Memory Management, 5 Protection, 7 Task Management; Vol. 1, chapter 19
# Input/Output.

        .include "harness.inc"

        SMALL           = FREE + 0x00           # data over scratch, limit 0x0fff
        READ_ONLY       = FREE + 0x08
        DOWN            = FREE + 0x10           # expand-down: offsets above 0x0fff, up to 4 GiB
        DOWN16          = FREE + 0x18           # the same with B clear: up to 0x0ffff
        EXECUTE_ONLY    = FREE + 0x20
        CONF0           = FREE + 0x28           # conforming, DPL 0
        CONF3           = FREE + 0x30           # conforming, DPL 3
        ONE_PAGE        = FREE + 0x38           # limit 0, granularity 4 KiB
        STACK16         = FREE + 0x40           # B clear, over scratch
        THE_LDT         = FREE + 0x48
        GATE_SAME       = FREE + 0x50           # call gate, DPL 0, to ring 0
        GATE_INNER      = FREE + 0x58 + 3       # call gate, DPL 3, to ring 0, three parameters
        GATE_NP         = FREE + 0x60 + 3
        GATE_CONF       = FREE + 0x68 + 3       # call gate, DPL 3, to CONF0
        TSS2            = FREE + 0x70
        TASK_GATE       = FREE + 0x78
        TSS_IO          = FREE + 0x80           # the same as TSS, but long enough for an I/O permission bitmap
        GATE_JUMP       = FREE + 0xa0           # call gate for a far jump in ring 0
        LDT_DATA        = 0x08 + 4
        LDT_BEYOND      = 0x10 + 4

        TASK_VECTOR     = 0x50
        IO_BITMAP       = TSS_SIZE
        TSS_IO_SIZE     = IO_BITMAP + 256 / 8 + 1
        CR0_BASE        = CR0_PE + CR0_NE
        CR0_ET          = 1 << 4

        MSR_SYSENTER_CS = 0x174
        MSR_SYSENTER_ESP = 0x175
        MSR_SYSENTER_EIP = 0x176

main:
        segment SMALL, $scratch, $0xfff, PRESENT+DATA+BIG
        segment READ_ONLY, $scratch, $0xfff, PRESENT+DATA_RO+BIG
        segment DOWN, $scratch-0x1000, $0xfff, PRESENT+DATA+EXPAND_DOWN+BIG
        segment DOWN16, $scratch-0x1000, $0xfff, PRESENT+DATA+EXPAND_DOWN
        segment EXECUTE_ONLY, $0, $0xfffff, PRESENT+CODE_XO+BIG+PAGES
        segment CONF0, $0, $0xfffff, PRESENT+CODE+CONFORMING+BIG+PAGES
        segment CONF3, $0, $0xfffff, PRESENT+DPL3+CODE+CONFORMING+BIG+PAGES
        segment ONE_PAGE, $scratch, $0, PRESENT+DATA+BIG+PAGES
        segment STACK16, $scratch, $0xffff, PRESENT+DATA
        segment THE_LDT, $ldt, $0xf, PRESENT+SYS_LDT
        gate    gdt+GATE_SAME, KCODE, same_ring_target, PRESENT+SYS_CALL_GATE
        gate    gdt+GATE_JUMP, KCODE, conforming_target, PRESENT+SYS_CALL_GATE
        gate    gdt+(GATE_INNER&~7), KCODE, inner_target, PRESENT+DPL3+SYS_CALL_GATE, 3
        gate    gdt+(GATE_NP&~7), KCODE, inner_target, DPL3+SYS_CALL_GATE
        gate    gdt+(GATE_CONF&~7), CONF0, conforming_target, PRESENT+DPL3+SYS_CALL_GATE
        segment TSS2, $tss2, $TSS_SIZE-1, PRESENT+SYS_TSS
        gate    gdt+TASK_GATE, TSS2, 0, PRESENT+DPL3+SYS_TASK_GATE
        segment TSS_IO, $tss_io, $TSS_IO_SIZE-1, PRESENT+SYS_TSS
        call    types_and_limits
        call    queries
        call    local_table
        call    far_transfers
        call    call_gates
        call    conforming_code
        call    outer_returns
        call    privileged_flags
        call    stack16
        call    io_permission
        call    tasks
        call    fast_calls
        ret

.macro load_es selector
        movl    $\selector, %eax
        movl    %eax, %es
.endm

# --- 5.3 Limit Checking, 5.5 Type Checking, 3.4.5.1 Code- and Data-Segment Descriptor Types ---------------------------

types_and_limits:
        testb   $ACCESSED, gdt + SMALL + 5
        setz    %al
        movzbl  %al, %eax
        check   accessed_clear_before_load, $1
        load_es SMALL
        testb   $ACCESSED, gdt + SMALL + 5
        setnz   %al
        movzbl  %al, %eax
        check   load_sets_accessed, $1
        movl    $0xaa55aa55, scratch + 0xffc
        movl    %es:0xffc, %ebx
        check_value base_is_added, %ebx, $0xaa55aa55
        faults  gp_above_limit, GP, 0, movl %es:0xffe, %ebx
        movl    $-4, %ecx                       # the effective address wraps at 4 GiB before the check
        runs    wrapped_offset, movl %es:8(%ecx), %ebx
        load_es DOWN
        runs    expand_down_lowest, movb %es:0x1000, %bl
        faults  gp_expand_down_below, GP, 0, movb %es:0xfff, %bl
        faults  gp_expand_down_across, GP, 0, movl %es:0xffe, %ebx
        faults  gp_expand_down_zero, GP, 0, movl %ebx, %es:0
        runs    expand_down_above_64k, movb %es:0x10000, %bl
        load_es DOWN16
        runs    expand_down16_lowest, movb %es:0x1000, %bl
        runs    expand_down16_highest, movb %es:0xffff, %bl
        faults  gp_expand_down16_above, GP, 0, movb %es:0x10000, %bl
        faults  gp_expand_down16_across, GP, 0, movl %es:0xfffe, %ebx
        load_es ONE_PAGE
        runs    granular_limit_last, movb %es:0xfff, %bl
        faults  gp_granular_limit, GP, 0, movb %es:0x1000, %bl
        load_es READ_ONLY
        runs    read_only_read, movl %es:0, %ebx
        faults  gp_read_only_write, GP, 0, movl %ebx, %es:0
        faults  gp_read_only_modify, GP, 0, incl %es:0
        load_es KCODE
        runs    readable_code_read, movl %es:scratch, %ebx
        faults  gp_readable_code_write, GP, 0, movl %ebx, %es:scratch
        runs    cs_override_read, movl %cs:scratch, %ebx
        faults  gp_cs_override_write, GP, 0, movl %ebx, %cs:scratch
        movl    $EXECUTE_ONLY, %eax
        faults  gp_load_execute_only, GP, EXECUTE_ONLY, movl %eax, %es
        movl    $READ_ONLY, %eax
        faults  gp_read_only_stack, GP, READ_ONLY, movl %eax, %ss
        arm     1f
        movl    $2f, attempt_eip
        ljmp    $EXECUTE_ONLY, $2f
2:      movl    %cs:scratch, %ebx               # executes, but may not be read
        int     $RETURN
1:      check_outcome gp_execute_only_read, $GP << 24
        load_es KDATA
        ret

# --- 5.10 Pointer Validation: LAR, LSL, VERR, VERW, ARPL --------------------------------------------------------------

# INSN must leave ZF = WANT.
.macro zf name, want, insn:vararg
        \insn
        setz    %al
        movzbl  %al, %eax
        check   \name, $\want
.endm

.macro query name, insn, selector, want
        movl    $\selector, %ecx
        movl    $0x5a5a5a5a, %eax
        \insn   %ecx, %eax
        check   \name, $\want
.endm

queries:
        movl    $KCODE, %ecx
        lar     %ecx, %eax
        andl    $0x00f0ff00, %eax               # bits 16..=19 are undefined
        check   lar_code, $0x00c09b00
        movl    $GATE_SAME, %ecx
        lar     %ecx, %eax
        andl    $0x0000ff00, %eax
        check   lar_call_gate, $0x8c00
        query   lar_null, lar, 0, 0x5a5a5a5a
        query   lar_beyond, lar, GDT_ENTRIES*8, 0x5a5a5a5a
        query   lsl_flat, lsl, KDATA, 0xffffffff
        query   lsl_small, lsl, SMALL, 0xfff
        query   lsl_page, lsl, ONE_PAGE, 0xfff
        query   lsl_tss, lsl, TSS, TSS_SIZE-1
        query   lsl_call_gate, lsl, GATE_SAME, 0x5a5a5a5a
        movl    $TSS, %ecx
        lar     %ecx, %eax
        andl    $0x0000ff00, %eax
        check   lar_busy_tss, $0x8b00
        movl    $KCODE, %ecx
        zf      lar_sets_zf, 1, lar %ecx, %edx
        movl    $0, %ecx
        zf      lar_null_clears_zf, 0, lar %ecx, %edx
        movl    $KDATA, %ecx
        zf      verr_data, 1, verr %cx
        zf      verw_data, 1, verw %cx
        movl    $READ_ONLY, %ecx
        zf      verr_read_only, 1, verr %cx
        zf      verw_read_only, 0, verw %cx
        movl    $EXECUTE_ONLY, %ecx
        zf      verr_execute_only, 0, verr %cx
        movl    $KCODE, %ecx
        zf      verr_code, 1, verr %cx
        zf      verw_code, 0, verw %cx
        movl    $KDATA + 3, %ecx
        zf      verr_rpl_too_low, 0, verr %cx
        movl    $CONF0 + 3, %ecx
        zf      verr_conforming_any_rpl, 1, verr %cx
        movl    $TSS, %ecx
        zf      verr_system, 0, verr %cx
        movl    $0x10, %edx
        movl    $3, %ecx
        zf      arpl_raises, 1, arpl %cx, %dx
        check_value arpl_result, %edx, $0x13
        zf      arpl_equal, 0, arpl %cx, %dx
        sgdt    scratch
        movl    scratch + 2, %eax
        check   sgdt_base, $gdt
        movzwl  scratch, %eax
        check   sgdt_limit, $GDT_ENTRIES*8-1
        sidt    scratch
        movl    scratch + 2, %eax
        check   sidt_base, $idt
        xorl    %eax, %eax
        str     %ax
        check   str_task, $TSS
        smsw    %ax
        movzwl  %ax, %eax
        check   smsw_low_word, $CR0_BASE+CR0_ET
        movl    $KDATA, %ecx
        xorl    %edx, %edx
        attempt_user EFLAGS_FIXED, lar %ecx, %edx
        check_value user_lar_inner, record_edx, $0
        movl    $CONF0, %ecx
        attempt_user EFLAGS_FIXED, lar %ecx, %edx
        movl    record_edx, %edx
        andl    $0x9e00, %edx
        check_value user_lar_conforming, %edx, $0x9e00
        user_runs user_str, str %ax
        user_runs user_sgdt, sgdt scratch
        ret

# --- 3.5.1 Segment Descriptor Tables: the LDT -------------------------------------------------------------------------

local_table:
        movl    $ldt + 8, %edi
        movl    $scratch + 16, %eax
        movl    $0xff, %ecx
        movl    $PRESENT + DATA + BIG, %edx
        call    write_segment
        movl    $THE_LDT, %eax
        lldt    %ax
        xorl    %eax, %eax
        sldt    %ax
        check   sldt_reads_back, $THE_LDT
        movl    $0xb00bb00b, scratch + 16
        load_es LDT_DATA
        movl    %es:0, %eax
        check   ldt_segment_base, $0xb00bb00b
        movl    $LDT_BEYOND, %eax
        faults  gp_beyond_ldt, GP, LDT_BEYOND, movl %eax, %es
        movl    $4, %eax                        # index 0 of the LDT is not a null selector
        runs    ldt_index_zero, movl %eax, %es
        xorl    %eax, %eax
        lldt    %ax
        movl    $LDT_DATA, %eax
        faults  gp_without_ldt, GP, LDT_DATA, movl %eax, %es
        load_es KDATA
        ret

# --- Vol. 2, CALL, RET, JMP: far forms --------------------------------------------------------------------------------

far_transfers:
        movl    %esp, %ebx
        lcall   $KCODE, $far_target
        check_value far_call_pushes_cs_and_eip, far_frame_bytes, $8
        movl    %esp, %eax
        check   far_ret_restores_esp, %ebx
        pushl   $0x11
        pushl   $0x22
        lcall   *far_pointer
        movl    %esp, %eax
        check   far_ret_releases, %ebx
        pushl   $KCODE
        pushl   $1f
        lret
1:      movl    %esp, %eax
        check   lret_as_jump, %ebx
        pushl   $GDT_ENTRIES * 8
        pushl   $1f
        faults  gp_lret_beyond, GP, GDT_ENTRIES*8, lret
1:      addl    $8, %esp
        pushl   $KDATA
        pushl   $1f
        faults  gp_lret_to_data, GP, KDATA, lret
1:      addl    $8, %esp
        ret

far_target:
        movl    %ebx, %eax
        subl    %esp, %eax
        movl    %eax, far_frame_bytes
        lret
far_target_releasing:
        lret    $8

# --- 5.8.3 Call Gates -------------------------------------------------------------------------------------------------

call_gates:
        movl    %esp, %ebx
        lcall   $GATE_SAME, $0xdeadbeef         # the offset is ignored
        check_value gate_same_ring_frame, far_frame_bytes, $8
        movl    %esp, %eax
        check   gate_same_ring_return, %ebx
        attempt ljmp $GATE_JUMP, $0
        check_vector gate_jump_same_ring, RETURN
        arm     2f
        enter_user 1f
1:      pushl   $0x33
        pushl   $0x22
        pushl   $0x11
        lcall   $GATE_INNER, $0
after_gate:
        int     $RETURN
2:      check_vector gate_returns_to_ring3, RETURN
        check_value gate_frame_eip, gate_frame, $after_gate
        movzwl  gate_frame + 4, %eax
        check   gate_frame_cs, $UCODE
        check_value gate_parameter_1, gate_frame+8, $0x11
        check_value gate_parameter_2, gate_frame+12, $0x22
        check_value gate_parameter_3, gate_frame+16, $0x33
        check_value gate_frame_esp, gate_frame+20, $user_stack_top-12
        movzwl  gate_frame + 24, %eax
        check   gate_frame_ss, $UDATA
        check_value gate_new_esp, gate_esp, $exception_stack_top-28
        movzwl  gate_cs, %eax
        check   gate_cpl, $KCODE
        movzwl  gate_ss, %eax
        check   gate_new_ss, $KDATA
        check_value lret_releases_outer_stack, record_esp, $user_stack_top
        movzwl  record_es, %eax
        check   lret_nulls_inner_es, $0
        movzwl  record_ds, %eax
        check   lret_keeps_outer_ds, $UDATA
        load_es KDATA
        user_faults gp_gate_dpl, GP, GATE_SAME, lcall $GATE_SAME, $0
        user_faults np_gate, NP, GATE_NP&~3, lcall $GATE_NP, $0
        user_faults gp_gate_jump_inner, GP, KCODE, ljmp $GATE_INNER, $0
        user_faults gp_direct_call_inner, GP, KCODE, lcall $KCODE, $same_ring_target
        user_faults gp_gate_rpl, GP, GATE_SAME, lcall $GATE_SAME+3, $0
        ret

same_ring_target:
        movl    %ebx, %eax
        subl    %esp, %eax
        movl    %eax, far_frame_bytes
        lret

inner_target:
        movl    $KDATA, %eax
        movl    %eax, %es
        movl    %esp, gate_esp
        movw    %cs, gate_cs
        movw    %ss, gate_ss
        movl    %esp, %esi
        movl    $gate_frame, %edi
        movl    $7, %ecx
        rep movsl
        lret    $12

# --- 5.8.1.2 Accessing Conforming Code Segments -----------------------------------------------------------------------

conforming_code:
        arm     2f
        enter_user 1f
1:      ljmp    $CONF0, $conforming_target
2:      movzwl  record_cs, %eax
        check   conforming_keeps_cpl, $CONF0+3
        arm     2f
        enter_user 1f
1:      lcall   $GATE_CONF, $0
2:      movzwl  record_cs, %eax
        check   gate_to_conforming_keeps_cpl, $CONF0+3
        check_value gate_to_conforming_keeps_stack, record_esp, $user_stack_top-8
        faults  gp_conforming_outer, GP, CONF3, ljmp $CONF3, $conforming_target
        ret

conforming_target:
        int     $RETURN

# --- Vol. 2, IRET and RET to an outer ring ----------------------------------------------------------------------------

# Executes IRET in ring 0 with the given frame.
.macro iret_faults name, vector, error, ss, cs
        movl    %esp, %ebx
        pushl   $\ss
        pushl   $user_stack_top
        pushl   $EFLAGS_FIXED
        pushl   $\cs
        pushl   $conforming_target
        faults  \name, \vector, \error, iret
        movl    %ebx, %esp
.endm

outer_returns:
        iret_faults gp_iret_null_ss, GP, 0, 0, UCODE
        iret_faults gp_iret_inner_ss, GP, KDATA, KDATA, UCODE
        iret_faults gp_iret_ss_is_code, GP, UCODE&~3, UCODE, UCODE
        iret_faults gp_iret_null_cs, GP, 0, UDATA, 0
        iret_faults gp_iret_cs_is_data, GP, UDATA&~3, UDATA, UDATA
        iret_faults gp_iret_rpl_above_dpl, GP, KCODE, UDATA, KCODE+3
        iret_faults gp_iret_inner_rpl, GP, UCODE&~3, UDATA, UCODE&~3
        movl    %esp, %ebx
        arm     1f
        pushl   $UDATA                          # lret to ring 3
        pushl   $user_stack_top - 64
        pushl   $UCODE
        pushl   $conforming_target
        lret
1:      check_vector lret_to_ring3, RETURN
        check_value lret_to_ring3_esp, record_esp, $user_stack_top-64
        movzwl  record_cs, %eax
        check   lret_to_ring3_cs, $UCODE
        arm     1f
        pushl   $UDATA
        pushl   $user_stack_top - 64
        pushl   $EFLAGS_FIXED + EFLAGS_CF + EFLAGS_DF
        pushl   $UCODE
        pushl   $conforming_target
        iret
1:      movl    record_eflags, %eax
        andl    $EFLAGS_CF + EFLAGS_DF + EFLAGS_ZF, %eax
        check   iret_loads_flags, $EFLAGS_CF+EFLAGS_DF
        arm     3f
        movl    $2f, attempt_eip
        enter_user 1f
1:      pushl   $EFLAGS_FIXED
        pushl   $KCODE
        pushl   $conforming_target
2:      iret
        int     $RETURN
3:      check_outcome gp_iret_to_inner, $(GP << 24) + KCODE
        ret

# --- 2.3 System Flags and Fields in the EFLAGS Register; Vol. 1, 19.5 Protected-Mode I/O ------------------------------

.macro user_flags name, eflags, mask, want, insn:vararg
        attempt_user \eflags, \insn
        movl    record_eflags, %eax
        andl    $\mask, %eax
        check   \name, $\want
.endm

.macro pop_all_flags
        pushl   $EFLAGS_FIXED + EFLAGS_IF + EFLAGS_IOPL + EFLAGS_CF
        popf
.endm
.macro pop_no_flags
        pushl   $EFLAGS_FIXED
        popf
.endm

privileged_flags:
        user_flags popf_keeps_if_and_iopl, EFLAGS_FIXED, EFLAGS_IF+EFLAGS_IOPL+EFLAGS_CF, EFLAGS_CF, pop_all_flags
        user_flags popf_keeps_iopl_3, EFLAGS_FIXED+EFLAGS_IOPL, EFLAGS_IOPL, EFLAGS_IOPL, pop_no_flags
        user_flags popf_sets_if_with_iopl, EFLAGS_FIXED+EFLAGS_IOPL, EFLAGS_IF, EFLAGS_IF, pop_all_flags
        user_flags cli_with_iopl, EFLAGS_FIXED+EFLAGS_IOPL+EFLAGS_IF, EFLAGS_IF, 0, cli
        user_flags sti_with_iopl, EFLAGS_FIXED+EFLAGS_IOPL, EFLAGS_IF, EFLAGS_IF, sti
        attempt_user EFLAGS_FIXED+EFLAGS_IOPL, inb $0x80, %al
        check_vector in_with_iopl, RETURN
        user_faults gp_sti, GP, 0, sti
        user_faults gp_out, GP, 0, outb %al, $0x80
        user_faults gp_lmsw, GP, 0, lmsw %ax
        user_faults gp_ltr, GP, 0, ltr %ax
        user_faults gp_wrmsr, GP, 0, wrmsr
        user_runs user_rdtsc, rdtsc
        movl    $CR4_TSD, %eax
        movl    %eax, %cr4
        user_faults gp_rdtsc_tsd, GP, 0, rdtsc
        runs    rdtsc_tsd_ring0, rdtsc
        xorl    %eax, %eax
        movl    %eax, %cr4
        ret

# --- 3.4.5, B flag of stack segments ----------------------------------------------------------------------------------

stack16:
        movl    %esp, %ebx
        movl    $STACK16, %eax
        movl    $KDATA, %edx
        movl    $0x11223344, %ecx
        movl    %eax, %ss
        movl    $0x00010000, %esp               # SP is 0 and wraps to 0xfffc; the upper half of ESP stays
        pushl   %ecx
        movl    %esp, %esi
        popl    %edi
        movl    %esp, %ebp
        movl    %edx, %ss
        movl    %ebx, %esp
        check_value push_wraps_sp, %esi, $0x0001fffc
        check_value pop_wraps_sp, %ebp, $0x00010000
        check_value pop_through_sp, %edi, $0x11223344
        check_value push_address, scratch+0xfffc, $0x11223344
        movl    %eax, %ss
        movl    $0x00020008, %esp
        movl    $0x00030000, %ebp
        enter   $4, $0
        movl    %esp, %esi
        movl    %ebp, %edi
        leave
        movl    %esp, %ecx
        movl    %edx, %ss
        movl    %ebx, %esp
        check_value enter_uses_sp, %esi, $0x00020000
        check_value leave_uses_sp, %ecx, $0x00020008
        ret

# --- Vol. 1, 19.5.2 I/O Permission Bit Map ----------------------------------------------------------------------------

io_permission:
        movl    $exception_stack_top, tss_io + TSS_ESP0
        movl    $KDATA, tss_io + TSS_SS0
        movw    $IO_BITMAP, tss_io + TSS_IOMAP
        movl    $tss_io + IO_BITMAP, %edi
        movl    $TSS_IO_SIZE - IO_BITMAP, %ecx
        movb    $0xff, %al
        rep stosb
        movb    $0xfa, tss_io + IO_BITMAP + 0x80 / 8     # ports 0x80 and 0x82
        movb    $0x7f, tss_io + IO_BITMAP + 0x88 / 8     # port 0x8f
        movb    $0xfe, tss_io + IO_BITMAP + 0x90 / 8     # port 0x90
        movl    $TSS_IO, %eax
        ltr     %ax
        user_runs bitmap_permits, inb $0x80, %al
        user_faults gp_bitmap_denies, GP, 0, inb $0x81, %al
        user_faults gp_bitmap_word_half_denied, GP, 0, inw $0x80, %ax
        user_runs bitmap_second_port, outb %al, $0x82
        movl    $0x8f, %edx
        user_runs bitmap_across_bytes, inw %dx, %ax
        user_faults gp_bitmap_dword, GP, 0, inl %dx, %eax
        movl    $0x3f8, %edx                    # beyond the limit of the TSS
        user_faults gp_bitmap_beyond_limit, GP, 0, inb %dx, %al
        jmp     load_tss

# --- 7.3 Task Switching -----------------------------------------------------------------------------------------------

.macro prepare_task entry
        call    reset_task
        movl    $\entry, tss2 + TSS_EIP
.endm

reset_task:
        pusha
        movl    $tss2, %edi
        xorl    %eax, %eax
        movl    $TSS_SIZE / 4, %ecx
        rep stosl
        movl    %cr3, %eax
        movl    %eax, tss2 + TSS_CR3
        movl    $EFLAGS_FIXED + EFLAGS_CF, tss2 + TSS_EFLAGS
        movl    $0xe0e0e0e0, tss2 + TSS_EAX
        movl    $task_stack_top, tss2 + TSS_ESP
        movl    $KDATA, tss2 + TSS_ES
        movl    $KDATA, tss2 + TSS_DS
        movl    $KDATA, tss2 + TSS_SS
        movl    $KCODE, tss2 + TSS_CS
        movl    $exception_stack_top, tss2 + TSS_ESP0
        movl    $KDATA, tss2 + TSS_SS0
        movl    $0, task_ran
        popa
        ret

# Records the state that a task finds when it begins.
.macro observe_task
        movl    %eax, task_eax
        pushf
        popl    task_eflags
        str     task_tr
        movl    %cr0, %eax
        movl    %eax, task_cr0
        movl    %esp, task_esp
        movb    gdt + TSS + 5, %al
        movb    %al, task_old_access
        movb    gdt + TSS2 + 5, %al
        movb    %al, task_new_access
        clts
        incl    task_ran
.endm

jumped_task:
        observe_task
        ljmp    $TSS, $0
        hlt

called_task:
        observe_task
        iret
        hlt

        ACCESS_BUSY     = 0x8b
        ACCESS_AVAILABLE = 0x89

tasks:
        prepare_task jumped_task
        movl    $0x12345678, %edi
        ljmp    $TSS2, $0xdeadbeef
after_jump:
        check_value task_jump_ran, task_ran, $1
        check_value task_keeps_registers, %edi, $0x12345678
        check_value task_loads_registers, task_eax, $0xe0e0e0e0
        check_value task_loads_esp, task_esp, $task_stack_top
        movl    task_eflags, %eax
        andl    $EFLAGS_NT + EFLAGS_CF, %eax
        check   task_jump_eflags, $EFLAGS_CF
        movzwl  task_tr, %eax
        check   task_register, $TSS2
        movl    task_cr0, %eax
        andl    $CR0_TS, %eax
        check   task_switch_sets_ts, $CR0_TS
        check_value task_saves_eip, tss+TSS_EIP, $after_jump
        check_value task_saves_edi, tss+68, $0x12345678
        movzbl  task_old_access, %eax
        check   task_jump_frees_old, $ACCESS_AVAILABLE
        movzbl  task_new_access, %eax
        check   task_jump_takes_new, $ACCESS_BUSY
        movzbl  gdt + TSS2 + 5, %eax
        check   task_jump_back_frees, $ACCESS_AVAILABLE
        movzbl  gdt + TSS + 5, %eax
        check   task_jump_back_takes, $ACCESS_BUSY
        clts

        prepare_task called_task
        lcall   $TSS2, $0
        check_value task_call_ran, task_ran, $1
        movl    task_eflags, %eax
        andl    $EFLAGS_NT, %eax
        check   task_call_sets_nt, $EFLAGS_NT
        movzwl  tss2 + TSS_LINK, %eax
        check   task_call_link, $TSS
        movzbl  task_old_access, %eax
        check   task_call_keeps_old_busy, $ACCESS_BUSY
        movzbl  gdt + TSS2 + 5, %eax
        check   task_iret_frees, $ACCESS_AVAILABLE
        movl    tss2 + TSS_EFLAGS, %eax
        andl    $EFLAGS_NT, %eax
        check   task_iret_clears_nt, $0
        pushf
        popl    %eax
        andl    $EFLAGS_NT, %eax
        check   nt_clear_after_return, $0
        clts

        prepare_task called_task
        lcall   $TASK_GATE, $0
        check_value task_gate_call, task_ran, $1
        clts
        gate    idt+8*TASK_VECTOR, TSS2, 0, PRESENT+DPL3+SYS_TASK_GATE
        prepare_task called_task
        int     $TASK_VECTOR
        check_value task_gate_int, task_ran, $1
        clts
        prepare_task called_task
        arm     2f
        enter_user 1f
1:      int     $TASK_VECTOR
        int     $RETURN
2:      check_vector task_gate_from_ring3, RETURN
        check_value task_gate_from_ring3_ran, task_ran, $1
        movzwl  record_cs, %eax
        check   task_return_to_ring3, $UCODE
        clts
        restore_vector TASK_VECTOR

        gate    idt+8*GP, TSS2, 0, PRESENT+SYS_TASK_GATE
        prepare_task faulted_task
        arm     1f
        movl    $GDT_ENTRIES * 8, %eax
        movl    %eax, %es
        nop
1:      restore_vector GP
        check_value task_gate_error_code, task_error, $GDT_ENTRIES*8
        check_value task_gate_error_esp, task_esp, $task_stack_top-4
        clts
        load_es KDATA

        faults  gp_jump_to_own_task, GP, TSS, ljmp $TSS, $0
        prepare_task called_task
        movl    $0xffff, tss2 + TSS_DS          # a bad selector is reported in the new task
        movl    $called_task, tss2 + TSS_EIP
        arm     1f
        lcall   $TSS2, $0
1:      check_vector ts_bad_ds, TS
        check_value ts_bad_ds_error, record_error, $0xfffc
        str     %ax
        movzwl  %ax, %eax
        check   ts_bad_ds_in_new_task, $TSS2
        check_value ts_bad_ds_eip, record_eip, $called_task
        clts
        segment TSS2, $tss2, $TSS_SIZE-1, PRESENT+SYS_TSS
        jmp     load_tss

faulted_task:                                   # begins with the error code on its stack
        popl    task_error
        pushl   task_error
        movl    %esp, task_esp
        addl    $4, %esp
        movl    resume_eip, %eax
        movl    %eax, tss + TSS_EIP             # skip the instruction that faulted
        iret

# --- 5.8.7 Performing Fast Calls to System Procedures with the SYSENTER and SYSEXIT Instructions ----------------------

.macro write_msr number, value
        movl    $\number, %ecx
        movl    $\value, %eax
        xorl    %edx, %edx
        wrmsr
.endm

fast_calls:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_SEP, %edx
        jnz     1f
        note    "skip: CPUID does not announce SYSENTER"
        ret
1:      write_msr MSR_SYSENTER_CS, 0
        user_faults gp_sysenter_without_cs, GP, 0, sysenter
        faults  gp_sysexit_without_cs, GP, 0, sysexit
        write_msr MSR_SYSENTER_CS, KCODE
        write_msr MSR_SYSENTER_ESP, exception_stack_top-64
        write_msr MSR_SYSENTER_EIP, sysenter_target
        movl    $MSR_SYSENTER_EIP, %ecx
        rdmsr
        check   sysenter_msr_reads_back, $sysenter_target
        user_faults gp_sysexit_ring3, GP, 0, sysexit
        arm     2f
        enter_user 1f, EFLAGS_FIXED+EFLAGS_IOPL+EFLAGS_IF
1:      movl    $after_sysenter, %edx
        movl    $user_stack_top - 32, %ecx
        sysenter
after_sysenter:
        int     $RETURN
2:      check_vector sysexit_returns, RETURN
        movzwl  gate_cs, %eax
        check   sysenter_cs, $KCODE
        movzwl  gate_ss, %eax
        check   sysenter_ss, $KDATA
        check_value sysenter_esp, gate_esp, $exception_stack_top-64
        movl    task_eflags, %eax
        andl    $EFLAGS_IF, %eax
        check   sysenter_clears_if, $0
        check_value sysexit_esp, record_esp, $user_stack_top-32
        movzwl  record_cs, %eax
        check   sysexit_cs, $UCODE
        movzwl  record_ss, %eax
        check   sysexit_ss, $UDATA
        ret

sysenter_target:
        movl    %esp, gate_esp
        movw    %cs, gate_cs
        movw    %ss, gate_ss
        pushf
        popl    task_eflags
        sysexit

        .data
        .balign 8
ldt:    .quad   0x00409300000000ff              # index 0: data at 0
        .quad   0                               # index 1: data over scratch + 16, filled in by local_table
far_pointer:
        .long   far_target_releasing
        .word   KCODE

        .bss
        .balign 8
tss2:           .skip TSS_SIZE
tss_io:         .skip TSS_IO_SIZE
        .balign 4
far_frame_bytes: .skip 4
gate_frame:     .skip 28
gate_esp:       .skip 4
gate_cs:        .skip 4
gate_ss:        .skip 4
task_ran:       .skip 4
task_eax:       .skip 4
task_eflags:    .skip 4
task_tr:        .skip 4
task_cr0:       .skip 4
task_esp:       .skip 4
task_error:     .skip 4
task_old_access: .skip 4
task_new_access: .skip 4
        .balign 4096
                .skip 4096
task_stack_top:
                .skip 4096                      # for emulators without limit checks
scratch:        .skip 0x20000
