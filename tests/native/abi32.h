/* What the i386 ABI of Linux decides: system calls and the context that a signal saves. */

/* The saved context (struct ucontext_ia32, struct sigcontext_32). */
struct context {
    u32 uc_flags, uc_link, uc_stack[3];
    u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 trapno, err, eip, cs, eflags, esp_at_signal, ss, fpstate, oldmask, cr2;
};

static long syscall6(int number, ulong a, ulong b, ulong c, ulong d, ulong e, ulong f)
{
    long result;
    ulong args[2] = { number, f };
    /* EBP carries the sixth argument and cannot be named as an operand. */
    __asm__ volatile("pushl %%ebp; movl 4(%%eax), %%ebp; movl (%%eax), %%eax; int $0x80; popl %%ebp"
                     : "=a"(result)
                     : "a"(args), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

/* mmap; `offset` is in bytes. */
static long map_at(ulong address, ulong bytes, int protection, int flags, int fd, ulong offset)
{
    return syscall6(SYS_MMAP2, address, bytes, protection, flags, fd, offset / PAGE);
}

/* The process has nothing near the places of the cases. */
static void clear_addresses(void)
{
}

static void save_context(const struct context *context, u8 *out)
{
    *general(out, OUT_RAX) = context->eax;
    *general(out, OUT_RCX) = context->ecx;
    *general(out, OUT_RDX) = context->edx;
    *general(out, OUT_RBX) = context->ebx;
    *general(out, OUT_RSP) = context->esp_at_signal;
    *general(out, OUT_RBP) = context->ebp;
    *general(out, OUT_RSI) = context->esi;
    *general(out, OUT_RDI) = context->edi;
    *general(out, OUT_RFLAGS) = context->eflags;
    *general(out, OUT_RIP) = context->eip;
    *word(out, OUT_DS) = context->ds & 0xffff;
    *word(out, OUT_ES) = context->es & 0xffff;
    *word(out, OUT_FS) = context->fs & 0xffff;
    *word(out, OUT_GS) = context->gs & 0xffff;
    *word(out, OUT_SS) = context->ss & 0xffff;
    *word(out, OUT_CS) = context->cs & 0xffff;
}

/* Makes the signal return to `target` with flat segments. */
static void return_to(struct context *context, ulong target)
{
    context->ds = context->es = context->ss = FLAT_DATA;
    context->fs = context->gs = 0;
    context->cs = FLAT_CODE;
    context->eflags = PLAIN_EFLAGS;
    context->eip = target;
}

/* What FNSTENV stored where a case came to its end. */
extern u8 final_environment[28];

/* Replaces the pointers to the last x87 instruction in the FXSAVE image by those of the environment. */
static void take_pointers(void)
{
    copy(final_fx + 6, final_environment + 18, 2);
    copy(final_fx + 8, final_environment + 12, 4);
    copy(final_fx + 12, final_environment + 16, 2);
    copy(final_fx + 16, final_environment + 20, 4);
    copy(final_fx + 20, final_environment + 24, 2);
}

static void prepare_case(u8 *in)
{
    (void)in;
}

static void finish_case(u8 *out)
{
    if (*word(out, OUT_SIGNAL) == 0 && *general(out, OUT_RIP) != EXIT_FAR)
        take_pointers();
}
