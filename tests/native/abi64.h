/* What the x86-64 ABI of Linux decides: system calls, the context that a signal saves, the bases of FS and GS. */

/* The saved context (struct ucontext, struct sigcontext_64). */
struct context {
    ulong uc_flags, uc_link, uc_stack[3];
    ulong r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, eip, rflags;
    unsigned short cs, gs, fs, ss;
    ulong err, trapno, oldmask, cr2, fpstate;
};

static long syscall6(int number, ulong a, ulong b, ulong c, ulong d, ulong e, ulong f)
{
    long result;
    register ulong r10 __asm__("r10") = d;
    register ulong r8 __asm__("r8") = e;
    register ulong r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long map_at(ulong address, ulong bytes, int protection, int flags, int fd, ulong offset)
{
    return syscall6(SYS_MMAP, address, bytes, protection, flags, fd, offset);
}

/* Unmaps the stack that the kernel made, and the vDSO: they may lie where cases have a sandbox. */
static void clear_addresses(void)
{
    const ulong from = 0x7f0000000000, end = 0x7ffffffff000;
    if (syscall6(SYS_MUNMAP, from, end - from, 0, 0, 0, 0))
        quit(STATUS_MAP);
}

#define SELECTOR(name)                                            \
    ({                                                            \
        u32 selector;                                             \
        __asm__ volatile("movl %%" name ", %0" : "=r"(selector)); \
        selector & 0xffff;                                        \
    })

static void save_context(const struct context *context, u8 *out)
{
    *general(out, OUT_RAX) = context->rax;
    *general(out, OUT_RCX) = context->rcx;
    *general(out, OUT_RDX) = context->rdx;
    *general(out, OUT_RBX) = context->rbx;
    *general(out, OUT_RSP) = context->rsp;
    *general(out, OUT_RBP) = context->rbp;
    *general(out, OUT_RSI) = context->rsi;
    *general(out, OUT_RDI) = context->rdi;
    *general(out, OUT_R8) = context->r8;
    *general(out, OUT_R9) = context->r9;
    *general(out, OUT_R10) = context->r10;
    *general(out, OUT_R11) = context->r11;
    *general(out, OUT_R12) = context->r12;
    *general(out, OUT_R13) = context->r13;
    *general(out, OUT_R14) = context->r14;
    *general(out, OUT_R15) = context->r15;
    *general(out, OUT_RFLAGS) = context->rflags;
    *general(out, OUT_RIP) = context->eip;
    /* A signal leaves these alone, and so does the code of this program. */
    *word(out, OUT_DS) = SELECTOR("ds");
    *word(out, OUT_ES) = SELECTOR("es");
    *word(out, OUT_FS) = SELECTOR("fs");
    *word(out, OUT_GS) = SELECTOR("gs");
    *word(out, OUT_SS) = context->ss;
    *word(out, OUT_CS) = context->cs;
}

/* Makes the signal return to `target` with flat segments. */
static void return_to(struct context *context, ulong target)
{
    context->ss = FLAT_DATA;
    context->cs = FLAT_CODE_64;
    context->rflags = PLAIN_EFLAGS;
    context->eip = target;
}

/* Loads the bases of FS and GS, and null into both. */
static void prepare_case(u8 *in)
{
    if (syscall3(SYS_ARCH_PRCTL, ARCH_SET_FS, *general(in, IN_FS_BASE), 0) ||
        syscall3(SYS_ARCH_PRCTL, ARCH_SET_GS, *general(in, IN_GS_BASE), 0))
        quit(STATUS_BASE);
}

/* Reads the bases of FS and GS. */
static void finish_case(u8 *out)
{
    if (syscall3(SYS_ARCH_PRCTL, ARCH_GET_FS, (ulong)general(out, OUT_FS_BASE), 0) ||
        syscall3(SYS_ARCH_PRCTL, ARCH_GET_GS, (ulong)general(out, OUT_GS_BASE), 0))
        quit(STATUS_BASE);
}
