# Exceptions: every vector with its error code and saved EIP; RF, priorities, double faults, the shadow of MOV SS.
# SDM Vol. 3A, chapter 6 Interrupt and Exception Handling; Vol. 3B, chapter 17 Debug.

        .include "harness.inc"

        DATA_NP         = FREE + 0x00           # data, not present
        CODE_NP         = FREE + 0x08
        TSS_NP          = FREE + 0x10
        LDT_NP          = FREE + 0x18
        SMALL           = FREE + 0x20           # data, limit 0x0fff
        CODE1           = FREE + 0x28 + 1       # ring 1
        STACK1          = FREE + 0x30 + 1
        STACK1_NP       = FREE + 0x38 + 1
        GATE1           = FREE + 0x40 + 3       # call gate into ring 1
        TSS_BAD         = FREE + 0x48           # limit below 0x67
        BEYOND          = GDT_ENTRIES * 8

        DR6_STATUS      = 0xe00f                # B0..B3, BD, BS, BT
        DR6_BD          = 1 << 13
        DR6_BS          = 1 << 14
        DR7_L0          = 1 << 0
        DR7_L1          = 1 << 2
        DR7_GD          = 1 << 13
        DR7_RW1_WRITE   = 1 << 20
        DR7_RW1_ACCESS  = 3 << 20
        DR7_LEN1_4      = 3 << 22

        VECTOR_X        = 0x50                  # its gate is made invalid in several ways

main:
        segment DATA_NP, $0, $0xfffff, DATA+BIG+PAGES
        segment CODE_NP, $0, $0xfffff, CODE+BIG+PAGES
        segment TSS_NP, $tss, $TSS_SIZE-1, SYS_TSS
        segment LDT_NP, $tss, $7, SYS_LDT
        segment SMALL, $scratch, $0xfff, PRESENT+DATA+BIG
        segment CODE1, $0, $0xfffff, PRESENT+DPL1+CODE+BIG+PAGES
        segment STACK1, $0, $0xfffff, PRESENT+DPL1+DATA+BIG+PAGES
        segment STACK1_NP, $0, $0xfffff, DPL1+DATA+BIG+PAGES
        gate    (gdt+(GATE1&~7)), CODE1, ring1_entry, PRESENT+DPL3+SYS_CALL_GATE
        segment TSS_BAD, $tss, $0x66, PRESENT+SYS_TSS
        call    divide
        call    software
        call    invalid_opcode
        call    no_device
        call    single_step
        call    breakpoints
        call    resume_flag
        call    selectors
        call    spoiled_gates
        call    bad_tss
        call    stack_faults
        call    float_errors
        call    alignment
        call    double_faults
        call    priorities
        ret

# --- #DE: SDM Vol. 3A, 6.15, Interrupt 0 - Divide Error Exception -----------------------------------------------------

divide:
        movl    $7, %eax
        xorl    %edx, %edx
        xorl    %ecx, %ecx
        faults  de_div_by_zero, DE, 0, divl %ecx
        check_value de_keeps_eax, record_eax, $7
        faults  de_div_byte_by_zero, DE, 0, divb %cl
        movl    $1, %edx
        movl    $1, %ecx
        faults  de_quotient_too_large, DE, 0, divl %ecx
        movl    $0x80000000, %eax
        movl    $-1, %edx
        movl    $-1, %ecx
        faults  de_idiv_overflow, DE, 0, idivl %ecx
        faults  de_aam_zero, DE, 0, aam $0
        movl    $0x0101, %eax
        movb    $1, %cl
        faults  de_div_byte_overflow, DE, 0, divb %cl
        movl    $-128, %eax
        movb    $1, %cl
        runs    idiv_byte_min, idivb %cl
        ret

# --- #BP, #OF, #BR, INT1, INT n: 6.4.2 Software-Generated Exceptions --------------------------------------------------

software:
        traps   bp_int3, BP, int3
        traps   bp_int_n, BP, .byte 0xcd, BP
        traps   db_int1, DB, .byte 0xf1
        traps   int_n, 0x99, int $0x99
        movb    $0x7f, %al
        addb    $1, %al
        traps   of_into, OF, into
        xorl    %eax, %eax
        runs    into_without_overflow, into
        movl    $5, %eax
        runs    bound_at_upper, bound %eax, bounds
        movl    $6, %eax
        faults  br_above, BR, 0, bound %eax, bounds
        movl    $-3, %eax
        faults  br_below, BR, 0, bound %eax, bounds
        movl    $-2, %eax
        runs    bound_at_lower, bound %eax, bounds
        user_faults user_int_dpl0, GP, 0x99*8+ERR_IDT, int $0x99
        user_faults user_int3_dpl0, GP, BP*8+ERR_IDT, int3
        ret

# --- #UD: 6.15, Interrupt 6 - Invalid Opcode Exception ----------------------------------------------------------------

# A nop of BYTES bytes. The longest instruction has 15.
.macro long_nop bytes
        .fill   \bytes - 1, 1, 0x66
        nop
.endm

invalid_opcode:
        faults  ud_ud2, UD, 0, ud2
        faults  ud_lock_nop, UD, 0, .byte 0xf0, 0x90
        faults  ud_lock_register, UD, 0, .byte 0xf0, 0x01, 0xc0
        movl    $scratch, %eax
        faults  ud_lock_mov, UD, 0, .byte 0xf0, 0x89, 0x00
        faults  ud_mov_to_cs, UD, 0, .byte 0x8e, 0xc8
        faults  ud_segment_register_6, UD, 0, .byte 0x8e, 0xf0
        faults  ud_lea_register, UD, 0, .byte 0x8d, 0xc0
        faults  ud_group_fe_7, UD, 0, .byte 0xfe, 0xf8
        faults  ud_group_ff_7, UD, 0, .byte 0xff, 0xf8
        faults  ud_mov_from_cr1, UD, 0, .byte 0x0f, 0x20, 0xc8
        faults  ud_far_call_register, UD, 0, .byte 0xff, 0xd8
        faults  ud_sse_without_osfxsr, UD, 0, xorps %xmm0, %xmm0
        movl    $CR4_DE, %eax
        movl    %eax, %cr4
        faults  ud_dr4_with_de, UD, 0, movl %db4, %eax
        xorl    %eax, %eax
        movl    %eax, %cr4
        runs    dr4_is_dr6_without_de, movl %db4, %eax
        runs    fifteen_bytes, long_nop 15
        faults  gp_sixteen_bytes, GP, 0, long_nop 16
        ret

# --- #NM: 6.15, Interrupt 7 - Device Not Available Exception; 2.5 Control Registers (EM, MP, TS) ----------------------

no_device:
        movl    $CR0_PE + CR0_NE + CR0_TS, %eax
        movl    %eax, %cr0
        faults  nm_ts_fnop, NM, 0, fnop
        faults  nm_ts_fninit, NM, 0, fninit
        faults  nm_ts_mmx, NM, 0, paddb %mm0, %mm0
        runs    wait_ts_without_mp, fwait
        movl    $CR4_OSFXSR, %eax
        movl    %eax, %cr4
        faults  nm_ts_sse, NM, 0, xorps %xmm0, %xmm0
        faults  nm_ts_fxsave, NM, 0, fxsave scratch
        movl    $CR0_PE + CR0_NE + CR0_TS + CR0_MP, %eax
        movl    %eax, %cr0
        faults  nm_ts_mp_wait, NM, 0, fwait
        movl    $CR0_PE + CR0_NE + CR0_EM, %eax
        movl    %eax, %cr0
        faults  nm_em_fnop, NM, 0, fnop
        runs    wait_em, fwait
        faults  ud_em_mmx, UD, 0, paddb %mm0, %mm0
        faults  ud_em_sse, UD, 0, xorps %xmm0, %xmm0
        movl    $CR0_PE + CR0_NE + CR0_EM + CR0_TS, %eax
        movl    %eax, %cr0
        faults  ud_em_before_nm_ts, UD, 0, xorps %xmm0, %xmm0
        clts
        movl    %cr0, %eax
        check   clts_clears_ts, $CR0_PE + CR0_NE + CR0_EM + 0x10
        movl    $CR0_PE + CR0_NE, %eax
        movl    %eax, %cr0
        runs    fnop_allowed, fnop
        ret

# --- #DB, single step: Vol. 3B, 17.3.1.4 Single-Step Exception Condition ----------------------------------------------

.macro set_tf
        pushf
        orl     $EFLAGS_TF, (%esp)
        popf
.endm

.macro check_dr6 name, want
        pushl   %eax
        movl    record_dr6, %eax
        andl    $DR6_STATUS, %eax
        check   \name, $\want
        xorl    %eax, %eax
        movl    %eax, %dr6
        popl    %eax
.endm

single_step:
        xorl    %eax, %eax
        movl    %eax, %dr6
        arm     1f
        set_tf
        nop                                     # popf itself does not trap: TF was clear when it began
step_end:
        nop
1:      check_vector db_step, DB
        check_value db_step_eip, record_eip, $step_end
        check_dr6 db_step_dr6, DR6_BS
        movl    record_eflags, %eax
        andl    $EFLAGS_TF + EFLAGS_RF, %eax
        check   db_step_pushes_tf, $EFLAGS_TF

        arm     1f                              # the gate clears TF: no trap at the handler's first instruction
        set_tf
        int     $0x99
1:      check_vector int_n_swallows_step, 0x99

        arm     1f                              # 6.8.3 Masking Exceptions and Interrupts When Switching Stacks
        movl    %ss, %eax
        set_tf
        movl    %eax, %ss
        nop
after_shadow:
        nop
1:      check_value mov_ss_masks_step, record_eip, $after_shadow
        check_dr6 mov_ss_masks_step_dr6, DR6_BS

        movl    $scratch, %edi
        movl    $3, %ecx
        movb    $0x5a, %al
        arm     1f
        set_tf
step_string:
        rep stosb                               # traps after each iteration, EIP still at the instruction
1:      check_value step_string_eip, record_eip, $step_string
        check_value step_string_ecx, record_ecx, $2
        movl    record_eflags, %eax
        andl    $EFLAGS_RF, %eax
        check   step_string_rf, $EFLAGS_RF
        xorl    %eax, %eax
        movl    %eax, %dr6

        arm     1f                              # a fault replaces the trap
        set_tf
        ud2
1:      check_vector fault_before_step, UD
        movl    record_eflags, %eax
        andl    $EFLAGS_TF, %eax
        check   fault_pushes_tf, $EFLAGS_TF
        ret

# --- #DB, debug registers: Vol. 3B, 17.2 Debug Registers --------------------------------------------------------------

.macro set_dr7 value
        pushl   %eax
        movl    $\value, %eax
        movl    %eax, %dr7
        popl    %eax
.endm

breakpoints:
        movl    $1f, %eax
        movl    %eax, %dr0
        set_dr7 DR7_L0
        arm     2f
        nop
1:      nop
2:      set_dr7 0
        check_vector db_execute, DB
        check_value db_execute_eip, record_eip, $1b
        check_dr6 db_execute_dr6, 1
        movl    record_eflags, %eax
        andl    $EFLAGS_RF, %eax
        check   db_execute_pushes_rf_clear, $0

        movl    $1f, %eax                       # a breakpoint not at the instruction's first byte does not match
        incl    %eax
        movl    %eax, %dr0
        set_dr7 DR7_L0
        attempt
1:      movl    $0, %eax
        set_dr7 0
        check_vector execute_inside_instruction, NONE

        movl    $scratch + 4, %eax
        movl    %eax, %dr1
        set_dr7 DR7_L1+DR7_RW1_WRITE+DR7_LEN1_4
        traps   db_write, DB, movl %eax, scratch+4
        check_dr6 db_write_dr6, 2
        traps   db_write_last_byte, DB, movb %al, scratch+7
        traps   db_write_overlap, DB, movl %eax, scratch+1
        traps   db_read_modify_write, DB, incl scratch+4
        movl    $scratch + 4, %edi
        traps   db_write_by_string, DB, stosl
        runs    write_before, movl %eax, scratch
        runs    write_after, movl %eax, scratch + 8
        runs    read_with_write_condition, movl scratch + 4, %eax
        set_dr7 DR7_L1+DR7_RW1_ACCESS+DR7_LEN1_4
        traps   db_access_read, DB, movl scratch+4, %eax
        set_dr7 DR7_RW1_ACCESS+DR7_LEN1_4
        runs    breakpoint_disabled, movl %eax, scratch + 4
        xorl    %eax, %eax
        movl    %eax, %dr6

        set_dr7 DR7_GD                          # 17.2.4, general detect; the processor clears GD on entry
        faults  db_general_detect, DB, 0, movl %dr7, %eax
        check_dr6 db_general_detect_dr6, DR6_BD
        movl    %dr7, %eax
        andl    $DR7_GD, %eax
        check   gd_cleared_on_entry, $0
        set_dr7 0
        movl    %dr7, %eax
        check   dr7_bit_10_is_set, $0x400
        user_faults user_mov_dr, GP, 0, movl %dr7, %eax
        ret

# --- RF: Vol. 3B, 17.3.1.1 Instruction-Breakpoint Exception Condition -------------------------------------------------

resume_flag:
        handle  DB, count_and_resume
        movl    $1f, %eax
        movl    %eax, %dr0
        set_dr7 DR7_L0
        movl    $0, count
        movl    $1, resume_on
1:      nop
        check_value rf_lets_it_run, count, $1
        movl    $0, count
        movl    $3, resume_on                   # without RF the breakpoint fires again
        movl    $1f, %eax
        movl    %eax, %dr0
1:      nop
        check_value no_rf_fires_again, count, $3

        movl    $2f, %eax                       # RF lasts for one instruction
        movl    %eax, %dr0
        movl    $0, count
        movl    $1, resume_on
        movl    $2, %ecx
2:      nop
        loop    2b
        check_value rf_lasts_one_instruction, count, $2
        set_dr7 0
        xorl    %eax, %eax
        movl    %eax, %dr6
        restore_vector DB

        attempt ud2
        call    rf_of_record
        check   fault_pushes_rf, $EFLAGS_RF
        attempt int $0x99
        call    rf_of_record
        check   software_interrupt_pushes_rf_clear, $0
        ret

rf_of_record:
        movl    record_eflags, %eax
        andl    $EFLAGS_RF, %eax
        ret

count_and_resume:
        pushl   %eax
        incl    count
        movl    count, %eax
        cmpl    resume_on, %eax
        jb      1f
        orl     $EFLAGS_RF, 12(%esp)
1:      popl    %eax
        iret

# --- Selectors: 6.13 Error Code; Interrupts 11, 12 and 13 -------------------------------------------------------------

selectors:
        movl    $BEYOND, %eax
        faults  gp_beyond_gdt, GP, BEYOND, movl %eax, %ds
        movl    $BEYOND + 3, %eax
        faults  gp_error_without_rpl, GP, BEYOND, movl %eax, %es
        xorl    %eax, %eax                      # after RESET the LDT has base 0, limit 0xffff (9.1.1, Table 9-1)
        runs    lldt_null, lldt %ax
        movl    $4, %eax
        faults  gp_no_ldt, GP, 4, movl %eax, %fs
        movl    $TSS, %eax
        faults  gp_load_system_segment, GP, TSS, movl %eax, %ds
        movl    $DATA_NP, %eax
        faults  np_data, NP, DATA_NP, movl %eax, %ds
        faults  ss_not_present, SS_, DATA_NP, movl %eax, %ss
        xorl    %eax, %eax
        runs    null_to_ds, movl %eax, %es
        faults  gp_use_null_es, GP, 0, movl %es:scratch, %ebx
        faults  gp_null_to_ss, GP, 0, movl %eax, %ss
        movl    $KCODE, %eax
        faults  gp_code_to_ss, GP, KCODE, movl %eax, %ss
        movl    $UDATA, %eax
        faults  gp_ss_wrong_rpl, GP, UDATA&~3, movl %eax, %ss
        faults  gp_jump_to_data, GP, KDATA, ljmp $KDATA, $0
        faults  gp_jump_to_null, GP, 0, ljmp $0, $0
        faults  gp_jump_to_null_rpl3, GP, 0, ljmp $3, $0
        faults  gp_jump_to_outer, GP, UCODE&~3, ljmp $UCODE, $0
        faults  np_jump, NP, CODE_NP, ljmp $CODE_NP, $0
        movl    $TSS_NP, %eax
        faults  np_ltr, NP, TSS_NP, ltr %ax
        movl    $LDT_NP, %eax
        faults  np_lldt, NP, LDT_NP, lldt %ax
        movl    $TSS, %eax
        faults  gp_ltr_busy, GP, TSS, ltr %ax
        faults  gp_lldt_not_ldt, GP, TSS, lldt %ax
        xorl    %eax, %eax
        faults  gp_ltr_null, GP, 0, ltr %ax
        call    load_tss                        # some emulators accept it
        movl    $KDATA, %eax
        movl    %eax, %es
        movl    $KDATA, %eax
        user_faults user_load_ring0_data, GP, KDATA, movl %eax, %ds
        user_faults user_hlt, GP, 0, hlt
        user_faults user_cli, GP, 0, cli
        user_faults user_in, GP, 0, inb $0x80, %al
        user_faults user_mov_cr, GP, 0, movl %cr0, %eax
        user_faults user_lgdt, GP, 0, lgdt gdt_pointer
        user_faults user_clts, GP, 0, clts
        user_faults user_invlpg, GP, 0, invlpg scratch
        ret

# --- Spoiled gates: 6.12 Exception and Interrupt Handling, 6.13 Error Code --------------------------------------------

spoiled_gates:
        handle  VECTOR_X, ring1_entry, SYS_INT_GATE
        faults  np_gate_int_n, NP, VECTOR_X*8+ERR_IDT, int $VECTOR_X
        handle  VECTOR_X, ring1_entry, PRESENT+DATA
        faults  gp_gate_type, GP, VECTOR_X*8+ERR_IDT, int $VECTOR_X
        gate    (idt+8*VECTOR_X), 0, ring1_entry, PRESENT+SYS_INT_GATE
        faults  gp_gate_null_selector, GP, 0, int $VECTOR_X
        gate    (idt+8*VECTOR_X), KDATA, ring1_entry, PRESENT+SYS_INT_GATE
        faults  gp_gate_to_data, GP, KDATA, int $VECTOR_X
        gate    (idt+8*VECTOR_X), BEYOND, ring1_entry, PRESENT+SYS_INT_GATE
        faults  gp_gate_selector_beyond, GP, BEYOND, int $VECTOR_X
        gate    (idt+8*VECTOR_X), CODE_NP, ring1_entry, PRESENT+SYS_INT_GATE
        faults  np_gate_to_absent_code, NP, CODE_NP, int $VECTOR_X
        gate    (idt+8*VECTOR_X), CODE1, ring1_entry, PRESENT+SYS_INT_GATE
        faults  gp_gate_to_outer_ring, GP, CODE1&~3, int $VECTOR_X
        restore_vector VECTOR_X

        handle  UD, ring1_entry, SYS_INT_GATE   # an exception is an earlier event: EXT is set
        faults  np_gate_exception, NP, UD*8+ERR_IDT+ERR_EXT, ud2
        gate    (idt+8*UD), CODE_NP, ring1_entry, PRESENT+SYS_INT_GATE
        faults  np_exception_to_absent_code, NP, CODE_NP+ERR_EXT, ud2
        gate    (idt+8*UD), 0, ring1_entry, PRESENT+SYS_INT_GATE
        faults  gp_exception_null_selector, GP, ERR_EXT, ud2
        restore_vector UD
        handle  BP, ring1_entry, SYS_INT_GATE   # int3 is software: EXT is clear
        faults  np_gate_int3, NP, BP*8+ERR_IDT, int3
        restore_vector BP

        lidt    short_idt_pointer
        faults  gp_beyond_idt, GP, VECTOR_X*8+ERR_IDT, int $VECTOR_X
        lidt    idt_pointer
        ret

# --- #TS: 6.15, Interrupt 10 - Invalid TSS Exception ------------------------------------------------------------------

.macro set_stack1 selector
        movl    $ring1_stack_top, tss + TSS_ESP1
        movl    $\selector, tss + TSS_SS1
.endm

bad_tss:
        set_stack1 STACK1
        user_runs call_gate_to_ring1, lcall $GATE1, $0
        set_stack1 0
        user_faults ts_null_stack, TS, 0, lcall $GATE1, $0
        set_stack1 BEYOND+1
        user_faults ts_stack_beyond_gdt, TS, BEYOND, lcall $GATE1, $0
        set_stack1 (KDATA+1)
        user_faults ts_stack_wrong_dpl, TS, KDATA, lcall $GATE1, $0
        set_stack1 (STACK1&~3)
        user_faults ts_stack_wrong_rpl, TS, STACK1&~3, lcall $GATE1, $0
        set_stack1 CODE1
        user_faults ts_stack_is_code, TS, CODE1&~3, lcall $GATE1, $0
        set_stack1 STACK1_NP
        user_faults ss_stack_not_present, SS_, STACK1_NP&~3, lcall $GATE1, $0
        faults  ts_jump_short_tss, TS, TSS_BAD, ljmp $TSS_BAD, $0
        movl    $0, tss + TSS_LINK              # iret with NT returns to the task of the link field
        arm     1f
        movl    $2f, attempt_eip
        pushl   $EFLAGS_NT + EFLAGS_FIXED
        popf
2:      iret
1:      check_outcome ts_iret_null_link, $TS << 24
        movl    $KDATA, tss + TSS_LINK
        arm     1f
        movl    $2f, attempt_eip
        pushl   $EFLAGS_NT + EFLAGS_FIXED
        popf
2:      iret
1:      check_outcome ts_iret_link_is_data, $(TS << 24) + KDATA
        movl    $0, tss + TSS_LINK
        ret

ring1_entry:
        int     $RETURN

# --- #SS and limits: 5.3 Limit Checking -------------------------------------------------------------------------------

stack_faults:
        movl    $SMALL, %eax
        movl    %eax, %es
        runs    limit_last_dword, movl %es:0xffc, %ebx
        faults  gp_limit_dword_across, GP, 0, movl %es:0xffd, %ebx
        faults  gp_limit_word_across, GP, 0, movw %es:0xfff, %bx
        runs    limit_last_byte, movb %es:0xfff, %bl
        faults  gp_limit_byte_after, GP, 0, movb %es:0x1000, %bl
        faults  gp_limit_write, GP, 0, movl %ebx, %es:0x1000
        faults  gp_limit_top, GP, 0, movl %ebx, %es:0xfffffffe
        movl    $KDATA, %ebx
        movl    %ebx, %es

        arm     1f                              # SMALL as stack, with ESP inside so that delivery can push
        movl    $2f, attempt_eip
        movl    $0xffe, %ebp
        movl    %eax, %ss
        movl    $0x800, %esp
2:      movl    (%ebp), %ebx
        int     $RETURN
1:      check_outcome ss_limit_by_ebp, $SS_ << 24
        arm     1f
        movl    $2f, attempt_eip
        movl    $0x2000, %ebx
        movl    %eax, %ss
        movl    $0x800, %esp
2:      pushl   %ss:(%ebx)
        int     $RETURN
1:      check_outcome ss_override, $SS_ << 24
        check_value ss_fault_keeps_esp, record_esp, $0x800
        ret

# --- #MF, #XM: Interrupts 16 and 19 -----------------------------------------------------------------------------------

float_errors:
        fninit
        movw    $0x037b, scratch                # zero-divide unmasked
        fldcw   scratch
        fldz
        fld1
        runs    mf_is_deferred, fdiv %st(1), %st
        faults  mf_at_next_waiting, MF, 0, fld1
        faults  mf_at_wait, MF, 0, fwait
        runs    non_waiting_runs, fnstsw %ax
        andl    $0x84, %eax
        check   status_shows_es_ze, $0x84
        runs    fnclex_clears, fnclex
        runs    wait_after_fnclex, fwait
        fninit

        movl    $CR4_OSFXSR, %eax
        movl    %eax, %cr4
        movl    $0x1d80, scratch                # zero-divide unmasked
        ldmxcsr scratch
        movl    $0x3f800000, %eax
        movd    %eax, %xmm0
        xorps   %xmm1, %xmm1
        faults  ud_simd_error_without_osxmmexcpt, UD, 0, divss %xmm1, %xmm0
        movl    $CR4_OSFXSR + CR4_OSXMMEXCPT, %eax
        movl    %eax, %cr4
        movl    $0x1d80, scratch
        ldmxcsr scratch
        faults  xm_divide_by_zero, XM, 0, divss %xmm1, %xmm0
        movd    %xmm0, %eax
        check   xm_keeps_destination, $0x3f800000
        stmxcsr scratch
        movl    scratch, %eax
        check   xm_sets_flag, $0x1d84
        movl    $0x10000, scratch
        faults  gp_mxcsr_reserved, GP, 0, ldmxcsr scratch
        faults  gp_sse_misaligned, GP, 0, movaps scratch+4, %xmm0
        movl    $0x1f80, scratch
        ldmxcsr scratch
        xorl    %eax, %eax
        movl    %eax, %cr4
        ret

# --- #AC: Interrupt 17 - Alignment Check Exception --------------------------------------------------------------------

alignment:
        movl    $CR0_PE + CR0_NE + CR0_AM, %eax
        movl    %eax, %cr0
        attempt_user EFLAGS_FIXED+EFLAGS_AC, movl scratch+1, %eax
        check_outcome ac_dword, $AC << 24
        attempt_user EFLAGS_FIXED+EFLAGS_AC, movw %ax, scratch+3
        check_outcome ac_word, $AC << 24
        attempt_user EFLAGS_FIXED+EFLAGS_AC, movl scratch+4, %eax
        check_vector ac_aligned, RETURN
        attempt_user EFLAGS_FIXED+EFLAGS_AC, fldl scratch+4
        check_outcome ac_qword, $AC << 24
        attempt_user EFLAGS_FIXED, movl scratch+1, %eax
        check_vector no_ac_without_flag, RETURN
        pushl   $EFLAGS_FIXED + EFLAGS_AC
        popf
        runs    no_ac_in_ring0, movl scratch + 1, %eax
        pushl   $EFLAGS_FIXED
        popf
        movl    $CR0_PE + CR0_NE, %eax
        movl    %eax, %cr0
        attempt_user EFLAGS_FIXED+EFLAGS_AC, movl scratch+1, %eax
        check_vector no_ac_without_am, RETURN
        fninit
        ret

# --- Double faults: Interrupt 8, Table 6-5 Conditions for Generating a Double Fault -----------------------------------

.macro spoil vector
        handle  \vector, ring1_entry, SYS_INT_GATE
.endm

.macro double_faults_on name, insn:vararg
        attempt \insn
        check_vector \name, DF
        check_value \name\()_error, record_error, $0
.endm

double_faults:
        spoil   DE
        xorl    %ecx, %ecx
        double_faults_on df_divide_then_np, divl %ecx
        restore_vector DE
        spoil   GP
        movl $BEYOND, %eax
        double_faults_on df_gp_then_np, movl %eax, %ds
        restore_vector GP
        spoil   NP
        movl $DATA_NP, %eax
        double_faults_on df_np_then_np, movl %eax, %ds
        restore_vector NP
        spoil   SS_
        movl $DATA_NP, %eax
        double_faults_on df_ss_then_np, movl %eax, %ss
        restore_vector SS_
        lidt    tiny_idt_pointer                # vector 13 lies beyond the limit, 8 within
        movl $BEYOND, %eax
        double_faults_on df_short_idt, movl %eax, %ds
        double_faults_on df_int_beyond_then_gp, int $VECTOR_X
        lidt    idt_pointer
        spoil   UD                              # #UD is benign: the second exception is handled alone
        faults  benign_then_np, NP, UD*8+ERR_IDT+ERR_EXT, ud2
        restore_vector UD
        ret

# --- Priorities: 6.9 Priority Among Simultaneous Exceptions and Interrupts --------------------------------------------

priorities:
        movl    $1f, %eax
        movl    %eax, %dr0
        set_dr7 DR7_L0
        arm     2f
1:      ud2
2:      set_dr7 0
        check_vector code_breakpoint_before_ud, DB

        movl    $scratch, %eax
        movl    %eax, %dr1
        set_dr7 DR7_L1+DR7_RW1_WRITE
        arm     2f
        movb    %al, scratch
1:      ud2
2:      set_dr7 0
        check_vector data_trap_before_next_fault, DB
        check_value data_trap_before_next_fault_eip, record_eip, $1b
        xorl    %eax, %eax
        movl    %eax, %dr6

        user_faults ud_before_gp_privilege, UD, 0, .byte 0xf0, 0xf4     # lock hlt
        movl    $CR0_PE + CR0_NE + CR0_TS, %eax
        movl    %eax, %cr0
        faults  ud_lock_before_nm, UD, 0, .byte 0xf0, 0xd9, 0xd0        # lock fnop
        movl    $SMALL, %eax
        movl    %eax, %es
        faults  nm_before_gp_limit, NM, 0, flds %es:0x1000
        movl    $KDATA, %eax
        movl    %eax, %es
        clts
        user_faults gp_dpl_before_np, GP, 0x99*8+ERR_IDT, int $0x99
        ret

        .section .rodata
        .balign 4
bounds: .long   -2, 5
short_idt_pointer:
        .word   VECTOR_X * 8 - 1
        .long   idt
tiny_idt_pointer:
        .word   (DF + 1) * 8 - 1
        .long   idt

        .bss
        .balign 4096
                .skip 4096                      # emulators without limit checks write before scratch
scratch:        .skip 4096 * 2
count:          .skip 4
resume_on:      .skip 4
        .skip   4096
ring1_stack_top:
