# Paging: both 32-bit formats, rights, accessed and dirty bits, flushes, restart after page faults.
# SDM Vol. 3A, chapter 4 Paging.
#
#   linear 0x00000000  identity, 4 MiB, user and writable: this kernel
#          0x00400000  table test_pt over the frames below: the pages that the cases use
#          0x00800000  a 4 MiB (PSE) or 2 MiB (PAE) page over physical 0x00400000
#
#   frame_a, frame_b, frame_c, frame_d: frames inside the kernel's own image

        .include "harness.inc"

        PAGE            = 4096
        P               = 1 << 0
        W               = 1 << 1
        U               = 1 << 2
        A               = 1 << 5
        D               = 1 << 6
        PS              = 1 << 7
        G               = 1 << 8
        LARGE_RESERVED  = 1 << 21               # reserved in a 4 MiB PDE with PS (4.3, Table 4-4)

        ERR_P           = 1
        ERR_W           = 2
        ERR_U           = 4
        ERR_RSVD        = 8
        ERR_I           = 16

        T               = 0x400000              # test pages: T + n * PAGE
        LARGE           = 0x800000
        LARGE_FRAME     = 0x400000
        CR0_BASE        = CR0_PE + CR0_NE
        MSR_EFER        = 0xc0000080
        EFER_NXE        = 1 << 11
        CPUID1_EDX_PSE  = 1 << 3
        CPUID1_EDX_PAE  = 1 << 6
        CPUID1_EDX_PGE  = 1 << 13
        CPUID8_EDX_NX   = 1 << 20

main:
        call    control_registers
        call    two_level
        call    rights
        call    accessed_dirty
        call    flushes
        call    crossing
        call    fetches
        call    restart
        call    implicit_supervisor
        call    page_fault_delivery
        call    large_pages
        call    global_pages
        call    paging_off
        call    pae
        ret

# Maps entry N of test_pt to the frame at label FRAME with FLAGS, without a flush.
.macro map n, frame, flags
        movl    $\frame + (\flags), test_pt + 4 * (\n)
.endm
.macro flush n
        invlpg  T + PAGE * (\n)
.endm
.macro remap n, frame, flags
        map     \n, \frame, \flags
        flush   \n
.endm

.macro load_cr0 value
        pushl   %eax
        movl    $\value, %eax
        movl    %eax, %cr0
        popl    %eax
.endm
.macro load_cr3 label
        pushl   %eax
        movl    $\label, %eax
        movl    %eax, %cr3
        popl    %eax
.endm
.macro load_cr4 value
        pushl   %eax
        movl    $\value, %eax
        movl    %eax, %cr4
        popl    %eax
.endm

# The instruction must raise a page fault with error code ERROR and CR2 = ADDRESS.
.macro page_faults name, error, address, insn:vararg
        faults  \name, PF, \error, \insn
        check_value \name\()_cr2, record_cr2, $\address
.endm
.macro user_page_faults name, error, address, insn:vararg
        user_faults \name, PF, \error, \insn
        check_value \name\()_cr2, record_cr2, $\address
.endm

# --- 2.5 Control Registers: combinations that raise #GP ---------------------------------------------------------------

control_registers:
        movl    $0x20000000 + CR0_BASE, %eax    # NW without CD
        faults  gp_nw_without_cd, GP, 0, movl %eax, %cr0
        movl    %cr0, %eax
        check   cr0_unchanged, $CR0_BASE + 0x10
        load_cr0 CR0_BASE
        ret

# --- 4.3 32-Bit Paging ------------------------------------------------------------------------------------------------

two_level:
        xorl    %ecx, %ecx
        movl    $P + W + U, %eax
1:      movl    %eax, low_pt(, %ecx, 4)
        addl    $PAGE, %eax
        incl    %ecx
        cmpl    $1024, %ecx
        jne     1b
        movl    $low_pt + P + W + U, pd
        movl    $test_pt + P + W + U, pd + 4
        movl    $0x11111111, frame_a
        movl    $0x22222222, frame_b
        movl    $0x33333333, frame_c
        load_cr3 pd
        load_cr0 CR0_BASE + CR0_PG

        movl    $CR0_PG + CR0_NE, %eax
        faults  gp_pg_without_pe, GP, 0, movl %eax, %cr0
        load_cr0 CR0_BASE + CR0_PG              # for emulators that do not raise #GP

        map     0, frame_a, P+W+U
        map     1, frame_b, P+W+U
        movl    T, %eax
        check   read_through_table, $0x11111111
        movl    $0x44444444, T + PAGE + 4
        movl    frame_b + 4, %eax
        check   write_through_table, $0x44444444
        map     2, frame_a, P+W+U
        movl    $0x55555555, T + 2 * PAGE + 8
        movl    T + 8, %eax
        check   two_pages_one_frame, $0x55555555
        page_faults pt_absent_read, 0, T+7*PAGE+0x123, movl T + 7 * PAGE + 0x123, %eax
        page_faults pt_absent_write, ERR_W, T+7*PAGE, movl %eax, T + 7 * PAGE
        page_faults pd_absent_read, 0, 0xc0000000, movb 0xc0000000, %al
        user_page_faults user_pt_absent_read, ERR_U, T+7*PAGE, movl T + 7 * PAGE, %eax
        user_page_faults user_pt_absent_write, ERR_U+ERR_W, T+7*PAGE, movb %al, T + 7 * PAGE
        movl    $W + U + A + D, test_pt + 4 * 7 # all but P
        page_faults pt_all_bits_but_p, 0, T+7*PAGE, movl T + 7 * PAGE, %eax
        movl    test_pt + 4 * 7, %eax
        check   absent_entry_untouched, $W + U + A + D
        movl    $0x00800000 + P + W + U, test_pt + 4 * 7
        movl    $0xcafe0001, T + 7 * PAGE       # not present before: no flush needed (4.10.4.3 Optional Invalidation)
        movl    T + 7 * PAGE, %eax
        check   frame_8m, $0xcafe0001
        ret

# --- 4.6 Access Rights, 4.7 Page-Fault Exceptions ---------------------------------------------------------------------
#
# Every combination of P, W, U in PDE and PTE, with CR0.WP clear and set, against the rules computed by `predict`.

# Runs ACCESS, in ring 3 if MODE is user, with each of the 64 combinations. Returns the number of wrong outcomes in EAX.
.macro sweep name, mode, error, insn:vararg
        xorl    %edi, %edi                      # PDE flags << 3 | PTE flags
        xorl    %esi, %esi                      # wrong outcomes
.Lnext\@:
        movl    %edi, %eax
        shrl    $3, %eax
        addl    $test_pt, %eax
        movl    %eax, pd + 4
        movl    %edi, %eax
        andl    $7, %eax
        addl    $frame_a, %eax
        movl    %eax, test_pt
        flush   0
        .ifc    \mode, user
        attempt_user EFLAGS_FIXED, \insn
        .else
        attempt \insn
        .endif
        movl    $\error, %edx
        call    judge
        addl    %eax, %esi
        incl    %edi
        cmpl    $64, %edi
        jne     .Lnext\@
        movl    $test_pt + P + W + U, pd + 4
        flush   0
        movl    %esi, %eax
        check   \name, $0
.endm

# Judges an access. EDI: flags, EDX: ERR_W and ERR_U of the access, and CR0.WP. Returns 0 in EAX if the record and the A
# and D bits are right, else 1.
judge:
        call    predict
        movl    record_vector, %ebx
        cmpl    $NONE, %eax
        je      2f
        cmpl    $PF, %ebx                       # a fault: code, CR2, D untouched
        jne     4f
        cmpl    record_error, %eax
        jne     4f
        cmpl    $T, record_cr2
        jne     4f
        testl   $D, test_pt
        jnz     4f
        jmp     3f
2:      cmpl    $PF, %ebx
        je      4f
        testl   $A, pd + 4
        jz      4f
        testl   $A, test_pt
        jz      4f
        movl    test_pt, %eax                   # D is set only by writes
        shrl    $6, %eax
        shll    $1, %eax
        xorl    %edx, %eax
        testl   $ERR_W, %eax
        jnz     4f
3:      xorl    %eax, %eax
        ret
4:      movl    $1, %eax
        ret

# Returns the error code for EDI and EDX in EAX, or NONE if the access is allowed.
predict:
        movl    %edi, %eax
        shrl    $3, %eax
        andl    %edi, %eax                      # the rights are those that both levels give
        testl   $P, %eax
        jz      2f
        testl   $ERR_U, %edx
        jz      1f
        testl   $U, %eax
        jz      3f
        testl   $ERR_W, %edx
        jz      4f
        testl   $W, %eax
        jz      3f
        jmp     4f
1:      testl   $ERR_W, %edx                    # supervisor: reads always, writes by W if WP
        jz      4f
        testl   $W, %eax
        jnz     4f
        movl    %cr0, %eax
        testl   $CR0_WP, %eax
        jz      4f
        jmp     3f
2:      movl    %edx, %eax
        ret
3:      leal    ERR_P(%edx), %eax
        ret
4:      movl    $NONE, %eax
        ret

.macro sweep_all suffix
        sweep   rights_read_\suffix, supervisor, 0, movl T, %eax
        sweep   rights_write_\suffix, supervisor, ERR_W, movl %eax, T
        sweep   rights_modify_\suffix, supervisor, ERR_W, orl $0, T
        sweep   rights_user_read_\suffix, user, ERR_U, movl T, %eax
        sweep   rights_user_write_\suffix, user, ERR_U+ERR_W, movl %eax, T
        sweep   rights_user_modify_\suffix, user, ERR_U+ERR_W, lock orl $0, T
.endm

rights:
        sweep_all wp_clear
        load_cr0 CR0_BASE + CR0_PG + CR0_WP
        sweep_all wp_set
        load_cr0 CR0_BASE + CR0_PG
        remap   0, frame_a, P+U                 # WP takes effect at once on a translation in use
        movl    %eax, T
        load_cr0 CR0_BASE + CR0_PG + CR0_WP
        page_faults wp_takes_effect, ERR_P+ERR_W, T, movl %eax, T
        load_cr0 CR0_BASE + CR0_PG
        runs    wp_cleared_takes_effect, movl %eax, T
        ret

# --- 4.8 Accessed and Dirty Flags -------------------------------------------------------------------------------------

.macro check_flags name, n, want
        movl    test_pt + 4 * (\n), %eax
        andl    $PAGE - 1, %eax
        check   \name, $\want
.endm

accessed_dirty:
        remap   0, frame_a, P+W+U
        movl    $test_pt + P + W + U, pd + 4
        load_cr3 pd
        check_flags untouched, 0, P+W+U
        movl    T, %eax
        check_flags read_sets_a, 0, P+W+U+A
        movl    pd + 4, %eax
        andl    $PAGE - 1, %eax
        check   read_sets_pde_a, $P + W + U + A
        movl    %eax, T                         # the translation was loaded clean: the write still sets D
        check_flags write_sets_d, 0, P+W+U+A+D
        remap   0, frame_a, P+W+U
        movl    %eax, T
        check_flags write_sets_a_and_d, 0, P+W+U+A+D
        remap   0, frame_a, P+W+U
        cmpl    %eax, T
        check_flags compare_leaves_d, 0, P+W+U+A
        remap   0, frame_a, P+W+U
        movl    $0x11111111, frame_a
        movl    $1, %eax
        lock cmpxchgl %ecx, T                   # fails to exchange, but writes all the same
        check_flags failed_cmpxchg_sets_d, 0, P+W+U+A+D
        remap   0, frame_a, P+U
        load_cr0 CR0_BASE + CR0_PG + CR0_WP
        attempt movl %eax, T
        movl    test_pt, %eax
        andl    $D, %eax
        check   refused_write_leaves_d, $0
        load_cr0 CR0_BASE + CR0_PG
        remap   0, frame_a, P+W+U+A+D
        movl    T, %eax
        check_flags set_flags_stay, 0, P+W+U+A+D
        remap   0, frame_a, P+W+U
        remap   1, frame_b, P+W+U
        movl    %eax, T + PAGE - 2              # across two pages
        check_flags crossing_write_sets_d_first, 0, P+W+U+A+D
        check_flags crossing_write_sets_d_second, 1, P+W+U+A+D
        ret

# --- 4.10.4 Invalidation of TLBs and Paging-Structure Caches ----------------------------------------------------------

flushes:
        movl    $0x11111111, frame_a
        movl    $0x22222222, frame_b
        remap   0, frame_a, P+W+U
        movl    T, %eax
        map     0, frame_b, P+W+U               # not flushed: either translation is legal, a mixture is not
        movl    T, %eax
        cmpl    $0x11111111, %eax
        je      1f
        check   stale_or_new, $0x22222222
        jmp     2f
1:      check   stale_or_new, $0x11111111
2:      flush   0
        movl    T, %eax
        check   invlpg_shows_new_frame, $0x22222222
        map     0, frame_a, P+W+U
        load_cr3 pd
        movl    T, %eax
        check   cr3_load_shows_new_frame, $0x11111111
        map     0, frame_a, 0
        flush   0
        page_faults invlpg_shows_absence, 0, T, movl T, %eax
        map     0, frame_a, P+W+U
        runs    presence_needs_no_flush, movl T, %eax
        remap   0, frame_a, P+W+U
        movl    %eax, T
        remap   0, frame_a, P+U
        user_page_faults downgrade_after_flush, ERR_P+ERR_W+ERR_U, T, movl %eax, T
        map     0, frame_a, P+W+U               # the fault itself invalidates the faulting address
        user_runs upgrade_after_fault, movl %eax, T
        movl    $test_pt2 + P + W + U, pd + 4   # a PDE changed
        movl    $frame_c + P + W + U, test_pt2
        flush   0
        movl    T, %eax
        check   invlpg_covers_pde, $0x33333333
        movl    $test_pt + P + W + U, pd + 4
        load_cr3 pd
        movl    $pd2, %eax                      # another address space
        movl    $low_pt + P + W + U, pd2
        movl    $test_pt2 + P + W + U, pd2 + 4
        movl    %eax, %cr3
        movl    T, %eax
        check   other_space, $0x33333333
        load_cr3 pd
        movl    T, %eax
        check   first_space_again, $0x11111111
        movl    $test_pt2 + P + W + U, pd + 4
        load_cr0 CR0_BASE
        load_cr0 CR0_BASE + CR0_PG              # changing PG flushes everything
        movl    T, %eax
        check   pg_toggle_flushes, $0x33333333
        movl    $test_pt + P + W + U, pd + 4
        load_cr3 pd
        ret

# --- Accesses across a page boundary: both pages are checked before anything changes ----------------------------------

crossing:
        remap   0, frame_a, P+W+U
        remap   1, frame_b, P+W+U
        movl    $0x44332211, frame_a + PAGE - 4
        movl    $0x88776655, frame_b
        movl    T + PAGE - 2, %eax
        check   crossing_read, $0x66554433
        movw    T + PAGE - 1, %ax
        movzwl  %ax, %eax
        check   crossing_read_word, $0x5544
        remap   1, frame_b, 0
        page_faults crossing_read_fault, 0, T+PAGE, movl T + PAGE-2, %eax
        movl    $-1, %eax
        page_faults crossing_write_fault, ERR_W, T+PAGE, movl %eax, T + PAGE-1
        page_faults crossing_modify_fault, ERR_W, T+PAGE, addl %eax, T + PAGE-3
        page_faults crossing_word_fault, ERR_W, T+PAGE, movw %ax, T + PAGE-1
        fld1
        page_faults crossing_fpu_store, ERR_W, T+PAGE, fstpl T + PAGE - 4
        fninit
        movl    frame_a + PAGE - 4, %eax
        check   first_page_unchanged, $0x44332211
        runs    last_dword_runs, movl T + PAGE - 4, %eax
        remap   0, frame_a, 0
        remap   1, frame_b, P+W+U
        page_faults crossing_first_absent, ERR_W, T+PAGE-2, movl %eax, T + PAGE-2
        remap   1, frame_b, 0
        page_faults crossing_both_absent, 0, T+PAGE-2, movl T + PAGE-2, %eax
        remap   0, frame_a, P+W+U
        remap   1, frame_b, P+U
        load_cr0 CR0_BASE + CR0_PG + CR0_WP
        page_faults crossing_second_read_only, ERR_P+ERR_W, T+PAGE, movl %eax, T + PAGE-2
        load_cr0 CR0_BASE + CR0_PG
        movl    frame_a + PAGE - 4, %eax
        check   first_page_still_unchanged, $0x44332211
        ret

# --- Instruction fetches ----------------------------------------------------------------------------------------------

fetches:
        remap   0, frame_a, P+W+U
        remap   1, frame_b, 0
        arm     1f
        movl    $T + PAGE, attempt_eip
        movl    $T + PAGE, %eax
        jmp     *%eax
1:      check_outcome fetch_absent, $PF << 24
        check_value fetch_absent_cr2, record_cr2, $T + PAGE
        movb    $0xb8, frame_a + PAGE - 3       # mov $imm32, %eax: two bytes of the immediate on the next page
        movw    $0x2211, frame_a + PAGE - 2
        arm     1f
        movl    $T + PAGE - 3, attempt_eip
        movl    $T + PAGE - 3, %eax
        jmp     *%eax
1:      check_outcome fetch_crossing, $PF << 24
        check_value fetch_crossing_cr2, record_cr2, $T + PAGE
        movl    $0xc34433, frame_b              # the rest of it, ret
        remap   1, frame_b, P+W+U
        movl    $T + PAGE - 3, %ecx
        call    *%ecx
        check   crossing_instruction, $0x44332211
        movb    $0x90, frame_a + PAGE - 1       # nop at the end, then an absent page
        remap   1, frame_b, 0
        arm     1f
        movl    $T + PAGE, attempt_eip
        movl    $T + PAGE - 1, %eax
        jmp     *%eax
1:      check_outcome fetch_falls_into_absent, $PF << 24
        remap   1, frame_b, P+W                 # supervisor page: user may not execute
        arm     1f
        movl    $T + PAGE, attempt_eip
        enter_user T+PAGE
1:      check_outcome user_fetch_supervisor, $(PF << 24) + ERR_P + ERR_U
        remap   1, frame_b, P+W+U
        ret

# --- 6.5 Exception Classifications: faulting instructions restart -----------------------------------------------------
#
# The cases run in ring 3 with pages 0..=7 absent. The handler maps the page of CR2 to the frame of the same number and
# returns.

        .macro  demand
        movl    $0, test_pt
        movl    $0, test_pt + 4
        movl    $0, test_pt + 8
        movl    $0, test_pt + 12
        movl    $0, faults_taken
        load_cr3 pd
        .endm

# Runs INSN in ring 3 with ESP = STACK on demand-mapped pages.
.macro demanding name, stack, faults, insn:vararg
        demand
        arm     .Ldone\@
        pushl   $UDATA
        popl    %ds
        pushl   $UDATA
        popl    %es
        pushl   $UDATA
        pushl   $\stack
        pushl   $EFLAGS_FIXED
        pushl   $UCODE
        pushl   $.Ldemanding\@
        iret
.Ldemanding\@:
        \insn
        int     $RETURN
.Ldone\@:
        check_value \name\()_faults, faults_taken, $\faults
.endm

page_in:
        pusha
        pushl   %ds
        movl    $KDATA, %eax
        movl    %eax, %ds
        incl    faults_taken
        movl    %cr2, %eax
        andl    $-PAGE, %eax
        movl    %eax, %ecx
        subl    $T, %ecx
        shrl    $10, %ecx
        subl    $T, %eax
        addl    $frame_a + P + W + U, %eax
        movl    %eax, test_pt(%ecx)
        popl    %ds
        popa
        addl    $4, %esp
        iret

call_target:
        int     $RETURN

.macro stos_downward
        std
        rep stosl
        cld
.endm

restart:
        handle  PF, page_in
        movl    $0xaabbccdd, %eax
        demanding push_crossing, T+PAGE+2, 2, pushl %eax
        check_value push_crossing_esp, record_esp, $T + PAGE-2
        movl    frame_a + PAGE - 2, %eax
        andl    $0xffff, %eax
        check   push_crossing_low, $0xccdd
        movzwl  frame_b, %eax
        check   push_crossing_high, $0xaabb
        movl    $0x12345678, frame_b
        demanding pop_restarts, T+PAGE, 1, popl %eax
        check_value pop_value, record_eax, $0x12345678
        check_value pop_esp, record_esp, $T + PAGE + 4
        movl    $0x12345678, frame_b
        demanding pop_to_memory, T+PAGE, 2, popl T + 8
        movl    frame_a + 8, %eax
        check   pop_to_memory_value, $0x12345678
        check_value pop_to_memory_esp, record_esp, $T + PAGE + 4
        demanding call_restarts, T+PAGE, 1, call call_target
        check_value call_esp, record_esp, $T + PAGE-4
        movl    $call_target, frame_b
        demanding ret_restarts, T+PAGE, 1, ret $8
        check_value ret_esp, record_esp, $T + PAGE + 12
        demanding pusha_restarts, T+PAGE+16, 2, pusha
        check_value pusha_esp, record_esp, $T + PAGE-16
        demanding popa_restarts, T+PAGE-16, 2, popa
        check_value popa_esp, record_esp, $T + PAGE + 16
        demanding enter_restarts, T+PAGE+2, 2, enter $4, $0
        check_value enter_esp, record_esp, $T + PAGE-6
        movl    $T + PAGE, %ebp
        demanding leave_restarts, T+3*PAGE, 1, leave
        check_value leave_esp, record_esp, $T + PAGE + 4
        movl    $T + 64, %esi
        movl    $T + 2 * PAGE - 128, %edi
        movl    $64, %ecx
        demanding movs_restarts, user_stack_top, 3, rep movsl
        check_value movs_ecx, record_ecx, $0
        check_value movs_esi, record_esi, $T + 64 + 256
        check_value movs_edi, record_edi, $T + 2*PAGE-128 + 256
        movl    $T + PAGE + 60, %edi            # downward
        movl    $32, %ecx
        movl    $0x77777777, %eax
        demanding stos_down, user_stack_top, 2, stos_downward
        check_value stos_down_edi, record_edi, $T + PAGE + 60-128
        movl    $T + PAGE - 4, %edi
        movl    $0x11111111, frame_a + PAGE - 4
        movl    $0x22222222, frame_b
        movl    $0x11111111, %eax
        movl    $0x22222222, %edx
        movl    $0x33333333, %ebx
        movl    $0x44444444, %ecx
        demanding cmpxchg8b_crossing, user_stack_top, 2, lock cmpxchg8b (%edi)
        movl    frame_a + PAGE - 4, %eax
        check   cmpxchg8b_low, $0x33333333
        movl    frame_b, %eax
        check   cmpxchg8b_high, $0x44444444
        movl    $5, frame_b
        movl    $7, %eax
        demanding xchg_restarts, user_stack_top, 1, xchgl %eax, T + PAGE
        check_value xchg_value, record_eax, $5
        movl    frame_b, %eax
        check   xchg_memory, $7
        movl    $5, frame_b
        demanding adc_once, user_stack_top, 1, addl $1, T + PAGE
        movl    frame_b, %eax
        check   add_happens_once, $6
        restore_vector PF

        demand                                  # without the handler, the state is as before the instruction
        arm     1f
        pushl   $UDATA
        pushl   $T + PAGE + 2
        pushl   $EFLAGS_FIXED
        pushl   $UCODE
        pushl   $2f
        map     1, frame_b, P+W+U
        movl    $2f, attempt_eip
        iret
2:      pushl   %eax
1:      check_outcome push_fault, $(PF << 24) + ERR_U + ERR_W
        check_value push_fault_cr2, record_cr2, $T + PAGE-2
        check_value push_fault_keeps_esp, record_esp, $T + PAGE + 2
        remap   0, frame_a, P+W+U
        remap   1, frame_b, 0
        movl    $T + PAGE - 32, %esi
        movl    $T, %edi
        movl    $16, %ecx
        faults  movs_fault, PF, 0, rep movsl
        check_value movs_fault_ecx, record_ecx, $8
        check_value movs_fault_esi, record_esi, $T + PAGE
        check_value movs_fault_edi, record_edi, $T + 32
        remap   1, frame_b, P+W+U
        ret

# --- 4.6.1: accesses to GDT, LDT, IDT and TSS are supervisor accesses at any CPL --------------------------------------

implicit_supervisor:
        movl    $gdt, %eax
        call    toggle_user
        movl    $idt, %eax
        call    toggle_user
        user_runs tables_are_read_as_supervisor, nop
        movl    $UDATA, %eax
        user_runs segment_load_reads_gdt, movl %eax, %fs
        user_page_faults user_may_not_read_idt, ERR_P+ERR_U, idt, movl idt, %eax
        movl    $gdt, %eax
        call    toggle_user
        movl    $idt, %eax
        call    toggle_user
        ret

# Flips U of the identity mapping of the page of EAX.
toggle_user:
        movl    %eax, %ecx
        shrl    $12, %ecx
        xorl    $U, low_pt(, %ecx, 4)
        invlpg  (%eax)
        ret

# --- Page faults during delivery: Table 6-5 Conditions for Generating a Double Fault ----------------------------------

page_fault_delivery:
        gate    idt+8*PF, 0x38, page_in, SYS_INT_GATE
        attempt movl 0xc0000000, %eax
        check_vector df_pf_then_np, DF
        check_value df_keeps_cr2, record_cr2, $0xc0000000
        restore_vector PF
        remap   0, frame_a, P+W+U               # an IDT whose first 16 gates are present and the rest are not
        remap   1, frame_b, 0
        movl    $idt, %esi
        movl    $T + PAGE - 16 * 8, %edi
        movl    $16 * 2, %ecx
        rep movsl
        lidt    split_idt_pointer
        page_faults pf_reading_gate, 0, T+PAGE+16*8, int $0x20
        lidt    idt_pointer
        ret

# --- 4.3, 4-MByte pages -----------------------------------------------------------------------------------------------

large_pages:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_PSE, %edx
        jnz     1f
        note    "skip: CPUID does not announce PSE"
        ret
1:      remap   8, LARGE_FRAME+PAGE, P+W
        movl    $0xcafe0004, T + 8 * PAGE + 0x234
        load_cr4 CR4_PSE
        movl    $LARGE_FRAME + PS + P + W + U, pd + 8
        movl    LARGE + PAGE + 0x234, %eax
        check   large_read, $0xcafe0004
        movl    pd + 8, %eax
        check   large_read_sets_a, $LARGE_FRAME + PS + P + W + U + A
        movl    $0xcafe0005, LARGE + 0x3ffffc
        movl    pd + 8, %eax
        check   large_write_sets_d, $LARGE_FRAME + PS + P + W + U + A + D
        movl    LARGE + 0x3ffffc, %eax
        check   large_last_dword, $0xcafe0005
        movl    $LARGE_FRAME + P + W + U, test_pt + 4 * 9
        flush   9
        movl    $0xcafe0006, T + 9 * PAGE + 0x10
        movl    LARGE + 0x10, %eax
        check   large_and_small_alias, $0xcafe0006
        movl    $LARGE_FRAME + PS + P, pd + 8
        invlpg  LARGE + 0x200000
        user_page_faults large_user_read, ERR_P+ERR_U, LARGE+4, movl LARGE + 4, %eax
        movl    $LARGE_FRAME + LARGE_RESERVED + PS + P + W + U, pd + 8
        invlpg  LARGE
        page_faults large_reserved_bit, ERR_P+ERR_RSVD, LARGE, movl LARGE, %eax
        page_faults large_reserved_bit_write, ERR_P+ERR_RSVD+ERR_W, LARGE, movl %eax, LARGE
        user_page_faults large_reserved_bit_user, ERR_P+ERR_RSVD+ERR_U, LARGE, movl LARGE, %eax
        movl    $test_pt + PS + P + W + U, pd + 8
        load_cr4 0                              # without CR4.PSE the PS bit is ignored
        movl    $0x11111111, frame_a
        movl    LARGE, %eax
        check   ps_ignored_without_pse, $0x11111111
        movl    $0, pd + 8
        load_cr3 pd
        ret

# --- 4.10.2.4 Global Pages --------------------------------------------------------------------------------------------

global_pages:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_PGE, %edx
        jnz     1f
        note    "skip: CPUID does not announce PGE"
        ret
1:      movl    $0x11111111, frame_a
        movl    $0x22222222, frame_b
        load_cr4 CR4_PGE
        remap   0, frame_a, P+W+U+G
        movl    T, %eax
        map     0, frame_b, P+W+U+G
        load_cr3 pd                             # keeps global translations, though a processor may drop any
        movl    T, %eax
        cmpl    $0x22222222, %eax
        je      2f
        check   global_stale_or_new, $0x11111111
        jmp     3f
2:      check   global_stale_or_new, $0x22222222
3:      flush   0
        movl    T, %eax
        check   invlpg_drops_global, $0x22222222
        map     0, frame_a, P+W+U+G
        load_cr4 0
        movl    T, %eax
        check   pge_change_drops_global, $0x11111111
        load_cr4 CR4_PGE
        remap   0, frame_a, P+W+U
        movl    T, %eax
        map     0, frame_b, P+W+U
        load_cr3 pd
        movl    T, %eax
        check   cr3_load_drops_others, $0x22222222
        load_cr4 0
        remap   0, frame_a, P+W+U
        ret

paging_off:
        load_cr0 CR0_BASE
        movl    $0xcafe0007, LARGE_FRAME + 0x1234
        movl    T + 0x1234, %eax                # linear is physical again
        check   paging_off, $0xcafe0007
        ret

# --- 4.4 PAE Paging ---------------------------------------------------------------------------------------------------

.macro pae_map n, frame, flags, high=0
        movl    $\frame + (\flags), pae_pt + 8 * (\n)
        movl    $\high, pae_pt + 8 * (\n) + 4
        flush   \n
.endm

        NX_HIGH         = 1 << 31

pae:
        movl    $1, %eax
        cpuid
        testl   $CPUID1_EDX_PAE, %edx
        jnz     1f
        note    "skip: CPUID does not announce PAE"
        ret
1:      xorl    %ecx, %ecx                      # identity of the low 4 MiB by 2 MiB pages
        movl    $0 + PS + P + W + U, pae_pd
        movl    $0x200000 + PS + P + W + U, pae_pd + 8
        movl    $pae_pt + P + W + U, pae_pd + 16
        movl    $LARGE_FRAME + PS + P + W + U, pae_pd + 8 * 4
        movl    $pae_pd + P, pdpt
        load_cr4 CR4_PAE
        load_cr3 pdpt
        load_cr0 CR0_BASE + CR0_PG
        movl    $0x11111111, frame_a
        pae_map 0, frame_a, P+W+U
        movl    T, %eax
        check   pae_read, $0x11111111
        movl    pae_pt, %eax
        andl    $PAGE - 1, %eax
        check   pae_read_sets_a, $P + W + U + A
        movl    %eax, T
        movl    pae_pt, %eax
        andl    $PAGE - 1, %eax
        check   pae_write_sets_d, $P + W + U + A + D
        movl    LARGE, %eax
        movl    pae_pd + 8 * 4, %eax
        check   pae_large_read_sets_a, $LARGE_FRAME + PS + P + W + U + A
        movl    $0xcafe0008, LARGE + 0x1ffffc
        movl    pae_pd + 8 * 4, %eax
        check   pae_large_write_sets_d, $LARGE_FRAME + PS + P + W + U + A + D
        page_faults pae_pt_absent, 0, T+8*PAGE, movl T + 8 * PAGE, %eax
        page_faults pae_pdpte_absent, ERR_W, 0x40000000, movl %eax, 0x40000000
        pae_map 1, frame_b, P+W
        user_page_faults pae_user_supervisor_page, ERR_P+ERR_U, T+PAGE, movl T + PAGE, %eax
        pae_map 1, frame_b, P+U
        user_page_faults pae_user_read_only, ERR_P+ERR_U+ERR_W, T+PAGE, movl %eax, T + PAGE
        pae_map 1, frame_b, P+W+U, 0x00100000   # bit 52: reserved
        page_faults pae_reserved_bit, ERR_P+ERR_RSVD, T+PAGE, movl T + PAGE, %eax
        pae_map 1, frame_b, P+W+U, NX_HIGH      # without EFER.NXE bit 63 is reserved
        page_faults pae_nx_reserved, ERR_P+ERR_RSVD, T+PAGE, movl T + PAGE, %eax
        movl    $LARGE_FRAME + 0x2000 + PS + P + W + U, pae_pd + 8 * 4
        invlpg  LARGE
        page_faults pae_large_reserved_bit, ERR_P+ERR_RSVD, LARGE, movl LARGE, %eax
        movl    $LARGE_FRAME + PS + P + W + U, pae_pd + 8 * 4
        invlpg  LARGE

        movl    $LARGE_FRAME + PS + P + W + U, pae_pd2
        movl    $pae_pd2 + P, pdpt + 8          # 4.4.1 PDPTE Registers: loaded by mov to CR3 only
        invlpg  0x40000000
        page_faults pdpte_needs_cr3_load, 0, 0x40000000, movl 0x40000000, %eax
        load_cr3 pdpt
        movl    $0xcafe0009, LARGE
        movl    0x40000000, %eax
        check   pdpte_after_cr3_load, $0xcafe0009
        movl    $pae_pd2 + P + W, pdpt + 16     # bit 1 of a PDPTE is reserved
        movl    $pdpt, %eax
        faults  gp_pdpte_reserved, GP, 0, movl %eax, %cr3
        movl    $0, pdpt + 16
        runs    pdpte_absent_is_fine, movl %eax, %cr3

        movl    $0x80000000, %eax
        cpuid
        cmpl    $0x80000001, %eax
        jb      1f
        movl    $0x80000001, %eax
        cpuid
        testl   $CPUID8_EDX_NX, %edx
        jnz     2f
1:      note    "skip: CPUID does not announce NX"
        jmp     3f
2:      movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_NXE, %eax
        wrmsr
        pae_map 1, frame_b, P+W+U, NX_HIGH
        movb    $0xc3, frame_b                  # ret
        runs    nx_page_can_be_read, movl T + PAGE, %eax
        arm     1f
        movl    $T + PAGE, attempt_eip
        movl    $T + PAGE, %eax
        jmp     *%eax
1:      check_outcome nx_fetch, $(PF << 24) + ERR_P + ERR_I
        check_value nx_fetch_cr2, record_cr2, $T + PAGE
        arm     1f
        movl    $T + PAGE, attempt_eip
        enter_user T+PAGE
1:      check_outcome nx_user_fetch, $(PF << 24) + ERR_P + ERR_I + ERR_U
        pae_map 1, frame_b, 0
        arm     1f
        movl    $T + PAGE, attempt_eip
        movl    $T + PAGE, %eax
        jmp     *%eax
1:      check_outcome nx_absent_fetch, $(PF << 24) + ERR_I
        pae_map 1, frame_b, P+W+U
        runs    executable_page_runs, call T + PAGE
        movl    $pae_pt + P + W + U, pae_pd + 16
        movl    $NX_HIGH, pae_pd + 20           # NX of any level counts
        load_cr3 pdpt
        arm     1f
        movl    $T + PAGE, attempt_eip
        movl    $T + PAGE, %eax
        jmp     *%eax
1:      check_outcome nx_of_directory, $(PF << 24) + ERR_P + ERR_I
        movl    $0, pae_pd + 20
        load_cr3 pdpt
        movl    $MSR_EFER, %ecx
        rdmsr
        andl    $~EFER_NXE, %eax
        wrmsr
3:      load_cr0 CR0_BASE
        load_cr4 0
        ret

        .section .rodata
        .balign 4
split_idt_pointer:
        .word   256 * 8 - 1
        .long   T + PAGE - 16 * 8

        .bss
faults_taken:   .skip 4
        .balign 4096
pd:             .skip 4096
pd2:            .skip 4096
low_pt:         .skip 4096
test_pt:        .skip 4096
test_pt2:       .skip 4096
pdpt:           .skip 4096
pae_pd:         .skip 4096
pae_pd2:        .skip 4096
pae_pt:         .skip 4096
frame_a:        .skip 4096                      # page_in maps page n to frame n
frame_b:        .skip 4096
frame_c:        .skip 4096
frame_d:        .skip 4096
