//! [`serialize`]: what lies between writing code through one mapping and executing it through another (SDM Vol. 3A, 8.1.3
//! "Handling Self- and Cross-Modifying Code").

/// Executes IRETQ to the next instruction, which serializes and, unlike CPUID, does not exit to a hypervisor.
pub fn serialize() {
    // SAFETY: the frame returns to label 2 with the present SS, RSP, RFLAGS and CS; RSP is restored by the return, and the
    // red zone is left alone by moving below it first.
    unsafe {
        std::arch::asm!(
            "mov {stack}, rsp",
            "sub rsp, 128",
            "and rsp, -16",
            "mov {word:e}, ss",
            "push {word}",
            "push {stack}",
            "pushfq",
            "mov {word:e}, cs",
            "push {word}",
            "lea {word}, [rip + 2f]",
            "push {word}",
            "iretq",
            "2:",
            stack = out(reg) _,
            word = out(reg) _,
        );
    }
}
