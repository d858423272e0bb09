//! [`Policy`]: the system calls of a kind of thread, as data.

mod calls;
mod common;
mod device;
mod machine;

use nix::libc::c_long;

pub(crate) use calls::name_of;
use common::REFUSED;

/// The system calls that a kind of thread may make. Of the others, those in `REFUSED` fail, and the rest end the process.
#[derive(Debug)]
pub struct Policy {
    /// The kind of thread, as messages name it.
    pub thread: &'static str,
    /// The calls that are carried out, in groups.
    pub(crate) allowed: &'static [&'static [Call]],
}

impl Policy {
    /// The calls that are carried out.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = &Call> {
        self.allowed.iter().copied().flatten()
    }

    /// The calls that fail with EPERM.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &Call> {
        let allows = |number| self.allowed().any(|call| call.number == number);
        REFUSED.iter().filter(move |call| !allows(call.number))
    }
}

/// A system call, for some of its arguments or for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    /// The arguments: one of these cases holds, or there is none.
    pub(crate) cases: &'static [&'static [Condition]],
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// The number of the argument, from 0.
    pub(crate) argument: u8,
    pub(crate) test: Test,
}

/// The test of an argument. An argument that is no pointer is compared by its low 32 bits: the kernel takes it as an int.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    /// The argument is this number.
    Is(u32),
    /// The argument has none of these bits.
    Lacks(u32),
    /// The bits of the mask have this value in the argument.
    Has { mask: u32, value: u32 },
    /// The argument is the null pointer.
    IsNull,
    /// The argument is this process's number.
    IsOwnProcess,
}

impl Call {
    /// The call with any arguments.
    const fn any(number: c_long) -> Self {
        Self { number, cases: &[] }
    }

    /// The call if one of `cases` holds: if all conditions of it do.
    const fn only(number: c_long, cases: &'static [&'static [Condition]]) -> Self {
        Self { number, cases }
    }
}

/// The condition that the argument is this number.
const fn is(argument: u8, number: u32) -> Condition {
    let test = Test::Is(number);
    Condition { argument, test }
}

/// The condition that none of `bits` is set in the argument.
const fn lacks(argument: u8, bits: u32) -> Condition {
    let test = Test::Lacks(bits);
    Condition { argument, test }
}

/// The condition that the bits `mask` of the argument are `value`.
const fn has(argument: u8, mask: u32, value: u32) -> Condition {
    let test = Test::Has { mask, value };
    Condition { argument, test }
}

/// The condition that the argument is the null pointer.
const fn is_null(argument: u8) -> Condition {
    let test = Test::IsNull;
    Condition { argument, test }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::libc;

    use super::*;

    const ALL: [&Policy; 7] = [
        &Policy::VCPU,
        &Policy::DISK,
        &Policy::FILES,
        &Policy::NET,
        &Policy::NET_FIXED,
        &Policy::GDB,
        &Policy::STREAMS,
    ];

    /// Each call once in a table: a second row would take part of what the first says back, or be lost.
    #[test]
    fn no_policy_names_a_call_twice() {
        for policy in ALL {
            let mut times = BTreeMap::new();
            for call in policy.allowed().chain(policy.refused()) {
                *times.entry(call.number).or_insert(0) += 1;
            }
            let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "{}: {twice:?}", policy.thread);
        }
    }

    #[test]
    fn every_call_has_a_name() {
        for policy in ALL {
            for call in policy.allowed().chain(policy.refused()) {
                assert_ne!(name_of(call.number), "unknown", "{}", call.number);
            }
        }
    }

    #[test]
    fn nobody_may_execute_trace_or_load() {
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_init_module,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_memfd_create,
            libc::SYS_kill,
            libc::SYS_pkey_mprotect,
            libc::SYS_remap_file_pages,
            libc::SYS_shmat,
        ] {
            for policy in ALL {
                let mut allowed = policy.allowed();
                assert!(
                    allowed.all(|call| call.number != number),
                    "{}: {}",
                    policy.thread,
                    name_of(number)
                );
            }
        }
    }
}
