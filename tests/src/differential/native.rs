//! The real CPU as an engine: a freestanding 32-bit child process that runs batches of cases.
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

use super::case::{Case, Change, Outcome, Pointers};
use super::layout::{
    BATCH, CHANGE_SIZE, EXIT, HEADER_COUNT, HEADER_CURRENT, OUT_CHANGES, OUT_FIRST_CHANGE,
    OUT_SIZE, SHARED_CHANGES, SHARED_IN, SHARED_LDT, SHARED_OUT, SHARED_SIZE, SHARED_TEMPLATE,
};
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
    /// The 32-bit program could not be built.
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
    path: PathBuf,
    _directory: TempDir,
}

impl Program {
    /// Compiles and links the native program in a temporary directory.
    pub fn build() -> Result<Self, NativeError> {
        let sources = [
            ("linux.h", include_str!("../../native/linux.h")),
            ("runner.c", include_str!("../../native/runner.c")),
            ("entry.S", include_str!("../../native/entry.S")),
        ];
        let section = format!("-Wl,--section-start=.exit={EXIT:#x}");
        let directory =
            toolchain::build(&sources, &["-o", "runner", "runner.c", "entry.S", &section])?;
        Ok(Self {
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
        shared.set_len(u64::from(SHARED_SIZE))?;
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

    /// Asks the processor whether it records all pointers to the last x87 instruction.
    fn probe_pointers(&mut self) -> Result<bool, NativeError> {
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
        let first = word(record, OUT_FIRST_CHANGE) * CHANGE_SIZE;
        let changes = changes[first as usize..]
            [..(word(record, OUT_CHANGES) * CHANGE_SIZE) as usize]
            .chunks_exact(CHANGE_SIZE as usize)
            .map(|change| Change {
                address: word(change, 0),
                value: word(change, 4),
            })
            .collect();
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
    use super::super::case::{Exception, FX_SIZE, PAGE_FAULT, SS, State, Template};
    use super::super::generate::exit_jump;
    use super::super::layout::{CODE, FLAT_CODE, FLAT_DATA, SANDBOX};
    use super::super::segments::LocalTable;
    use super::*;
    use std::sync::Arc;

    fn case(code: &[u8]) -> Case {
        let mut fx = [0; FX_SIZE];
        fx[0] = 0x7f;
        fx[1] = 0x03;
        fx[24] = 0x80;
        fx[25] = 0x1f;
        let start = State {
            gpr: [1, 2, 3, SANDBOX + 0x1010, SANDBOX + 0x6000, 6, 7, 8],
            cs: FLAT_CODE,
            eip: CODE,
            eflags: 0x202,
            segments: [FLAT_DATA, FLAT_DATA, 0, 0, FLAT_DATA],
            fx,
        };
        let sandbox = vec![0; super::super::case::SANDBOX_BYTES];
        let template = Arc::new(Template::new(sandbox, LocalTable::default()));
        let mut code = code.to_vec();
        code.push(0xe9);
        code.extend(
            EXIT.wrapping_sub(CODE + code.len() as u32 + 4)
                .to_le_bytes(),
        );
        Case {
            start,
            at: CODE,
            code,
            units: Vec::new(),
            last_code_segment: FLAT_CODE,
            template,
        }
    }

    #[test]
    fn the_real_cpu_reports_registers_memory_and_exceptions() {
        let program = Program::build().unwrap();
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
        assert_eq!(outcomes[0].end.eip, EXIT);
        assert_eq!(outcomes[0].exception, None);
        assert_eq!(
            outcomes[0].changes,
            [Change {
                address: SANDBOX + 0x1010,
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
        assert_eq!(outcomes[3].end.eip, CODE + 2);
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
        case.code
            .extend(exit_jump(true, &segments, FLAT_CODE, CODE + 7));
        case.start.segments[SS] = stack;
        case.start.gpr[4] = 0xabcd_1234;
        let sandbox = vec![0; super::super::case::SANDBOX_BYTES];
        case.template = Arc::new(Template::new(sandbox, segments));
        let program = Program::build().unwrap();
        let outcomes = Native::start(&program).unwrap().run(&[case]).unwrap();
        assert_eq!(outcomes[0].exception, None);
        assert_eq!(outcomes[0].end.segments[SS], stack);
        assert_eq!(outcomes[0].end.gpr[4], 0xabcd_1234);
    }

    #[test]
    fn a_stuck_case_is_named_and_the_child_replaced() {
        let program = Program::build().unwrap();
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
}
