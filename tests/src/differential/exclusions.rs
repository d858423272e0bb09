//! The list of what the harness leaves out, with reasons; [`super::forms::never`] lists the instruction forms.

use super::forms::never;
use super::mode::Mode;

/// Something that is left out, and the reason.
pub type Exclusion = (&'static str, &'static str);

/// What is not compared. Between engines only the pointers to the last x87 instruction in FXSAVE images are left out.
pub const NOT_COMPARED: [Exclusion; 14] = [
    (
        "flags undefined after AAA, AAD, AAM, AAS, DAA and DAS, with the real CPU",
        "64-bit hosts do not have these instructions; the engines compute the flags of an AMD processor, others may differ",
    ),
    (
        "RF at the end of a case, with the real CPU",
        "it is that of the way out: a jump on the real CPU, an exception in the engines",
    ),
    (
        "FOP, FIP, FCS, FDP and FDS in FXSAVE images of the case",
        "AMD processors store them for pending exceptions only, the emulator always, as the manual says",
    ),
    (
        "FOP, FCS and FDS after an exception, FIP and FDP if no x87 exception is pending then, with the real CPU",
        "they are not in the signal frame",
    ),
    (
        "all of them in all places, with a real CPU that does not record them",
        "it is asked first",
    ),
    (
        "FOP, FIP and FDP of 64-bit code",
        "the signal frame and FXSAVE64 do not have all of them on AMD processors",
    ),
    (
        "bit P in the error code of page faults at 0x7fff_ffff_f000 and beyond, with the real CPU",
        "Linux reports them as protection violations, whatever is mapped",
    ),
    (
        "MXCSR_MASK in FXSAVE images, with the real CPU",
        "a property of the model",
    ),
    (
        "the exception flags of MXCSR after a SIMD exception of DPPS or DPPD, with the real CPU",
        "it stops at the first multiplication or addition with an unmasked exception, the emulator reports those of all",
    ),
    (
        "which of the faults of its two operands CMPS reports, with the real CPU",
        "the manual does not say; the emulator reports the destination's, the host's answer depends on prefixes",
    ),
    (
        "which fault CALL reports if it can neither push nor go to its target, with the real CPU",
        "AMD processors report the push, the emulator the target, as Intel's manual has it",
    ),
    (
        "eight bytes below the stack pointer after a far CALL that faulted, with the real CPU",
        "AMD processors push before they check the target against the limit, Intel's manual has it the other way round",
    ),
    (
        "DS, ES, FS and GS if they hold 1 to 3 and the real CPU gave two answers, of which the engines' is one",
        "an interrupt of the host loads null; counted as unsteady",
    ),
    (
        "which of the null selectors DS, ES, FS and GS hold after an exception of 64-bit code, with the real CPU",
        "they are not in the signal frame, and IRET to the handler loads 0",
    ),
];

/// What is not generated, apart from the forms that are never generated.
pub const NOT_GENERATED: [Exclusion; 18] = [
    (
        "instructions that consume a flag left undefined by AAA, AAD, AAM, AAS, DAA or DAS",
        "see above: the flag may differ from the real CPU's",
    ),
    (
        "privilege levels other than 3, real-address and virtual-8086 mode",
        "the real CPU runs a process; the kernels of guest-kernels cover them beside QEMU",
    ),
    (
        "gates, TSSs and LDTs as descriptors; DPL below 3; present conforming code",
        "modify_ldt of Linux makes none",
    ),
    (
        "accesses across the end of an expand-up segment of 4 GiB",
        "they may fault or not, and vary from one execution to another (SDM Vol. 3A, 5.3)",
    ),
    (
        "descriptors that are not yet accessed",
        "Linux sets the bit",
    ),
    ("INT 0x80", "enters the host's kernel"),
    (
        "IRET with NT set, in protected mode",
        "returns from a nested task in the engines, and raises #GP in compatibility mode of the host",
    ),
    (
        "operand-size prefixes in front of near branches of 64-bit code",
        "Intel's processors ignore them, AMD's cut RIP to 16 bits",
    ),
    (
        "PAUSE of 64-bit code with more prefixes than 0xf3",
        "with REX.B processors exchange EAX and R8D, and the decoder sees PAUSE",
    ),
    (
        "far transfers between 64-bit code and compatibility mode",
        "cases keep to one width of code",
    ),
    (
        "bases of FS and GS in the upper half of the canonical addresses",
        "arch_prctl of Linux refuses them",
    ),
    (
        "offsets in FS and GS that are not canonical, if the linear address is",
        "AMD's processors raise #GP, Intel's manual checks the linear address",
    ),
    (
        "TF in front of other instructions than NOP",
        "the trap would end the case; those of POPF are covered",
    ),
    (
        "RET imm16 that is no multiple of 4, or of 8 in 64-bit code",
        "where a bad CS and a misaligned outer stack fault, the order is the processor's own",
    ),
    (
        "bit 17 in an image for MXCSR",
        "AMD processors have it (misaligned SSE), the announced model does not",
    ),
    (
        "REPNE and REP in front of LOOPE and LOOPNE",
        "reserved; AMD processors take one for the other",
    ),
    (
        "register forms of BOUND, LES and LDS; UD1 and stores of x87 pointers that run into an unmapped page, the latter also beyond the limit of code",
        "EVEX and VEX to the host; AMD processors give UD1 no ModRM byte; what wipes the pointers must not be lost",
    ),
    (
        "segments that reach memory which one side has mapped and the other has not",
        "bases lie near the sandbox and the code, or so that what lies there is mapped nowhere",
    ),
];

/// Everything that is left out, as text: what is not compared, what is not generated, and the forms that are not, with reasons.
pub fn listing(mode: Mode) -> String {
    let line = |(what, why): &Exclusion| format!("  {what}:\n      {why}\n");
    let mut text = "not compared:\n".to_owned();
    text.extend(NOT_COMPARED.iter().map(line));
    text.push_str("not generated:\n");
    text.extend(NOT_GENERATED.iter().map(line));
    text.push_str("forms not generated:\n");
    for (reason, forms) in never(mode) {
        let names: Vec<String> = forms.iter().map(|form| format!("{form:?}")).collect();
        let shown = match names.as_slice() {
            [first, .., last] if names.len() > 12 => {
                format!("{} forms, from {first} to {last}", names.len())
            }
            names => names.join(", "),
        };
        text.push_str(&format!("  {shown}:\n      {reason}\n"));
    }
    text
}
