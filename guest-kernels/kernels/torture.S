# Paging torture: executes a script of paging operations and accesses, and compares each outcome with what the script says.
#
# The script is the first Multiboot module. Without one there is nothing to do, and no case. It is made, with the outcomes, by
# the tests (`tests/src/torture`). It is a row of records of 16 bytes:
#
#       0  operation: 8 bits, count: 8 bits, expected error: 16 bits (NO_FAULT: the access must not fault)
#       4  address, or value of a control register
#       8  operand
#       12 expected result: the value of the access, or CR2
#
# The first record is a header: the magic number, then POOL and TABLES, which the script's addresses rest on. One loop executes
# the records in ring 0 and in ring 3: the script must map this kernel, the script and the tables one to one, for users, too. A
# page fault is an outcome of its record like any other. All outcomes go into a hash, also where any outcome is right; it is
# printed at checkpoints, which are the cases:
#
#       mismatch RECORD: got RESULT ERROR
#       hash XXXXXXXX
#       ok records_to_RECORD
#
#       ESI  the record         EBX  the hash          EDI, EAX  address and operand, then EAX, EDX  result and error

        .include "harness.inc"

        MAGIC           = 0x52544e54
        POOL            = 0x800000              # 8 MiB of frames that the script maps
        TABLES          = 0x700000              # 1 MiB for its paging structures
        RESERVED        = 0x1000000             # keeps the module out of both

        BOOT_MODULES    = 1 << 3                # Multiboot 0.6.96, 3.3 Boot information format
        BOOT_MODS_COUNT = 20
        BOOT_MODS_ADDR  = 24
        MSR_EFER        = 0xc0000080
        EFER_NXE        = 1 << 11
        MSR_SYSENTER_CS = 0x174
        MSR_SYSENTER_ESP = 0x175
        MSR_SYSENTER_EIP = 0x176
        RECORD          = 16
        NO_FAULT        = 0xffff
        MOST_MISMATCHES = 20                    # printed for one case

        TO_KERNEL       = 0x41                  # gates that ring 3 may use
        MISMATCH        = 0x42
        CHECKPOINT      = 0x43
        FINISH          = 0x44

.macro set_msr number, value
        movl    $\number, %ecx
        movl    \value, %eax
        xorl    %edx, %edx
        wrmsr
.endm

main:
        testl   %ebx, %ebx
        jz      1f
        testl   $BOOT_MODULES, (%ebx)
        jz      1f
        cmpl    $0, BOOT_MODS_COUNT(%ebx)
        jnz     2f
1:      note    "no script"
        ret
2:      movl    BOOT_MODS_ADDR(%ebx), %esi
        movl    (%esi), %esi
        movl    %esi, script
        check_value script_magic, (%esi), $MAGIC
        check_value script_pool, 4(%esi), $POOL
        check_value script_tables, 8(%esi), $TABLES
        movl    %esp, main_esp
        handle  PF, page_fault
        handle  TO_KERNEL, to_kernel, PRESENT+DPL3+SYS_INT_GATE
        handle  MISMATCH, mismatch, PRESENT+DPL3+SYS_INT_GATE
        handle  CHECKPOINT, checkpoint, PRESENT+DPL3+SYS_INT_GATE
        handle  FINISH, finish, PRESENT+DPL3+SYS_INT_GATE
        set_msr MSR_SYSENTER_CS, $KCODE
        set_msr MSR_SYSENTER_ESP, %esp
        set_msr MSR_SYSENTER_EIP, $to_kernel
        arm     died
        movl    $UDATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $0, mismatches
        xorl    %ebx, %ebx
        jmp     advance

# --- The loop, in ring 0 and in ring 3 --------------------------------------------------------------------------------

# Mixes a register into the hash.
.macro mix reg
        xorl    %\reg, %ebx
        imull   $0x01000193, %ebx
        roll    $13, %ebx
.endm

succeeded:
        movl    $NO_FAULT, %edx
judge:  mix     eax
        mix     edx
        movzwl  2(%esi), %ecx
        cmpl    %ecx, %edx
        jne     wrong
        cmpl    12(%esi), %eax
        jne     wrong
advance:
        addl    $RECORD, %esi
next:   movzbl  (%esi), %edx
        movl    4(%esi), %edi
        movl    8(%esi), %eax
        jmp     *operations(, %edx, 4)
wrong:  int     $MISMATCH
        jmp     advance

        .section .rodata
        .balign 4
operations:
        .long   op_finish, op_to_user, op_to_kernel, op_checkpoint, op_store, op_set, op_fill, op_check
        .long   op_invlpg, op_cr0, op_cr3, op_cr4, op_nxe
        .long   read8, read16, read32, write8, write16, write32, modify32, fetch, movs, push32
        .text

op_finish:
        int     $FINISH
op_to_user:                                     # by SYSEXIT if the count is not 0; back by SYSENTER
        cmpb    $0, 1(%esi)
        jne     1f
        pushl   $UDATA
        pushl   $user_stack_top
        pushl   $EFLAGS_FIXED
        pushl   $UCODE
        pushl   $advance
        iret
1:      movl    $advance, %edx
        movl    $user_stack_top, %ecx
        sysexit
op_to_kernel:
        cmpb    $0, 1(%esi)
        jne     1f
        int     $TO_KERNEL
1:      sysenter
op_checkpoint:
        int     $CHECKPOINT
        jmp     advance
op_store:
        movl    %eax, (%edi)
        jmp     advance
op_set: orl     %eax, (%edi)
        jmp     advance
# Stores as many values as the record's error says: EAX, EAX + result, EAX + 2 * result, ... A count of 0 makes them quadwords.
op_fill:
        movzwl  2(%esi), %ecx
1:      movl    %eax, (%edi)
        addl    $4, %edi
        addl    12(%esi), %eax
        cmpb    $0, 1(%esi)
        jne     2f
        movl    $0, (%edi)
        addl    $4, %edi
2:      decl    %ecx
        jnz     1b
        jmp     advance
# Compares under the mask that the operand is.
op_check:
        movl    %eax, %edx
        movl    (%edi), %eax
        mix     eax
        andl    %edx, %eax
        movl    $NO_FAULT, %edx
        cmpl    12(%esi), %eax
        jne     wrong
        jmp     advance
op_invlpg:
        invlpg  (%edi)
        jmp     advance
op_cr0: movl    %edi, %cr0
        jmp     advance
op_cr3: movl    %edi, %cr3
        jmp     advance
op_cr4: movl    %edi, %cr4
        jmp     advance
op_nxe: movl    $MSR_EFER, %ecx
        rdmsr
        andl    $~EFER_NXE, %eax
        orl     %edi, %eax
        wrmsr
        jmp     advance

read8:  movzbl  (%edi), %eax
        jmp     succeeded
read16: movzwl  (%edi), %eax
        jmp     succeeded
read32: movl    (%edi), %eax
        jmp     succeeded
write8: movb    %al, (%edi)
        jmp     succeeded
write16:
        movw    %ax, (%edi)
        jmp     succeeded
write32:
        movl    %eax, (%edi)
        jmp     succeeded
modify32:
        xaddl   %eax, (%edi)
        jmp     succeeded
fetch:  movl    $succeeded, %ebp                # the code there loads EAX and jumps back
        jmp     *%edi
movs:   movl    %esi, %ebp
        movzbl  1(%ebp), %ecx
        movl    %edi, %esi
        movl    %eax, %edi
move:   rep movsl
        movl    %ebp, %esi
        xorl    %eax, %eax
        jmp     succeeded
push32: movl    %edi, %esp                      # in ring 3 only, where the stack serves nothing else
        pushl   %eax
        jmp     succeeded

# --- Ring 0 -----------------------------------------------------------------------------------------------------------

# The outcome of an access: EAX = CR2, EDX = error code; of `movs`, with the elements left from bit 8 on.
page_fault:
        movl    4(%esp), %edx
        mix     edx
        cmpl    $move, %edx
        popl    %edx
        jne     1f
        mix     esi
        mix     edi
        shll    $8, %ecx
        orl     %ecx, %edx
        movl    %ebp, %esi
1:      movl    %cr2, %eax
        movl    $judge, (%esp)
        iret

to_kernel:
        movl    main_esp, %esp
        jmp     advance

# Prints the outcome in EAX and EDX that is not the expected one.
mismatch:
        pusha
        incl    mismatches
        cmpl    $MOST_MISMATCHES, mismatches
        ja      1f
        movl    $mismatch_text, %ecx
        call    print
        movl    %eax, %ebx
        call    record_number
        call    print_hex
        movl    $got_value_text, %ecx
        call    print
        movl    %ebx, %eax
        call    print_hex
        movb    $' ', %al
        outb    %al, $DEBUG_PORT
        movl    %edx, %eax
        call    print_hex
        movb    $'\n', %al
        outb    %al, $DEBUG_PORT
1:      popa
        iret

# Prints the hash, and reports whether there was a mismatch since the last checkpoint.
checkpoint:
        pusha
        movl    $hash_text, %ecx
        call    print
        movl    %ebx, %eax
        call    print_hex
        movb    $'\n', %al
        outb    %al, $DEBUG_PORT
        call    record_number
        movl    $case_number, %edi
        movl    $8, %ecx
1:      roll    $4, %eax
        movl    %eax, %edx
        andl    $15, %edx
        movb    hex_digits(%edx), %dl
        movb    %dl, (%edi)
        incl    %edi
        loop    1b
        movl    mismatches, %eax
        movl    $0, mismatches
        xorl    %edx, %edx
        movl    $case_name, %ecx
        call    report
        popa
        iret

# Returns the number of the record at ESI in EAX; the header is record 0.
record_number:
        movl    %esi, %eax
        subl    script, %eax
        shrl    $4, %eax
        ret

finish: movl    main_esp, %esp
        ret

# An exception that no record has: it ends the script.
died:   movl    main_esp, %esp
        movl    %esi, %ebx
        call    outcome
        check   unexpected_exception, $NONE << 24
        movl    %ebx, %esi
        call    record_number
        check   unexpected_exception_record, $0
        ret

        .section .rodata
mismatch_text:  .asciz "mismatch "
got_value_text: .asciz ": got "
hash_text:      .asciz "hash "

        .data
case_name:      .ascii "records_to_"
case_number:    .asciz "00000000"

        .bss
        .balign 4
script:         .skip 4
main_esp:       .skip 4
mismatches:     .skip 4
                .skip RESERVED
