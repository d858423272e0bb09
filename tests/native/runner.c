/*
 * The native half of the differential harness: a freestanding program, 32-bit or 64-bit, that executes cases on the real CPU.
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
/* As wide as a general register. */
typedef unsigned long ulong;

struct case_in {
    u8 bytes[IN_SIZE];
};

/* `at` is an offset in the template. */
struct change {
    u32 at, value;
};

struct user_desc {
    u32 entry_number, base, limit, flags;
};

extern void enter_case(const struct case_in *in);
extern void leave_faulted(void);
extern void restore_signal(void);
extern u8 final[OUT_FX];
extern u8 final_fx[512];

static u8 signal_stack[65536] __attribute__((aligned(16)));

static const ulong places[] = { PLACE_BASES };

/* The doubleword at `offset` of a record. */
static u32 *word(u8 *record, u32 offset)
{
    return (u32 *)(record + offset);
}

/* The field for a general register at `offset` of a record: eight bytes, of which a 32-bit program uses four. */
static ulong *general(u8 *record, u32 offset)
{
    return (ulong *)(record + offset);
}

static void copy(void *to, const void *from, ulong bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void fill(void *to, u8 value, ulong bytes)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}

static long syscall3(int number, ulong a, ulong b, ulong c);
static void quit(int status);

#include "abi.h"

static long syscall3(int number, ulong a, ulong b, ulong c)
{
    return syscall6(number, a, b, c, 0, 0, 0);
}

static void quit(int status)
{
    syscall3(SYS_EXIT_GROUP, status, 0, 0);
}

/* Maps `bytes` at exactly `address`; `offset` is that of the shared file, or ANONYMOUS. */
static void map(ulong address, ulong bytes, int protection, u32 offset)
{
    int shared = offset != ANONYMOUS;
    int flags = MAP_FIXED_NOREPLACE | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    ulong got = map_at(address, bytes, protection, flags, shared ? SHARED_FD : -1, shared ? offset : 0);
    if (got != address)
        quit(STATUS_MAP);
}

static void on_signal(int number, void *info, struct context *context)
{
    (void)info;
    save_context(context, final);
    /* The HLT of the exit page is the end of a case, not a fault. */
    u32 ended = context->trapno == GENERAL_PROTECTION && context->eip == EXIT_FAR && *word(final, OUT_CS) == FLAT_CODE;
    *word(final, OUT_SIGNAL) = ended ? 0 : number;
    *word(final, OUT_TRAP) = context->trapno;
    *word(final, OUT_ERROR) = context->err;
    *general(final, OUT_CR2) = context->cr2;
    return_to(context, (ulong)leave_faulted);
}

static void install_handlers(void)
{
    static const u8 signals[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV };
    /* A case may leave a stack pointer into this stack: it is used from its end all the same. */
    ulong stack[3] = { (ulong)signal_stack, SS_AUTODISARM, sizeof signal_stack };
    if (syscall3(SYS_SIGALTSTACK, (ulong)stack, 0, 0))
        quit(STATUS_SIGNAL);
    for (u32 i = 0; i < sizeof signals; i++) {
        ulong action[5] = { (ulong)on_signal, SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER, (ulong)restore_signal, 0, 0 };
        if (syscall6(SYS_RT_SIGACTION, signals[i], (ulong)action, 0, 8, 0, 0))
            quit(STATUS_SIGNAL);
    }
}

/* set_thread_area; this program lies below 4 GiB, and so does what `segment` points at. */
static int set_thread_area(struct user_desc *segment)
{
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(SYS_SET_THREAD_AREA_I386), "b"(segment)
                     : "memory"
#ifdef __x86_64__
                       , "r8", "r9", "r10", "r11"
#endif
    );
    return result;
}

static void install_segments(void)
{
    struct user_desc segments[] = {
        { SEGMENT_LIMITED / 8, SEGMENT_BASE, SEGMENT_LIMITED_LIMIT, USER_DESC_DATA },
        { SEGMENT_DOWN / 8, SEGMENT_BASE, SEGMENT_DOWN_LIMIT, USER_DESC_EXPAND_DOWN },
        { SEGMENT_READ_ONLY / 8, SEGMENT_BASE, SEGMENT_READ_ONLY_LIMIT, USER_DESC_READ_ONLY },
    };
    for (u32 i = 0; i < sizeof segments / sizeof *segments; i++)
        if (set_thread_area(&segments[i]))
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
        if (syscall3(SYS_MODIFY_LDT, LDT_WRITE, (ulong)&entry, sizeof entry))
            quit(STATUS_LDT);
    }
}

/* Offset in the template of a page of the sandbox. */
static u32 page_at(u32 place, u32 page)
{
    return (place * SANDBOX_PAGES + page) * PAGE;
}

static u8 *live_page(u32 place, u32 page)
{
    return (u8 *)(places[place] + SANDBOX + page * PAGE);
}

static const u8 *template_page(u32 place, u32 page)
{
    return (const u8 *)SHARED + SHARED_TEMPLATE + page_at(place, page);
}

/* Appends the doublewords of one writable page that differ from the template, and puts them back. */
static struct change *collect(struct change *next, u32 place, u32 page)
{
    enum { STEP = sizeof(ulong) / 4 };
    u32 *live = (u32 *)live_page(place, page);
    const u32 *original = (const u32 *)template_page(place, page);
    for (u32 i = 0; i < PAGE / 4; i += STEP) {
        if (*(ulong *)&live[i] == *(const ulong *)&original[i])
            continue;
        for (u32 j = i; j < i + STEP; j++)
            if (live[j] != original[j]) {
                next->at = page_at(place, page) + 4 * j;
                next->value = live[j];
                next++;
                live[j] = original[j];
            }
    }
    return next;
}

static void run_case(const struct case_in *in, u8 *out, struct change **next)
{
    struct change *first = *next;
    u8 *code = (u8 *)CODE_ALIAS + *word((u8 *)in, IN_CODE_AT);
    u32 length = *word((u8 *)in, IN_CODE_LENGTH);

    copy(code, (const u8 *)in + IN_CODE, length);
    *word(final, OUT_SIGNAL) = 0;
    prepare_case((u8 *)in);
    enter_case(in);
    finish_case(final);
    fill(code, FILLER, length);
    for (u32 place = 0; place < PLACES; place++)
        for (u32 page = 0; page < SANDBOX_PAGES; page++)
            if (SANDBOX_WRITABLE >> page & 1)
                *next = collect(*next, place, page);
    copy(out, final, OUT_FX);
    copy(out + OUT_FX, final_fx, 512);
    *word(out, OUT_FIRST_CHANGE) = first - (struct change *)(SHARED + SHARED_CHANGES);
    *word(out, OUT_CHANGES) = *next - first;
}

/* Fills the sandbox of a place, and reads what can only be read: a page that was never read has no page-table entry yet, and a
   write would be reported as to a page that is not present. */
static void prepare_place(u32 place)
{
    for (u32 page = 0; page < SANDBOX_PAGES; page++) {
        if (SANDBOX_WRITABLE >> page & 1)
            copy(live_page(place, page), template_page(place, page), PAGE);
        if (SANDBOX_READ_ONLY >> page & 1)
            *(volatile u8 *)live_page(place, page);
    }
    for (u32 at = 0; at < CODE_BYTES; at += PAGE)
        *(volatile u8 *)(places[place] + CODE + at);
}

static void run_batch(void)
{
    volatile u32 *header = (volatile u32 *)SHARED;
    struct change *next = (struct change *)(SHARED + SHARED_CHANGES);
    u32 count = header[HEADER_COUNT];

    for (u32 place = 0; place < PLACES; place++)
        prepare_place(place);
    install_local_segments();
    for (u32 i = 0; i < count; i++) {
        header[HEADER_CURRENT] = i;
        run_case((const struct case_in *)(SHARED + SHARED_IN + i * IN_SIZE), (u8 *)(SHARED + SHARED_OUT + i * OUT_SIZE), &next);
    }
    header[HEADER_CURRENT] = count;
}

/* Maps code, sandbox and exit of a place. The linker has put the exit of the first where it belongs. */
static void map_place(u32 place)
{
    ulong base = places[place];
    map(base + CODE, CODE_BYTES, PROT_READ | PROT_EXEC, SHARED_CODE + place * CODE_BYTES);
    for (u32 page = 0; page < SANDBOX_PAGES; page++) {
        if (SANDBOX_WRITABLE >> page & 1)
            map((ulong)live_page(place, page), PAGE, PROT_READ | PROT_WRITE, ANONYMOUS);
        if (SANDBOX_READ_ONLY >> page & 1)
            map((ulong)live_page(place, page), PAGE, PROT_READ, SHARED_TEMPLATE + page_at(place, page));
    }
    if (place) {
        map(base + EXIT, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, ANONYMOUS);
        copy((void *)(base + EXIT), (const void *)EXIT, EXIT_FAR_OFFSET + 1);
    }
}

void runner_main(void)
{
    clear_addresses();
    map(SHARED, SHARED_SIZE, PROT_READ | PROT_WRITE, 0);
    map(CODE_ALIAS, PLACES * CODE_BYTES, PROT_READ | PROT_WRITE, SHARED_CODE);
    for (u32 place = 0; place < PLACES; place++)
        map_place(place);
    fill((void *)CODE_ALIAS, FILLER, PLACES * CODE_BYTES);
    install_handlers();
    install_segments();

    u8 go;
    while (syscall3(SYS_READ, 0, (ulong)&go, 1) == 1) {
        run_batch();
        syscall3(SYS_WRITE, 1, (ulong)&go, 1);
    }
    quit(0);
}
