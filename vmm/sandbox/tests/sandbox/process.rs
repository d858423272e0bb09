//! [`attempt`]: an attempt in a process of its own, which is this program once more.

use std::{
    env,
    process::{Command, Output},
};

use nix::errno::Errno;
use sandbox::{Policy, catch_violations, confine};

use crate::attempts;

/// The variable that tells the process what to attempt, and the one that tells it the policy.
const ATTEMPT: &str = "REPLEX_TEST_ATTEMPT";
const POLICY: &str = "REPLEX_TEST_POLICY";

/// The status of a denied call.
const DENIED: u8 = 118;

/// What becomes of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call was carried out.
    Done,
    /// It failed with this error.
    Failed(Errno),
    /// The process was ended, with this message.
    Denied(String),
}

/// All policies, by name.
pub const POLICIES: [(&str, &Policy); 7] = [
    ("vcpu", &Policy::VCPU),
    ("disk", &Policy::DISK),
    ("files", &Policy::FILES),
    ("net", &Policy::NET),
    ("net-fixed", &Policy::NET_FIXED),
    ("gdb", &Policy::GDB),
    ("streams", &Policy::STREAMS),
];

/// Makes an attempt under a policy, or without a sandbox if that is "off".
pub fn attempt(policy: &str, attempt: &str) -> Outcome {
    let this = env::current_exe().unwrap();
    let mut command = Command::new(this);
    command
        .args([
            "--exact",
            "process::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ATTEMPT, attempt)
        .env(POLICY, policy)
        .env("RUST_BACKTRACE", "1");
    outcome(&command.output().unwrap())
}

fn outcome(output: &Output) -> Outcome {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = |start: &str| {
        let mut lines = stderr.lines();
        lines.find_map(|line| Some(line.split_once(start)?.1.to_owned()))
    };
    match output.status.code() {
        Some(0) => match line("attempt: ").as_deref() {
            Some("0") => Outcome::Done,
            Some(errno) => Outcome::Failed(Errno::from_raw(errno.parse().unwrap())),
            None => panic!("no attempt was made: {stderr}"),
        },
        Some(code) if code == DENIED.into() => Outcome::Denied(line("replex: sandbox: ").unwrap()),
        _ => panic!("{}: {stderr}", output.status),
    }
}

/// The process that makes the attempt: without the variables this test has nothing to do.
#[test]
fn child() {
    let (Ok(attempt), Ok(policy)) = (env::var(ATTEMPT), env::var(POLICY)) else {
        return;
    };
    let call = attempts::find(&attempt);
    let policy = POLICIES.iter().find(|(name, _)| **name == policy);
    // The test runner's own threads go on as before.
    let result = std::thread::spawn(move || {
        if let Some((_, policy)) = policy {
            catch_violations(DENIED).unwrap();
            confine(policy).unwrap();
        }
        call()
    })
    .join()
    .unwrap();
    eprintln!("attempt: {}", result.err().map_or(0, |error| error as i32));
}
