# Self-modifying code: the processor executes the bytes that memory holds, whoever has written them.
# SDM Vol. 3A, 8.1.3 Handling Self- and Cross-Modifying Code; 11.6 Self-Modifying Code.
#
# A write through the linear address that is executed takes effect at the next instruction. After a write through
# another linear address of the same frame, the cases first execute a serializing instruction (CPUID), as the manual
# demands.

        .include "harness.inc"

        PAGE            = 4096
        P               = 1 << 0
        W               = 1 << 1
        T               = 0x400000              # linear addresses of the test pages

        MOV_EAX         = 0xb8                  # opcode of mov $imm32, %eax
        RET             = 0xc3

        CODE16          = FREE                  # the same flat memory, 16-bit code

main:
        call    next_instruction
        call    loops
        call    every_kind_of_store
        call    boundary
        call    generations
        call    data_among_code
        call    checksum
        call    two_modes
        call    aliases
        ret

.macro serialize
        pusha
        xorl    %eax, %eax
        cpuid
        popa
.endm

# --- The instruction that follows the store, code already executed ----------------------------------------------------

next_instruction:
        movl    $2, 1f + 1
1:      movl    $1, %eax
        check   next_instruction, $2
        movl    $2, %ecx                        # the second round executes what the first one wrote
        xorl    %ebx, %ebx
1:      movl    $5, %eax
        addl    %eax, %ebx
        movl    $7, 1b + 1
        loop    1b
        movl    %ebx, %eax
        check   second_round, $12
        movb    $0x43, 1f                       # nop becomes inc %ebx
        xorl    %ebx, %ebx
1:      nop
        movl    %ebx, %eax
        check   opcode_changes, $1
        movw    $0x00eb, 1f                     # jumps over nothing instead of over the increment
        xorl    %ebx, %ebx
1:      jmp     2f
        incl    %ebx
2:      movl    %ebx, %eax
        check   branch_target_changes, $1
        movl    $3, 1f + 3                      # an unrelated instruction further on
        jmp     2f
        .skip   200, 0x90
2:      xorl    %ebx, %ebx
1:      leal    0x11111111(%ebx, %ebx), %eax
        check   displacement_changes, $3
        ret

loops:
        movl    $100, %ecx                      # the constant is rewritten in every round
        xorl    %ebx, %ebx
1:      addl    $0, %ebx
        incb    1b + 2
        loop    1b
        movl    %ebx, %eax
        check   constant_in_a_loop, $100*99/2
        ret

# --- Stores of every width and kind -----------------------------------------------------------------------------------

# Restores `victim` to mov $1, %eax; ret and runs it once, so that it is known code.
fresh_victim:
        movb    $MOV_EAX, victim
        movl    $1, victim + 1
        movb    $RET, victim + 5
        jmp     victim

.macro overwrites name, want, insn:vararg
        call    fresh_victim
        \insn
        call    victim
        check   \name, $\want
.endm

.macro push_over
        movl    %esp, %ebp
        movl    $victim + 5, %esp
        pushl   $0x66
        movl    %ebp, %esp
.endm

.macro call_over                                # the return address becomes the constant
        movl    %esp, %ebp
        movl    $victim + 5, %esp
        call    1f
1:      movl    %ebp, %esp
.endm

.macro movs_over
        movl    $patterns, %esi
        movl    $victim + 1, %edi
        movl    $4, %ecx
        rep movsb
.endm

.macro cmpxchg8b_over                           # mov %eax is victim[0..5]; compares and replaces victim[0..8]
        movl    victim, %eax
        movl    victim + 4, %edx
        movl    %eax, %ebx
        movl    %edx, %ecx
        andl    $0xffff00ff, %ebx
        orl     $0x2200, %ebx
        lock cmpxchg8b victim
.endm

every_kind_of_store:
        overwrites store_byte, 0x101, movb $1, victim + 2
        overwrites store_word, 0x20001, movw $2, victim + 3
        overwrites store_dword, 0x12345678, movl $0x12345678, victim + 1
        overwrites increment, 2, incl victim + 1
        overwrites bit_set, 0x101, btsl $16, victim
        overwrites shift, 0x80, shll $7, victim + 1
        movl    $0x77, %edx
        overwrites exchange, 0x77, xchgl %edx, victim + 1
        overwrites string_store, 0x11121314, movs_over
        overwrites push, 0x66, push_over
        overwrites compare_exchange_8, 0x22, cmpxchg8b_over
        fildl   patterns
        overwrites fpu_store, 0x11121314, fistpl victim + 1
        movd    patterns, %mm0
        overwrites mmx_store, 0x11121314, movd %mm0, victim + 1
        emms
        call    fresh_victim
        call_over
        movl    $1b, %ebx
        call    victim
        check   call_pushes_over_code, %ebx
        ret

        .balign 64
victim: movl    $1, %eax
        ret
        .skip   64, 0x90

# --- Instructions across a page boundary ------------------------------------------------------------------------------

boundary:
        movl    $0x44332211, straddle_imm
        call    straddle
        check   straddling_instruction, $0x44332211
        movb    $0x55, second_page              # the part on the second page
        call    straddle
        check   second_half_changes, $0x44552211
        movb    $0x66, second_page - 1          # the part on the first page
        call    straddle
        check   first_half_changes, $0x44556611
        movb    $0x05, second_page - 3          # mov $imm becomes add $imm
        movl    $1, %eax
        call    straddle
        check   opcode_before_boundary, $0x44556612
        movb    $MOV_EAX, second_page - 3
        ret

# --- A buffer that holds different code each time ---------------------------------------------------------------------

generations:
        xorl    %ebx, %ebx
        movl    $500, %ecx
1:      movb    $MOV_EAX, buffer
        movl    %ecx, buffer + 1
        movb    $RET, buffer + 5
        call    buffer
        addl    %eax, %ebx
        movl    $0xc3c08990, buffer             # nop; mov %eax, %eax; ret
        call    buffer
        addl    %eax, %ebx
        loop    1b
        movl    %ebx, %eax
        check   five_hundred_generations, $500*501
        movl    $buffer, %edi                   # the same routine at every offset of a page and across its end
        xorl    %ebx, %ebx
1:      movb    $MOV_EAX, (%edi)
        movl    %edi, 1(%edi)
        movb    $RET, 5(%edi)
        call    *%edi
        xorl    %edi, %eax
        orl     %eax, %ebx
        incl    %edi
        cmpl    $buffer + PAGE + 16, %edi
        jne     1b
        movl    %ebx, %eax
        check   every_offset, $0
        ret

# --- Data and code on one page ----------------------------------------------------------------------------------------

        .balign PAGE
data_among_code:
        movl    $20000, %ecx
        movl    $0, neighbour
1:      incl    neighbour
        loop    1b
        movl    neighbour, %eax
        check   counter_beside_code, $20000
        movl    $1000, %ecx
        movl    %esp, %ebp
        movl    $neighbour_stack, %esp          # stack beside code
1:      call    2f
        loop    1b
        movl    %ebp, %esp
        movl    %ecx, %eax
        check   stack_beside_code, $0
        ret
2:      pushl   %ecx
        popl    %ecx
        ret
neighbour:
        .long   0
        .skip   64
neighbour_stack:
        .long   0

# --- A page that reads itself -----------------------------------------------------------------------------------------

sum_page:
        xorl    %eax, %eax
        movl    $sum_page, %esi
        andl    $-PAGE, %esi
        movl    $PAGE / 4, %ecx
1:      addl    (%esi), %eax
        roll    $3, %eax
        addl    $4, %esi
        loop    1b
        ret
        .skip   64, 0xcc

checksum:
        call    copy_page                       # sum of a copy that has never been executed
        movl    %eax, %ebx
        call    sum_page
        check   page_sees_its_own_bytes, %ebx
        call    sum_page
        check   sum_is_stable, %ebx
        movl    page_of_sum + PAGE - 4, %edx
        incl    page_of_sum + PAGE - 4
        call    sum_page
        subl    %ebx, %eax
        check   sum_sees_a_write, $8            # 1, rotated by 3 in the last step
        movl    %edx, page_of_sum + PAGE - 4
        ret

copy_page:
        movl    $page_of_sum, %esi
        movl    $buffer, %edi
        movl    $PAGE / 4, %ecx
        rep movsl
        movl    $buffer, %esi
        xorl    %eax, %eax
        movl    $PAGE / 4, %ecx
1:      addl    (%esi), %eax
        roll    $3, %eax
        addl    $4, %esi
        loop    1b
        ret

        page_of_sum     = data_among_code       # sum_page lies on the page that begins there

# --- The same bytes as 32-bit and as 16-bit code ----------------------------------------------------------------------

two_modes:
        segment CODE16, $two_modes_code, $0xffff, PRESENT+CODE
        xorl    %eax, %eax
        lcall   $KCODE, $two_modes_code
        check   bytes_as_32_bit, $0x01eb1234
        xorl    %eax, %eax
        lcall   $CODE16, $0
        check   bytes_as_16_bit, $0x1234
        lcall   $KCODE, $two_modes_code
        check   bytes_as_32_bit_again, $0x01eb1234
        ret

two_modes_code:
        .byte   0xb8, 0x34, 0x12                # 32-bit: mov $0x01eb1234, %eax; lret
        .byte   0xeb, 0x01                      # 16-bit: mov $0x1234, %ax; jmp over the next byte;
        .byte   0xcb
        .byte   0x66, 0xcb                      #         32-bit lret

# --- Frames under several linear addresses ----------------------------------------------------------------------------

.macro map n, frame
        movl    $\frame + P + W, test_pt + 4 * (\n)
        invlpg  T + PAGE * (\n)
.endm

# Calls `mov $imm, %eax; ret` at ADDRESS.
.macro run_at address
        movl    $\address, %edi
        call    *%edi
.endm

aliases:
        movl    $P + W, %eax                    # identity mapping of the low 4 MiB
        xorl    %ecx, %ecx
1:      movl    %eax, low_pt(, %ecx, 4)
        addl    $PAGE, %eax
        incl    %ecx
        cmpl    $1024, %ecx
        jne     1b
        movl    $low_pt + P + W, pd
        movl    $test_pt + P + W, pd + 4
        movl    $pd, %eax
        movl    %eax, %cr3
        movl    $CR0_PE + CR0_NE + CR0_PG, %eax
        movl    %eax, %cr0

        movb    $MOV_EAX, frame_a
        movl    $0x11, frame_a + 1
        movb    $RET, frame_a + 5
        movb    $MOV_EAX, frame_b
        movl    $0x22, frame_b + 1
        movb    $RET, frame_b + 5
        map     0, frame_a
        map     1, frame_a
        map     2, frame_b
        run_at  T
        check   first_alias, $0x11
        run_at  (T+PAGE)
        check   second_alias, $0x11
        movl    $0x33, T + 1                    # written through one, executed through the other
        serialize
        run_at  (T+PAGE)
        check   write_through_alias, $0x33
        movl    $0x44, frame_a + 1              # and through the identity mapping
        serialize
        run_at  T
        check   write_through_identity, $0x44
        map     0, frame_b                      # other code at the same linear address, no write at all
        run_at  T
        check   remapped, $0x22
        map     0, frame_a
        run_at  T
        check   remapped_back, $0x44
        movl    $0, test_pt                     # changed while it is mapped nowhere else
        invlpg  T
        movl    $0x55, frame_a + 1
        map     0, frame_a
        run_at  T
        check   changed_while_unmapped, $0x55
        movl    $0xc3006655, frame_a            # an instruction over two frames that are not adjacent
        movb    $MOV_EAX, frame_b + PAGE - 2
        movb    $0x77, frame_b + PAGE - 1
        map     3, frame_b
        map     4, frame_a
        run_at  (T+4*PAGE-2)
        check   across_unrelated_frames, $0x00665577
        movb    $0x88, frame_a
        serialize
        run_at  (T+4*PAGE-2)
        check   across_frames_second_changes, $0x00668877
        map     4, frame_c                      # the second page of the instruction is mapped elsewhere
        movl    $0xc3000099, frame_c
        serialize
        run_at  (T+4*PAGE-2)
        check   across_frames_remapped, $0x00009977
        movl    $CR0_PE + CR0_NE, %eax
        movl    %eax, %cr0
        ret

        .section .rodata
        .balign 4
patterns:
        .long   0x11121314

        .text
        .balign PAGE
        .skip   PAGE - 3, 0x90
straddle:
        .byte   MOV_EAX                         # 1 + 2 bytes here, 2 on the second page
straddle_imm:
        .long   0
        second_page     = straddle + 3
        ret

        .bss
        .balign 4096
pd:             .skip 4096
low_pt:         .skip 4096
test_pt:        .skip 4096
frame_a:        .skip 4096
frame_b:        .skip 4096
frame_c:        .skip 4096
buffer:         .skip 4096 * 2
