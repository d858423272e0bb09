//! The system calls of each kind of thread.

use nix::errno::Errno;

use crate::process::{Outcome, POLICIES, attempt};

const EVERYTHING: [&str; 20] = [
    "socket",
    "socket-udp6",
    "socket-unix",
    "socket-netlink",
    "open",
    "open-to-write",
    "execve",
    "fork",
    "thread",
    "kill",
    "tgkill",
    "ptrace",
    "memfd",
    "map",
    "map-executable",
    "protect-executable",
    "make-pipe-node",
    "type-on-terminal",
    "allocate",
    "sleep",
];

/// What every thread does.
const ALL: [&str; 5] = ["tgkill", "map", "allocate", "sleep", "panic"];

/// What no thread does, and the calls by which it would.
const NONE: [(&str, &str); 9] = [
    ("socket-unix", "41 (socket)"),
    ("socket-netlink", "41 (socket)"),
    ("execve", "59 (execve)"),
    ("kill", "62 (kill)"),
    ("ptrace", "101 (ptrace)"),
    ("memfd", "319 (memfd_create)"),
    ("map-executable", "9 (mmap)"),
    ("protect-executable", "10 (mprotect)"),
    ("type-on-terminal", "16 (ioctl)"),
];

#[test]
fn without_a_sandbox_everything_is_done() {
    for call in EVERYTHING {
        // A host may have no IPv6.
        let outcome = attempt("off", call);
        let lacks = outcome == Outcome::Failed(Errno::EAFNOSUPPORT) && call == "socket-udp6";
        assert!(outcome == Outcome::Done || lacks, "{call}: {outcome:?}");
    }
}

#[test]
fn every_thread_allocates_sleeps_and_panics() {
    for (policy, _) in POLICIES {
        for call in ALL {
            assert_eq!(attempt(policy, call), Outcome::Done, "{policy}: {call}");
        }
    }
}

#[test]
fn no_thread_executes_forks_traces_or_makes_memory_executable() {
    for (name, policy) in POLICIES {
        for (call, by) in NONE {
            let Outcome::Denied(message) = attempt(name, call) else {
                panic!("{name}: {call} was not denied");
            };
            let expected = format!("system call {by} denied to the thread {}; ", policy.thread);
            assert!(message.starts_with(&expected), "{message}");
        }
        for call in ["fork", "thread"] {
            assert_eq!(
                attempt(name, call),
                Outcome::Failed(Errno::EPERM),
                "{name}: {call}"
            );
        }
    }
}

#[test]
fn only_the_network_has_sockets() {
    for (policy, _) in POLICIES {
        let is_net = policy.starts_with("net");
        for call in ["socket", "socket-udp6"] {
            match attempt(policy, call) {
                Outcome::Done | Outcome::Failed(Errno::EAFNOSUPPORT) => assert!(is_net, "{policy}"),
                Outcome::Denied(_) => assert!(!is_net, "{policy}"),
                outcome => panic!("{policy}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn only_shared_directories_and_resolvers_are_opened_and_only_the_first_are_written() {
    let eperm = Outcome::Failed(Errno::EPERM);
    for (policy, _) in POLICIES {
        let (reads, writes) = (attempt(policy, "open"), attempt(policy, "open-to-write"));
        match policy {
            "files" => assert_eq!((reads, writes), (Outcome::Done, Outcome::Done)),
            "net" => {
                assert_eq!(reads, Outcome::Done);
                assert!(matches!(writes, Outcome::Denied(_)), "{writes:?}");
            }
            _ => assert_eq!((reads, writes), (eperm.clone(), eperm.clone()), "{policy}"),
        }
        let nodes = attempt(policy, "make-pipe-node");
        match policy {
            "files" => assert_eq!(nodes, Outcome::Done),
            _ => assert!(matches!(nodes, Outcome::Denied(_)), "{policy}: {nodes:?}"),
        }
    }
}
