//! Boots two machines at once and passes lines between their consoles: one asks, the other computes and answers.
//!
//! `cargo run --release --example two_machines`; `cargo test` runs it, too.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guest_kernels::{Guest, GuestImages, Stage, fetch};
use vmm::{
    BootSource, Kernel, Machine, StopReason, Vm, VmConfig,
    console::{Terminal, pipe},
    loader::{Cache, linux_cmdline},
    tsc::TscMeter,
};

const PROMPT: &str = "root@replex:~# ";
/// A time many times as long as anything here takes on a slow host.
const PATIENCE: Duration = Duration::from_secs(600);

/// Commands for the shell that asks: a question for each number, and the answer it hears.
const ASK: [&str; 2] = [
    r#"ask() { echo "ask: $1"; read a; echo "heard: $1 is $a"; }"#,
    r#"for n in 2 34 567 8901; do ask "$n * $n"; done"#,
];
/// Command for the shell that answers. Input typed before it listens would go to the shell itself.
const ANSWER: &str = r#"echo listening; while read q; do echo "answer: $(($q))"; done"#;
const QUESTIONS: usize = 4;
/// The end of input.
const CTRL_D: &str = "\x04";

fn main() -> Result<()> {
    let images = fetch(Guest::default(), &mut |stage: &Stage| eprintln!("{stage}"))?;
    let heard = converse(&images)?;
    println!("{heard:#?}");
    Ok(())
}

/// Lets two machines converse, prints the conversation, and returns the answers that the asking one has heard.
fn converse(images: &GuestImages) -> Result<Vec<String>> {
    let (mut asking, mut answering) = (Running::boot(images)?, Running::boot(images)?);
    answering.command(ANSWER)?;
    answering.line("listening")?;
    for command in ASK {
        asking.command(command)?;
    }
    let mut heard = Vec::new();
    for _ in 0..QUESTIONS {
        let question = asking.line("ask: ")?;
        println!("first:  what is {question}?");
        answering.enter(&question);
        let answer = answering.line("answer: ")?;
        println!("second: {answer}");
        asking.enter(&answer);
        heard.push(asking.line("heard: ")?);
    }
    answering.terminal.send(CTRL_D);
    asking.power_off()?;
    answering.power_off()?;
    Ok(heard)
}

/// A running machine, and the terminal at its console.
struct Running {
    machine: Machine,
    terminal: Terminal,
}

impl Running {
    /// Starts a machine with Debian's kernel. It boots while others do.
    fn boot(images: &GuestImages) -> Result<Self> {
        let tsc = TscMeter::start();
        let kernel = fs::read(&images.kernel).context("kernel")?;
        let kernel = Kernel::read(kernel, Cache::of_user().as_ref(), &mut |_| ())?;
        let source = BootSource {
            kernel: &kernel,
            initrd: &fs::read(&images.initrd).context("initrd")?,
            cmdline: &linux_cmdline(tsc.khz()),
        };
        let vm = Vm::boot(&VmConfig::default(), &source)?;
        let (line, terminal) = pipe()?;
        let (machine, _) = Machine::start(vm, line)?;
        Ok(Self { machine, terminal })
    }

    /// Types a command once the shell asks for one.
    fn command(&mut self, command: &str) -> Result<()> {
        self.terminal.read_until(PROMPT, PATIENCE)?;
        self.enter(command);
        Ok(())
    }

    /// Types a line.
    fn enter(&self, line: &str) {
        self.terminal.send(format!("{line}\r"));
    }

    /// The rest of the next line that begins so.
    fn line(&mut self, beginning: &str) -> Result<String> {
        loop {
            let line = self.terminal.read_line(PATIENCE)?;
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.to_owned());
            }
        }
    }

    /// Switches the guest off by its own command.
    fn power_off(mut self) -> Result<()> {
        self.command("poweroff -f")?;
        let (_, stop) = self.machine.join()?;
        ensure!(matches!(stop, StopReason::PowerOff), "{stop}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{Write as _, stderr},
    };

    use super::*;

    #[test]
    fn two_machines_converse() -> Result<()> {
        let offline = env::var_os("REPLEX_OFFLINE").is_some_and(|value| value == "1");
        let images = match fetch(Guest::default(), &mut |_: &Stage| ()) {
            Err(error) if offline => {
                // Past the test runner's capture: a skipped test must not look like one that ran.
                let _ = writeln!(stderr(), "skipped, REPLEX_OFFLINE is set: {error}");
                return Ok(());
            }
            images => images?,
        };
        let heard = converse(&images)?;
        assert_eq!(
            heard,
            [
                "2 * 2 is 4",
                "34 * 34 is 1156",
                "567 * 567 is 321489",
                "8901 * 8901 is 79227801"
            ]
        );
        Ok(())
    }
}
