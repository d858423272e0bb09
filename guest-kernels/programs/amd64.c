/* See system.h. */
#include "system.h"

static arg syscall6(int number, arg a, arg b, arg c, arg d, arg e, arg f)
{
	register arg r10 asm("r10") = d;
	register arg r8 asm("r8") = e;
	register arg r9 asm("r9") = f;
	arg result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"((arg)number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory", "cc");
	return result;
}

arg syscall5(int number, arg a, arg b, arg c, arg d, arg e)
{
	return syscall6(number, a, b, c, d, e, 0);
}

arg map(u32 len)
{
	return syscall6(SYS_MMAP, 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

asm(".globl _start\n"
    "_start:\n\t"
    "xor %ebp, %ebp\n\t"
    "mov (%rsp), %edi\n\t"
    "lea 8(%rsp), %rsi\n\t"
    "and $-16, %rsp\n\t"
    "call start");
