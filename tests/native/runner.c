/*
 * The native half of the differential harness: a freestanding 32-bit program that executes cases on the real CPU.
 *
 * File descriptors: 0 receives one byte for every batch to run, 1 gets one byte back when the batch is through, 2 is the
 * shared file with the cases and the outcomes (layout.h). The program makes raw system calls only and links nothing.
 *
 * A case that takes an exception is recorded by the signal handler from the frame that the kernel saved, the handler then
 * resumes at `leave_faulted`. Data pages are put back to the template of the batch after each case; the doublewords that
 * differed are the memory part of the outcome.
 */
#include "layout.h"
#include "linux.h"

typedef unsigned int u32;
typedef unsigned char u8;

struct case_in {
    u8 bytes[IN_SIZE];
};

struct change {
    u32 address, value;
};

/* The saved context as the i386 ABI of Linux lays it out (struct ucontext_ia32, struct sigcontext_32). */
struct context {
    u32 uc_flags, uc_link, uc_stack[3];
    u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 trapno, err, eip, cs, eflags, esp_at_signal, ss, fpstate, oldmask, cr2;
};

struct user_desc {
    u32 entry_number, base, limit, flags;
};

extern void enter_case(const struct case_in *in);
extern void leave_faulted(void);
extern void restore_signal(void);
extern u8 final[OUT_FX];
extern u8 final_fx[512];
/* What FNSTENV stored where a case came to its end. */
extern u8 final_environment[28];

static u8 signal_stack[65536] __attribute__((aligned(16)));

static int syscall6(int number, u32 a, u32 b, u32 c, u32 d, u32 e, u32 f)
{
    int result;
    u32 args[2] = { number, f };
    /* EBP carries the sixth argument and cannot be named as an operand. */
    __asm__ volatile("pushl %%ebp; movl 4(%%eax), %%ebp; movl (%%eax), %%eax; int $0x80; popl %%ebp"
                     : "=a"(result)
                     : "a"(args), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

static int syscall3(int number, u32 a, u32 b, u32 c)
{
    return syscall6(number, a, b, c, 0, 0, 0);
}

static void quit(int status)
{
    syscall3(SYS_EXIT_GROUP, status, 0, 0);
}

static u32 *word(u8 *record, u32 offset)
{
    return (u32 *)(record + offset);
}

static void copy(void *to, const void *from, u32 bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void fill(void *to, u8 value, u32 bytes)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}

/* Maps `bytes` at exactly `address`; `offset` is that of the shared file, or ANONYMOUS. */
static void map(u32 address, u32 bytes, u32 protection, u32 offset)
{
    u32 shared = offset != ANONYMOUS;
    u32 flags = MAP_FIXED_NOREPLACE | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    u32 got = syscall6(SYS_MMAP2, address, bytes, protection, flags, shared ? SHARED_FD : -1, shared ? offset / PAGE : 0);
    if (got != address)
        quit(STATUS_MAP);
}

static void on_signal(int number, void *info, struct context *context)
{
    (void)info;
    *word(final, OUT_EAX) = context->eax;
    *word(final, OUT_ECX) = context->ecx;
    *word(final, OUT_EDX) = context->edx;
    *word(final, OUT_EBX) = context->ebx;
    *word(final, OUT_ESP) = context->esp_at_signal;
    *word(final, OUT_EBP) = context->ebp;
    *word(final, OUT_ESI) = context->esi;
    *word(final, OUT_EDI) = context->edi;
    *word(final, OUT_EFLAGS) = context->eflags;
    *word(final, OUT_EIP) = context->eip;
    *word(final, OUT_DS) = context->ds & 0xffff;
    *word(final, OUT_ES) = context->es & 0xffff;
    *word(final, OUT_FS) = context->fs & 0xffff;
    *word(final, OUT_GS) = context->gs & 0xffff;
    *word(final, OUT_SS) = context->ss & 0xffff;
    *word(final, OUT_CS) = context->cs & 0xffff;
    /* The HLT of the exit page is the end of a case, not a fault. */
    u32 ended = context->trapno == GENERAL_PROTECTION && context->eip == EXIT_FAR && *word(final, OUT_CS) == FLAT_CODE;
    *word(final, OUT_SIGNAL) = ended ? 0 : number;
    *word(final, OUT_TRAP) = context->trapno;
    *word(final, OUT_ERROR) = context->err;
    *word(final, OUT_CR2) = context->cr2;
    context->ds = context->es = context->ss = FLAT_DATA;
    context->fs = context->gs = 0;
    context->cs = FLAT_CODE;
    context->eflags = PLAIN_EFLAGS;
    context->eip = (u32)leave_faulted;
}

static void install_handlers(void)
{
    static const u8 signals[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV };
    u32 stack[3] = { (u32)signal_stack, 0, sizeof signal_stack };
    syscall3(SYS_SIGALTSTACK, (u32)stack, 0, 0);
    for (u32 i = 0; i < sizeof signals; i++) {
        u32 action[5] = { (u32)on_signal, SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER, (u32)restore_signal, 0, 0 };
        if (syscall6(SYS_RT_SIGACTION, signals[i], (u32)action, 0, 8, 0, 0))
            quit(STATUS_SIGNAL);
    }
}

static void install_segments(void)
{
    struct user_desc segments[] = {
        { SEGMENT_LIMITED / 8, SEGMENT_BASE, SEGMENT_LIMITED_LIMIT, USER_DESC_DATA },
        { SEGMENT_DOWN / 8, SEGMENT_BASE, SEGMENT_DOWN_LIMIT, USER_DESC_EXPAND_DOWN },
        { SEGMENT_READ_ONLY / 8, SEGMENT_BASE, SEGMENT_READ_ONLY_LIMIT, USER_DESC_READ_ONLY },
    };
    for (u32 i = 0; i < sizeof segments / sizeof *segments; i++)
        if (syscall3(SYS_SET_THREAD_AREA, (u32)&segments[i], 0, 0))
            quit(STATUS_SEGMENT);
}

/* Makes the LDT the one of the batch. Entries that are the same are left alone: each change costs a new table. */
static void install_local_segments(void)
{
    static struct user_desc installed[LDT_ENTRIES];
    const struct user_desc *wanted = (const struct user_desc *)(SHARED + SHARED_LDT);
    for (u32 i = 0; i < LDT_ENTRIES; i++) {
        if (installed[i].base == wanted[i].base && installed[i].limit == wanted[i].limit && installed[i].flags == wanted[i].flags)
            continue;
        installed[i] = wanted[i];
        struct user_desc entry = wanted[i];
        entry.entry_number = i;
        if (!entry.base && !entry.limit && !entry.flags)
            entry.flags = USER_DESC_EMPTY;
        if (syscall3(SYS_MODIFY_LDT, LDT_WRITE, (u32)&entry, sizeof entry))
            quit(STATUS_LDT);
    }
}

/* Appends the doublewords of one writable page that differ from the template, and puts them back. */
static struct change *collect(struct change *next, u32 page)
{
    u32 *live = (u32 *)(SANDBOX + page * PAGE);
    const u32 *original = (const u32 *)(SHARED + SHARED_TEMPLATE + page * PAGE);
    for (u32 i = 0; i < PAGE / 4; i++)
        if (live[i] != original[i]) {
            next->address = (u32)&live[i];
            next->value = live[i];
            next++;
            live[i] = original[i];
        }
    return next;
}

/* Replaces the pointers to the last x87 instruction in the FXSAVE image by those of the environment. */
static void take_pointers(void)
{
    copy(final_fx + 6, final_environment + 18, 2);
    copy(final_fx + 8, final_environment + 12, 4);
    copy(final_fx + 12, final_environment + 16, 2);
    copy(final_fx + 16, final_environment + 20, 4);
    copy(final_fx + 20, final_environment + 24, 2);
}

static void run_case(const struct case_in *in, u8 *out, struct change **next)
{
    struct change *first = *next;
    u8 *code = (u8 *)CODE_ALIAS + (*word((u8 *)in, IN_CODE_AT) - CODE);
    u32 length = *word((u8 *)in, IN_CODE_LENGTH);

    copy(code, (const u8 *)in + IN_CODE, length);
    *word(final, OUT_SIGNAL) = 0;
    enter_case(in);
    if (*word(final, OUT_SIGNAL) == 0 && *word(final, OUT_EIP) != EXIT_FAR)
        take_pointers();
    fill(code, FILLER, length);
    for (u32 page = 0; page < SANDBOX_PAGES; page++)
        if (SANDBOX_WRITABLE >> page & 1)
            *next = collect(*next, page);
    copy(out, final, OUT_FX);
    copy(out + OUT_FX, final_fx, 512);
    *word(out, OUT_FIRST_CHANGE) = first - (struct change *)(SHARED + SHARED_CHANGES);
    *word(out, OUT_CHANGES) = *next - first;
}

/* A page that was never read has no page-table entry yet: a write would be reported as to a page that is not present. */
static void touch_read_only_pages(void)
{
    for (u32 page = 0; page < SANDBOX_PAGES; page++)
        if (SANDBOX_READ_ONLY >> page & 1)
            *(volatile u8 *)(SANDBOX + page * PAGE);
    for (u32 at = 0; at < CODE_BYTES; at += PAGE)
        *(volatile u8 *)(CODE + at);
}

static void run_batch(void)
{
    volatile u32 *header = (volatile u32 *)SHARED;
    struct change *next = (struct change *)(SHARED + SHARED_CHANGES);
    u32 count = header[HEADER_COUNT];

    for (u32 page = 0; page < SANDBOX_PAGES; page++)
        if (SANDBOX_WRITABLE >> page & 1)
            copy((void *)(SANDBOX + page * PAGE), (const void *)(SHARED + SHARED_TEMPLATE + page * PAGE), PAGE);
    touch_read_only_pages();
    install_local_segments();
    for (u32 i = 0; i < count; i++) {
        header[HEADER_CURRENT] = i;
        run_case((const struct case_in *)(SHARED + SHARED_IN + i * IN_SIZE), (u8 *)(SHARED + SHARED_OUT + i * OUT_SIZE), &next);
    }
    header[HEADER_CURRENT] = count;
}

void runner_main(void)
{
    map(SHARED, SHARED_SIZE, PROT_READ | PROT_WRITE, 0);
    map(CODE_ALIAS, CODE_BYTES, PROT_READ | PROT_WRITE, SHARED_CODE);
    map(CODE, CODE_BYTES, PROT_READ | PROT_EXEC, SHARED_CODE);
    for (u32 page = 0; page < SANDBOX_PAGES; page++) {
        if (SANDBOX_WRITABLE >> page & 1)
            map(SANDBOX + page * PAGE, PAGE, PROT_READ | PROT_WRITE, ANONYMOUS);
        if (SANDBOX_READ_ONLY >> page & 1)
            map(SANDBOX + page * PAGE, PAGE, PROT_READ, SHARED_TEMPLATE + page * PAGE);
    }
    fill((void *)CODE_ALIAS, FILLER, CODE_BYTES);
    install_handlers();
    install_segments();

    u8 go;
    while (syscall3(SYS_READ, 0, (u32)&go, 1) == 1) {
        run_batch();
        syscall3(SYS_WRITE, 1, (u32)&go, 1);
    }
    quit(0);
}
