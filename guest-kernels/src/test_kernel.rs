//! Our own tiny kernels, each of which checks one area of the processor and prints a verdict for each case.
//!
//! A kernel is a 32-bit ELF file linked at 1 MiB, which also has a Multiboot header. It is entered at its ELF entry in
//! flat protected mode with paging and interrupts off, also if it goes on in 64-bit mode. Besides, it comes linked in low
//! memory and as a ROM. It needs 16 MiB of memory, the 8259A pair, the 8254 with port 0x61, the MC146818A clock, the keyboard
//! controller, the first serial port, and two debug ports:
//!
//! ```text
//! port 0xe9   text: a line for each case, `ok NAME` or `FAIL NAME got=XXXXXXXX want=YYYYYYYY`; other lines are
//!             remarks; the last line is `PASS n/n` or `FAIL m/n`
//! port 0xf4   exit status: 0 if all cases passed, 1 if some failed; then cli, hlt
//! ```

use thiserror::Error;

/// A test kernel, assembled at build time.
#[derive(Clone, Copy, Debug)]
pub struct TestKernel {
    /// The name of its source file, without the suffix.
    pub name: &'static str,
    /// Bits of its widest code: 32, or 64 if it needs a processor that has 64-bit mode.
    pub bits: u32,
    /// The 32-bit ELF image.
    pub elf: &'static [u8],
    /// The 32-bit ELF image linked at 0x10000, of use where the kernel fits into low memory.
    pub low: &'static [u8],
    /// A ROM of 64 KiB, to lie at 0xffff0000, that copies the kernel to 1 MiB and enters it.
    pub rom: &'static [u8],
}

/// Returns all test kernels in the order of their names.
pub fn all() -> &'static [TestKernel] {
    include!(concat!(env!("OUT_DIR"), "/test_kernels.rs"))
}

/// The verdict of a kernel, parsed from its output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The number of cases that ran.
    pub cases: usize,
    /// The failed cases in order.
    pub failures: Vec<Failure>,
}

/// A case that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The name of the case in the kernel's source.
    pub case: String,
    /// The detail `got=XXXXXXXX want=YYYYYYYY`, as printed.
    pub detail: String,
}

/// The reason why an output is not that of a kernel that ran to its end.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum VerdictError {
    /// The kernel did not print its last line; the last line that it printed is given.
    #[error("the kernel stopped before its last line, after {0:?}")]
    Unfinished(String),
    /// The totals of the last line disagree with the lines before it.
    #[error("the kernel counts {printed}, its lines say {counted}")]
    Miscount {
        /// The totals `passed/cases`, as the kernel printed them.
        printed: String,
        /// The totals `passed/cases`, as counted from the lines.
        counted: String,
    },
}

impl Verdict {
    /// Parses the text that a kernel wrote to the debug port.
    pub fn parse(output: &str) -> Result<Self, VerdictError> {
        let unfinished =
            || VerdictError::Unfinished(output.lines().last().unwrap_or_default().to_owned());
        let body = output.strip_suffix('\n').ok_or_else(unfinished)?;
        let (lines, last) = body.rsplit_once('\n').ok_or_else(unfinished)?;
        let printed = totals(last).ok_or_else(unfinished)?;

        let passed = lines.lines().filter(|l| l.starts_with("ok ")).count();
        let failures: Vec<_> = lines.lines().filter_map(failure).collect();
        let cases = passed + failures.len();
        let counted = format!("{passed}/{cases}");
        if printed != counted {
            return Err(VerdictError::Miscount {
                printed: printed.to_owned(),
                counted,
            });
        }
        Ok(Self { cases, failures })
    }
}

/// Returns the totals `passed/cases` of a last line.
fn totals(line: &str) -> Option<&str> {
    let counts = line
        .strip_prefix("PASS ")
        .or_else(|| line.strip_prefix("FAIL "))?;
    let (passed, cases) = counts.split_once('/')?;
    (passed.parse::<usize>().is_ok() && cases.parse::<usize>().is_ok()).then_some(counts)
}

fn failure(line: &str) -> Option<Failure> {
    let (case, detail) = line.strip_prefix("FAIL ")?.split_once(' ')?;
    Some(Failure {
        case: case.to_owned(),
        detail: detail.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_a_32_bit_elf_for_the_80386() {
        assert!(!all().is_empty());
        for kernel in all() {
            assert_eq!(kernel.elf[..5], *b"\x7fELF\x01", "{}", kernel.name);
            assert_eq!(kernel.elf[18..20], [3, 0], "{}: e_machine", kernel.name);
            assert_eq!(kernel.rom.len(), 0x1_0000, "{}", kernel.name);
        }
    }

    #[test]
    fn verdict_counts_cases_and_names_failures() {
        let verdict =
            Verdict::parse("ok a\nFAIL b got=00000001 want=00000002\nremark\nFAIL 1/2\n").unwrap();
        assert_eq!(verdict.cases, 2);
        assert_eq!(
            verdict.failures,
            [Failure {
                case: "b".to_owned(),
                detail: "got=00000001 want=00000002".to_owned()
            }]
        );
    }

    #[test]
    fn unfinished_output_is_an_error() {
        for output in [
            "",
            "ok a\n",
            "ok a\nPASS 1/",
            "ok a\nPASS 1/1",
            "FAIL a got=0 want=1\n",
        ] {
            assert!(
                matches!(Verdict::parse(output), Err(VerdictError::Unfinished(_))),
                "{output:?}"
            );
        }
    }

    #[test]
    fn totals_must_agree_with_the_lines() {
        assert!(matches!(
            Verdict::parse("ok a\nPASS 2/2\n"),
            Err(VerdictError::Miscount { .. })
        ));
    }
}
