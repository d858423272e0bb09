//! The real CPU as an engine: a freestanding child process, 32-bit or 64-bit, that runs batches of cases.
//!
//! ```text
//!   parent                          shared file (memfd)                 child (native/runner.c)
//!   ─ write cases ────────────────> template | cases                    maps code and sandbox at the fixed
//!   ─ one byte on stdin ──────────────────────────────────────────────> addresses of `layout`, runs each case,
//!   <──────────────────────────────────────────── one byte on stdout ── writes outcomes and changed doublewords
//!   ─ read outcomes <────────────── outcomes | changes
//! ```
//!
//! A child that dies or does not answer is replaced, and the case it was at is reported.

use super::case::{Case, Outcome, Pointers};
use super::layout::{
    BATCH, CHANGE_SIZE, EXIT, HEADER_COUNT, HEADER_CURRENT, OUT_CHANGES, OUT_FIRST_CHANGE,
    OUT_SIZE, SHARED_CHANGES, SHARED_IN, SHARED_LDT, SHARED_OUT, SHARED_TEMPLATE, shared_size,
};
use super::mode::Mode;
use super::pointers;
use super::toolchain::{self, BuildError};
use super::wire::{self, word};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use thiserror::Error;

/// Longest time one batch may take before the case at hand counts as stuck, in milliseconds.
const BATCH_TIMEOUT_MS: u16 = 20_000;
/// Times that the processor is asked for its pointers to the last x87 instruction, which a switch of tasks may lose.
const PROBES: usize = 8;

/// A reason why the real CPU could not run a batch.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The program could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file or process operation failed.
    #[error("native program: {0}")]
    Io(io::Error),
    /// A system call failed.
    #[error("native program: {0}")]
    System(nix::Error),
    /// The program died or got stuck in the case with this index of the batch.
    #[error("native program lost in case {case} of the batch: {how}")]
    Lost {
        /// Index in the batch.
        case: usize,
        /// The way in which the program ended.
        how: String,
    },
}

impl From<io::Error> for NativeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::Error> for NativeError {
    fn from(error: nix::Error) -> Self {
        Self::System(error)
    }
}

/// The built program; every [`Native`] starts its own process from it.
pub struct Program {
    mode: Mode,
    path: PathBuf,
    _directory: TempDir,
}

impl Program {
    /// Compiles and links the native program for the cases of `mode` in a temporary directory.
    pub fn build(mode: Mode) -> Result<Self, NativeError> {
        let (abi, entry) = if mode.is_64() {
            (
                include_str!("../../native/abi64.h"),
                include_str!("../../native/entry64.S"),
            )
        } else {
            (
                include_str!("../../native/abi32.h"),
                include_str!("../../native/entry32.S"),
            )
        };
        let sources = [
            ("linux.h", include_str!("../../native/linux.h")),
            ("runner.c", include_str!("../../native/runner.c")),
            ("abi.h", abi),
            ("entry.S", entry),
        ];
        let section = format!("-Wl,--section-start=.exit={EXIT:#x}");
        let arguments = ["-o", "runner", "runner.c", "entry.S", &section];
        let directory = toolchain::build(mode, mode.bits(), &sources, &arguments)?;
        Ok(Self {
            mode,
            path: directory.path().join("runner"),
            _directory: directory,
        })
    }
}

/// One child process.
pub struct Native<'p> {
    program: &'p Program,
    shared: File,
    child: Child,
    records_pointers: bool,
}

impl<'p> Native<'p> {
    /// Starts a child.
    pub fn start(program: &'p Program) -> Result<Self, NativeError> {
        let shared = File::from(memfd_create(c"differential", MFdFlags::MFD_CLOEXEC)?);
        shared.set_len(u64::from(shared_size(program.mode)))?;
        let child = spawn(program, &shared)?;
        let mut native = Self {
            program,
            shared,
            child,
            records_pointers: false,
        };
        native.records_pointers = native.probe_pointers()?;
        Ok(native)
    }

    /// Asks the processor whether it records all pointers to the last x87 instruction; those of 64-bit code count as unknown.
    fn probe_pointers(&mut self) -> Result<bool, NativeError> {
        if self.program.mode.is_64() {
            return Ok(false);
        }
        for (case, expected) in pointers::probes() {
            let mut found = false;
            for _ in 0..PROBES {
                found |= pointers::are(&self.run(std::slice::from_ref(&case))?[0], expected);
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the processor records all pointers to the last x87 instruction.
    pub fn records_pointers(&self) -> bool {
        self.records_pointers
    }

    /// Runs up to [`BATCH`] cases that share one template; returns one outcome a case.
    ///
    /// # Errors
    /// [`NativeError::Lost`] if the child died or got stuck; a new child is ready afterwards.
    pub fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, NativeError> {
        assert!(
            (1..=BATCH).contains(&cases.len()),
            "a batch has 1 to {BATCH} cases"
        );
        self.shared
            .write_all_at(cases[0].template.bytes(), u64::from(SHARED_TEMPLATE))?;
        self.shared.write_all_at(
            &wire::user_descriptors(&cases[0].template),
            u64::from(SHARED_LDT),
        )?;
        let records: Vec<u8> = cases.iter().flat_map(wire::case_record).collect();
        self.shared.write_all_at(&records, u64::from(SHARED_IN))?;
        self.shared.write_all_at(
            &(cases.len() as u32).to_le_bytes(),
            u64::from(4 * HEADER_COUNT),
        )?;
        if let Err(how) = self.round_trip() {
            return Err(self.replace_child(how)?);
        }
        self.outcomes(cases.len())
    }

    /// Makes the child run the batch. The error says how the child ended.
    fn round_trip(&mut self) -> Result<(), String> {
        let stdin = self.child.stdin.as_mut().expect("stdin is a pipe");
        stdin.write_all(&[1]).map_err(|error| error.to_string())?;
        let stdout = self.child.stdout.as_mut().expect("stdout is a pipe");
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(BATCH_TIMEOUT_MS)) {
            Ok(0) => return Err("no answer in time".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        stdout
            .read_exact(&mut [0])
            .map_err(|_| "it died".to_owned())
    }

    fn replace_child(&mut self, how: String) -> Result<NativeError, NativeError> {
        self.child.kill()?;
        let status = self.child.wait()?;
        let mut current = [0; 4];
        self.shared
            .read_exact_at(&mut current, u64::from(4 * HEADER_CURRENT))?;
        self.child = spawn(self.program, &self.shared)?;
        Ok(NativeError::Lost {
            case: u32::from_le_bytes(current) as usize,
            how: format!("{how} ({status})"),
        })
    }

    fn outcomes(&self, count: usize) -> Result<Vec<Outcome>, NativeError> {
        let mut records = vec![0; count * OUT_SIZE as usize];
        self.shared
            .read_exact_at(&mut records, u64::from(SHARED_OUT))?;
        let records: Vec<&[u8]> = records.chunks_exact(OUT_SIZE as usize).collect();
        let total = records.last().map_or(0, |last| {
            word(last, OUT_FIRST_CHANGE) + word(last, OUT_CHANGES)
        });
        let mut changes = vec![0; (total * CHANGE_SIZE) as usize];
        self.shared
            .read_exact_at(&mut changes, u64::from(SHARED_CHANGES))?;
        Ok(records
            .into_iter()
            .map(|record| self.outcome(record, &changes))
            .collect())
    }

    /// One outcome from the shared file.
    fn outcome(&self, record: &[u8], changes: &[u8]) -> Outcome {
        let first = (word(record, OUT_FIRST_CHANGE) * CHANGE_SIZE) as usize;
        let bytes = (word(record, OUT_CHANGES) * CHANGE_SIZE) as usize;
        let changes = wire::changes(self.program.mode, &changes[first..][..bytes]);
        let outcome = wire::outcome(record, changes);
        Outcome {
            pointers: match self.records_pointers {
                true => pointers::known(&outcome),
                false => Pointers::Unknown,
            },
            ..outcome
        }
    }
}

impl Drop for Native<'_> {
    fn drop(&mut self) {
        // Closing its stdin ends the child; a child that is stuck needs the signal. Both may find it gone already.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Program, shared: &File) -> Result<Child, NativeError> {
    let child = Command::new(&program.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(shared.try_clone()?))
        .spawn()?;
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::super::case::{Change, Exception, FS, FX_SIZE, PAGE_FAULT, SS, State, Template};
    use super::super::generate::exit_jump;
    use super::super::layout::{
        CODE, FLAT_CODE, FLAT_CODE_64, FLAT_DATA, SANDBOX, SEGMENT_BASE, SEGMENT_LIMITED,
    };
    use super::super::segments::LocalTable;
    use super::*;
    use std::sync::Arc;

    fn registers(of_32_bits: [u32; 8]) -> [u64; 16] {
        let mut all = [0; 16];
        all[..8].copy_from_slice(&of_32_bits.map(u64::from));
        all
    }

    fn case(code: &[u8]) -> Case {
        let mut fx = [0; FX_SIZE];
        fx[0] = 0x7f;
        fx[1] = 0x03;
        fx[24] = 0x80;
        fx[25] = 0x1f;
        let start = State {
            gpr: registers([1, 2, 3, SANDBOX + 0x1010, SANDBOX + 0x6000, 6, 7, 8]),
            cs: FLAT_CODE,
            rip: CODE.into(),
            eflags: 0x202,
            segments: [FLAT_DATA, FLAT_DATA, 0, 0, FLAT_DATA],
            bases: [0; 2],
            fx,
        };
        let sandbox = vec![0; super::super::case::SANDBOX_BYTES];
        let template = Template::new(Mode::Protected, sandbox, LocalTable::default());
        let template = Arc::new(template);
        let mut code = code.to_vec();
        let end = u64::from(CODE) + code.len() as u64;
        code.extend(exit_jump(false, &template, FLAT_CODE, end));
        Case {
            start,
            at: CODE.into(),
            code,
            units: Vec::new(),
            last_code_segment: FLAT_CODE,
            template,
        }
    }

    #[test]
    fn the_real_cpu_reports_registers_memory_and_exceptions() {
        let program = Program::build(Mode::Protected).unwrap();
        let mut native = Native::start(&program).unwrap();
        // add eax, ecx; mov [ebx], eax -- mov eax, [0] -- hlt -- div by zero
        let cases = [
            case(&[0x01, 0xc8, 0x89, 0x03]),
            case(&[0xa1, 0, 0, 0, 0]),
            case(&[0xf4]),
            case(&[0x31, 0xc9, 0xf7, 0xf1]),
        ];
        let outcomes = native.run(&cases).unwrap();
        assert_eq!(outcomes[0].end.gpr[0], 3);
        assert_eq!(outcomes[0].end.rip, u64::from(EXIT));
        assert_eq!(outcomes[0].exception, None);
        assert_eq!(
            outcomes[0].changes,
            [Change {
                address: u64::from(SANDBOX + 0x1010),
                value: 3
            }]
        );
        assert_eq!(
            outcomes[1].exception,
            Some(Exception {
                vector: PAGE_FAULT,
                error: 4,
                address: 0
            })
        );
        assert_eq!(
            outcomes[2].exception,
            Some(Exception {
                vector: 13,
                error: 0,
                address: 0
            })
        );
        assert_eq!(
            outcomes[3].exception,
            Some(Exception {
                vector: 0,
                error: 0,
                address: 0
            })
        );
        assert_eq!(outcomes[3].end.rip, u64::from(CODE + 2));
    }

    /// IRET to a 16-bit stack loads the low half of ESP only. Linux returns to such stacks in a way that keeps the upper half
    /// (arch/x86/kernel/espfix_64.c), so the host's interrupts do not show in cases on 16-bit stacks.
    #[test]
    fn the_kernel_keeps_the_upper_half_of_esp_on_a_16_bit_stack() {
        let mut rng = fastrand::Rng::with_seed(1);
        let segments = LocalTable::random(&mut rng);
        let stack = segments
            .draw(&mut rng, |segment| segment.is_stack() && !segment.big)
            .expect("16-bit data is common");
        // mov eax, 20 (getpid); int 0x80; jmp far EXIT_FAR
        let mut case = case(&[0xb8, 20, 0, 0, 0, 0xcd, 0x80]);
        case.code.truncate(7);
        case.start.segments[SS] = stack;
        case.start.gpr[4] = 0xabcd_1234;
        let sandbox = vec![0; super::super::case::SANDBOX_BYTES];
        case.template = Arc::new(Template::new(Mode::Protected, sandbox, segments));
        let end = u64::from(CODE + 7);
        case.code
            .extend(exit_jump(true, &case.template, FLAT_CODE, end));
        let program = Program::build(Mode::Protected).unwrap();
        let outcomes = Native::start(&program).unwrap().run(&[case]).unwrap();
        assert_eq!(outcomes[0].exception, None);
        assert_eq!(outcomes[0].end.segments[SS], stack);
        assert_eq!(outcomes[0].end.gpr[4], 0xabcd_1234);
    }

    /// The stack pointer may have any value when a case faults, also one that leads into the stack for signals.
    #[test]
    fn the_stack_for_signals_is_used_from_its_end_wherever_the_stack_pointer_is() {
        const INT3: [u8; 1] = [0xcc];
        let starts = [(Mode::Protected, 0x0804_8000), (Mode::Bits64, 0x0040_0000)];
        for (mode, program_start) in starts {
            let cases: Vec<_> = (0..BATCH as u64)
                .map(|number| {
                    let mut case = match mode {
                        Mode::Bits64 => case_64(0, &INT3, 0, 0),
                        _ => case(&INT3),
                    };
                    case.start.gpr[4] = program_start + 512 * number;
                    case
                })
                .collect();
            let program = Program::build(mode).unwrap();
            let outcomes = Native::start(&program).unwrap().run(&cases).unwrap();
            for (case, outcome) in cases.iter().zip(outcomes) {
                assert_eq!(outcome.exception.map(|exception| exception.vector), Some(3));
                assert_eq!(outcome.end.gpr[4], case.start.gpr[4]);
            }
        }
    }

    #[test]
    fn a_stuck_case_is_named_and_the_child_replaced() {
        let program = Program::build(Mode::Protected).unwrap();
        let mut native = Native::start(&program).unwrap();
        // The middle case asks Linux to exit: mov eax, 252; int 0x80.
        let cases = [
            case(&[0x90]),
            case(&[0xb8, 252, 0, 0, 0, 0xcd, 0x80]),
            case(&[0x90]),
        ];
        assert!(matches!(
            native.run(&cases),
            Err(NativeError::Lost { case: 1, .. })
        ));
        assert!(native.run(&cases[..1]).is_ok());
    }

    /// A case of 64-bit code at a place, with RAX and RBX of choice, and FS and GS based in its sandbox.
    fn case_64(place: usize, code: &[u8], rax: u64, rbx: u64) -> Case {
        let mode = Mode::Bits64;
        let base = mode.places()[place];
        let at = base + u64::from(CODE);
        let sandbox = base + u64::from(SANDBOX);
        let mut case = case(&[]);
        let bytes = vec![0x5a; super::super::case::SANDBOX_BYTES * mode.places().len()];
        case.template = Arc::new(Template::new(mode, bytes, LocalTable::default()));
        case.at = at;
        case.code = code.to_vec();
        let end = at + code.len() as u64;
        let jump = exit_jump(false, &case.template, FLAT_CODE_64, end);
        case.code.extend(jump);
        case.last_code_segment = FLAT_CODE_64;
        let start = &mut case.start;
        start.cs = FLAT_CODE_64;
        start.rip = at;
        start.bases = [sandbox + 0x1000, sandbox + 0x2000];
        start.gpr = std::array::from_fn(|index| 0x0101_0101_0101_0101 * index as u64);
        start.gpr[0] = rax;
        start.gpr[3] = rbx;
        start.gpr[4] = sandbox + 0x6000;
        case
    }

    fn run_64(cases: &[Case]) -> Vec<Outcome> {
        let program = Program::build(Mode::Bits64).unwrap();
        Native::start(&program).unwrap().run(cases).unwrap()
    }

    #[test]
    fn the_real_cpu_runs_64_bit_code_at_every_place() {
        for (place, base) in Mode::Bits64.places().iter().enumerate() {
            let sandbox = base + u64::from(SANDBOX);
            let outcomes = run_64(&[
                // mov [rbx], r15; mov rax, fs:[0]; add eax, r8d; mov r14, gs:[8]
                case_64(
                    place,
                    &[
                        0x4c, 0x89, 0x3b, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x44, 0x01,
                        0xc0, 0x65, 0x4c, 0x8b, 0x34, 0x25, 8, 0, 0, 0,
                    ],
                    u64::MAX,
                    sandbox + 0x1010,
                ),
                // movq xmm15, rbx
                case_64(
                    place,
                    &[0x66, 0x4c, 0x0f, 0x6e, 0xfb],
                    0,
                    0x1234_5678_9abc_def0,
                ),
            ]);
            let end = &outcomes[0].end;
            assert_eq!(outcomes[0].exception, None);
            assert_eq!(end.rip, base + u64::from(EXIT));
            assert_eq!(end.cs, FLAT_CODE_64);
            assert_eq!(end.gpr[0], 0x6262_6262);
            assert_eq!(end.gpr[14], 0x5a5a_5a5a_5a5a_5a5a);
            assert_eq!(end.gpr[15], 0x0f0f_0f0f_0f0f_0f0f);
            assert_eq!(end.bases, [sandbox + 0x1000, sandbox + 0x2000]);
            let changed = |address| Change {
                address,
                value: 0x0f0f_0f0f,
            };
            assert_eq!(
                outcomes[0].changes,
                [changed(sandbox + 0x1010), changed(sandbox + 0x1014)]
            );
            let xmm15 = &outcomes[1].end.fx[160 + 15 * 16..][..16];
            assert_eq!(xmm15[..8], 0x1234_5678_9abc_def0_u64.to_le_bytes());
            assert_eq!(xmm15[8..], [0; 8]);
        }
    }

    #[test]
    fn exceptions_of_64_bit_code_are_told_apart() {
        /// mov rax, [rbx]
        const LOAD: [u8; 3] = [0x48, 0x8b, 0x03];
        /// mov rsp, rbx; push rax
        const PUSH: [u8; 4] = [0x48, 0x89, 0xdc, 0x50];
        /// Vector, error code and address.
        type Fault = (u8, u32, u64);
        let expected: [(&[u8], u64, Fault); 12] = [
            (&LOAD, 0x1000, (14, 4, 0x1000)),
            (&LOAD, 0x7fff_ffff_f000, (14, 5, 0x7fff_ffff_f000)),
            (&LOAD, 0x8000_0000_0000, (13, 0, 0)),
            (&LOAD, 0xffff_7fff_ffff_fff0, (13, 0, 0)),
            (&LOAD, 0xffff_8000_0000_0000, (14, 5, 0xffff_8000_0000_0000)),
            (&PUSH, 0x8000_0000_0010, (12, 0, 0)),
            (&PUSH, 0x7fff_ffff_fff0, (14, 7, 0x7fff_ffff_ffe8)),
            // push es; int3; div ebx; hlt; mov [rip], eax
            (&[0x06], 0, (6, 0, 0)),
            (&[0xcc], 0, (3, 0, 0)),
            (&[0xf7, 0xf3], 0, (0, 0, 0)),
            (&[0xf4], 0, (13, 0, 0)),
            (&[0x89, 0x05, 0, 0, 0, 0], 0, (14, 7, u64::from(CODE) + 6)),
        ];
        let cases = expected.map(|(code, rbx, _)| case_64(0, code, 1, rbx));
        for (outcome, (code, rbx, exception)) in run_64(&cases).iter().zip(expected) {
            let found = outcome.exception.expect("an exception");
            let found = (found.vector, found.error, found.address);
            assert_eq!(found, exception, "{code:x?} with {rbx:x}");
        }
    }

    #[test]
    fn segments_of_the_ldt_and_the_gdt_are_there_in_64_bit_mode() {
        // mov fs, ax; mov rbx, fs:[0]
        let code = [0x8e, 0xe0, 0x64, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0];
        let outcomes = run_64(&[
            case_64(2, &code, SEGMENT_LIMITED.into(), 0),
            // mov fs, ax
            case_64(2, &[0x8e, 0xe0], 0, 0),
            case_64(2, &[0x8e, 0xe0], 0x0f, 0),
        ]);
        assert_eq!(outcomes[0].exception, None);
        assert_eq!(outcomes[0].end.bases[0], u64::from(SEGMENT_BASE));
        assert_eq!(outcomes[0].end.segments[FS], SEGMENT_LIMITED);
        assert_eq!(outcomes[0].end.gpr[3], 0x5a5a_5a5a_5a5a_5a5a);
        assert_eq!(outcomes[1].end.segments[FS], 0);
        let exception = outcomes[2].exception.expect("an empty entry");
        assert_eq!((exception.vector, exception.error), (13, 0x0c));
    }
}
