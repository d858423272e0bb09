/* See system.h. */
#include "system.h"

arg syscall5(int number, arg a, arg b, arg c, arg d, arg e)
{
	arg result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
		     : "memory", "cc");
	return result;
}

arg map(u32 len)
{
	/* The oldest of the calls takes its six arguments from memory. */
	arg arguments[] = { 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 };

	return syscall3(SYS_MMAP, (arg)arguments, 0, 0);
}

asm(".globl _start\n"
    "_start:\n\t"
    "xor %ebp, %ebp\n\t"
    "mov (%esp), %eax\n\t"
    "lea 4(%esp), %edx\n\t"
    "and $-16, %esp\n\t"
    "sub $8, %esp\n\t"
    "push %edx\n\t"
    "push %eax\n\t"
    "call start");
