//! [`confine`]: a policy as filters of system calls (Linux, Documentation/userspace-api/seccomp_filter.rst).
//!
//! A filter has one verdict for the calls that it lists and one for all others, and of several filters the strictest verdict
//! counts. So there are two:
//!
//! | filter | calls that are allowed | calls that are refused | all others |
//! |---|---|---|---|
//! | outer | allow | allow | SIGSYS |
//! | inner | allow | EPERM | allow |

use std::{collections::BTreeMap, io, process};

use nix::{
    errno::Errno,
    libc::{self, c_ulong},
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use thiserror::Error;

use crate::{
    policy::{Call, Condition, Policy, Test},
    violation,
};

/// The error of confining a thread.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The host has no seccomp filters, or refuses them.
    #[error("seccomp: {0}")]
    Host(io::Error),
    /// A policy makes no filter, which is a fault of this crate.
    #[error("filter of system calls")]
    Filter(#[from] BackendError),
}

/// Leaves the calling thread, for ever, the system calls of `policy`, and takes from it the rights that set-user-ID programs
/// would give. A thread can be confined again, further.
///
/// # Errors
/// See [`ConfineError`]. The thread is then confined in part at most.
pub fn confine(policy: &Policy) -> Result<(), ConfineError> {
    let refused = filter(policy.refused(), SeccompAction::Allow, EPERM)?;
    let rest = policy.allowed().chain(policy.refused());
    let rest = filter(rest, SeccompAction::Trap, SeccompAction::Allow)?;
    keep_privileges_from_growing()?;
    // Whoever is stopped tells who it was.
    violation::name_thread(policy.thread);
    // seccomp(2) itself is not allowed by the outer filter.
    install(&refused)?;
    install(&rest)
}

const EPERM: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// Makes a filter that gives `matched` for `calls` and `other` for all others.
fn filter<'a>(
    calls: impl Iterator<Item = &'a Call>,
    other: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let rules: Result<BTreeMap<_, _>, _> =
        calls.map(|call| Ok((call.number, rules(call)?))).collect();
    // The calls of other architectures, which have other numbers, kill the process.
    let filter = SeccompFilter::new(rules?, other, matched, TargetArch::x86_64)?;
    filter.try_into()
}

/// A rule for each case of the arguments; none stand for all arguments.
fn rules(call: &Call) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |case: &&[Condition]| {
        let conditions: Result<_, _> = case.iter().map(condition).collect();
        SeccompRule::new(conditions?)
    };
    call.cases.iter().map(rule).collect()
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let (length, operator, value) = match condition.test {
        Test::Is(number) => (Dword, Eq, number.into()),
        Test::Lacks(bits) => (Dword, MaskedEq(bits.into()), 0),
        Test::Has { mask, value } => (Dword, MaskedEq(mask.into()), value.into()),
        Test::IsNull => (Qword, Eq, 0),
        Test::IsOwnProcess => (Dword, Eq, process::id().into()),
    };
    SeccompCondition::new(condition.argument, length, operator, value)
}

/// Sets NO_NEW_PRIVS, without which only root may install filters.
fn keep_privileges_from_growing() -> Result<(), ConfineError> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| ConfineError::Host(error.into()))
}

/// Installs a filter for the calling thread.
///
/// The library has a function for this, too, by which kernels before 5.16 would also forbid the processor to let loads pass
/// stores speculatively (SSBD), which slows down everything that the thread executes. Guest code is as little isolated from the
/// process's memory by that as without a sandbox, so it is left alone.
fn install(program: &[sock_filter]) -> Result<(), ConfineError> {
    let flags: c_ulong = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let installed = match seccomp(flags, program) {
        // A kernel before 4.17 does not know the flag.
        Err(Errno::EINVAL) => seccomp(0, program),
        result => result,
    };
    installed.map_err(|error| ConfineError::Host(error.into()))
}

fn seccomp(flags: c_ulong, program: &[sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The kernel only reads it; the types are the same structure of <linux/filter.h>.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: seccomp(2) reads the program, which lives until the call returns, and changes no memory of this process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}
