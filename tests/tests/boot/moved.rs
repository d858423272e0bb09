//! A machine that is moved into another process in the middle of a boot goes on there.
//!
//! ```text
//!   this process                                  the same program, started for it
//!   boot ─► random moment ─► state ── file ─────► restore ─► "echo moved $((6*7))" ─► "moved 42"
//!                            memory ─ stdin ────►
//! ```
//!
//! Each move is made from one engine to one, all four pairs in turn, with 32-bit kernels and with a 64-bit one. By hand, many
//! moments of each:
//!
//! ```text
//! REPLEX_MOVES=200 cargo test --release -p tests --test boot -- moved --nocapture
//! ```

use std::{
    env, fs,
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guest_kernels::{Architecture, Guest, Stage, fetch};
use tests::hang::{Guarded, PATIENCE};
use vmm::{
    BootSource, CpuModel, Engine, Kernel, Machine, StopReason, VcpuConfig, Vm, VmConfig, VmState,
    console::{Terminal, pipe},
    loader::{Cache, linux_cmdline},
    tsc::TscMeter,
};

use crate::guests;

/// The environment variable with the number of moves.
const MOVES: &str = "REPLEX_MOVES";
/// Tells the process that a machine is moved into from the one that runs the test: the file with the state, the guest, and the
/// engine.
const STATE: &str = "REPLEX_TEST_STATE";
const GUEST: &str = "REPLEX_TEST_GUEST";
const ENGINE: &str = "REPLEX_TEST_ENGINE";
/// The name of the test that goes on with a machine in the process that it is moved into.
const TEST: &str = "moved::a_machine_that_arrives_goes_on";

const COMMAND: &str = "echo moved $((6*7)); poweroff -f\r";
const ANSWER: &str = "moved 42";
const PROMPT: &str = "/ # ";

const PAIRS: [[Engine; 2]; 4] = [
    [Engine::Translator, Engine::Translator],
    [Engine::Translator, Engine::Emulator],
    [Engine::Emulator, Engine::Translator],
    [Engine::Emulator, Engine::Emulator],
];

fn config(guest: Guest, engine: Engine) -> VmConfig {
    let (model, mebibytes) = match guest.architecture() {
        Architecture::I386 => (CpuModel::default(), 64),
        Architecture::Amd64 => (CpuModel::X86_64, 128),
    };
    VmConfig {
        memory: mebibytes << 20,
        vcpu: VcpuConfig {
            model,
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    }
}

/// Instructions of a boot to the shell's prompt, about.
fn instructions(guest: Guest) -> f64 {
    match guest.architecture() {
        Architecture::I386 => 300e6,
        Architecture::Amd64 => 500e6,
    }
}

/// A machine that is about to boot a Debian kernel.
fn boot(guest: Guest, engine: Engine) -> Vm {
    let images = fetch(guest, &mut |_: &Stage| ()).unwrap();
    let tsc = TscMeter::start();
    let kernel = fs::read(&images.kernel).unwrap();
    let kernel = Kernel::read(kernel, Cache::of_user().as_ref(), &mut |_| ()).unwrap();
    let source = BootSource {
        kernel: &kernel,
        initrd: &fs::read(&images.initrd).unwrap(),
        cmdline: &linux_cmdline(tsc.khz()),
    };
    Vm::boot(&config(guest, engine), &source).unwrap()
}

/// A moment of a boot.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The time since the machine was switched on.
    Time(Duration),
    /// The number of instructions that the emulator has executed.
    Instructions(u64),
}

impl Moment {
    /// A moment of a boot by `engine`; by the translator it takes `longest`.
    fn random(engine: Engine, guest: Guest, longest: Duration) -> Self {
        let part = fastrand::f64();
        match engine {
            Engine::Translator => Self::Time(longest.mul_f64(part)),
            Engine::Emulator => Self::Instructions((instructions(guest) * part) as u64),
        }
    }

    /// Waits for the moment, or for the shell's prompt if an emulated boot comes to that before.
    fn wait(self, machine: &Machine, terminal: &mut Terminal) {
        match self {
            Self::Time(time) => thread::sleep(time),
            Self::Instructions(number) => {
                let executed = || machine.inspect(|vm| vm.vcpu().cpu.retired).unwrap();
                let pause = Duration::from_millis(5);
                let end = Instant::now() + PATIENCE;
                while executed() < number && terminal.read_until(PROMPT, pause).is_err() {
                    assert!(Instant::now() < end, "{self:?} does not come");
                }
            }
        }
    }
}

/// Runs `vm` up to a moment, and takes it apart: its state and its memory.
fn run_until(vm: Vm, moment: Moment) -> (Vec<u8>, File) {
    let (line, mut terminal) = pipe().unwrap();
    let (machine, _) = Machine::start(vm, line).unwrap();
    moment.wait(&machine, &mut terminal);
    machine.pause().unwrap();
    let parts = machine.inspect(|vm| {
        let state = postcard::to_allocvec(&vm.save().unwrap()).unwrap();
        (state, vm.memory().file().try_clone().unwrap())
    });
    drop(terminal);
    parts.unwrap()
}

/// Makes the moved machine prove that it lives.
fn finish(vm: Vm) {
    let (line, mut terminal) = pipe().unwrap();
    let (machine, _) = Machine::start(vm, line).unwrap();
    terminal.send(COMMAND);
    terminal.read_until(ANSWER, PATIENCE).unwrap();
    let (_, stop) = machine.join().unwrap();
    assert!(matches!(stop, StopReason::PowerOff), "{stop}");
}

/// Makes another process go on with a machine. Returns what it left if it failed.
fn move_to_process(
    state: &[u8],
    memory: File,
    (guest, engine): (Guest, Engine),
) -> Result<(), String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(state).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(STATE, file.path())
        .env(GUEST, guest.name())
        .env(ENGINE, format!("{engine:?}").to_lowercase())
        .stdin(Stdio::from(memory))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn();
    let status = Guarded::new(child.unwrap()).wait();
    status.success().then_some(()).ok_or(status.to_string())
}

/// Goes on with the machine in the process that it is moved into; elsewhere there is none.
#[test]
fn a_machine_that_arrives_goes_on() {
    let Some(state) = env::var_os(STATE) else {
        return;
    };
    let engine = match env::var(ENGINE).as_deref() {
        Ok("emulator") => Engine::Emulator,
        _ => Engine::Translator,
    };
    let guest = env::var(GUEST).unwrap().parse().unwrap();
    let state: VmState = postcard::from_bytes(&fs::read(state).unwrap()).unwrap();
    let memory = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    finish(Vm::restore(&config(guest, engine), state, memory, Vec::new()).unwrap());
}

/// Moves machines with `guests`, as often as the environment says, or else once for each of the first `pairs` of engines.
fn move_machines(guests: &[Guest], pairs: usize) {
    if guests.iter().any(|&guest| guests::release(guest).is_none()) {
        return;
    }
    let moves = env::var(MOVES).map_or(pairs, |count| count.parse().expect(MOVES));
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    let start = Instant::now();
    // How long a boot takes here, so that the moments lie in it.
    finish(boot(guests[0], Engine::Translator));
    let longest = start.elapsed();
    let mut failed = Vec::new();
    for number in 0..moves {
        let [from, to] = PAIRS[number % PAIRS.len()];
        let guest = guests[number / PAIRS.len() % guests.len()];
        let moment = Moment::random(from, guest, longest);
        let (state, memory) = run_until(boot(guest, from), moment);
        if let Err(left) = move_to_process(&state, memory, (guest, to)) {
            failed.push(format!("{guest} at {moment:?}, {from:?} to {to:?}: {left}"));
        }
    }
    println!(
        "{moves} moves of {} to another process in a boot, {} failed, seed {seed}, {:.0} s",
        guests[0],
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
}

#[test]
fn a_machine_goes_on_in_another_process() {
    move_machines(&[Guest::Debian686, Guest::Debian686Pae], PAIRS.len());
}

#[test]
fn a_64_bit_machine_goes_on_in_another_process() {
    // The emulator takes long.
    move_machines(&[Guest::DebianAmd64], 2);
}

#[test]
fn a_machine_goes_on_in_another_vm_of_the_same_process() {
    for guest in [Guest::Debian686, Guest::DebianAmd64] {
        if guests::release(guest).is_none() {
            return;
        }
        let mut vm = boot(guest, Engine::Translator);
        // Several moves in one boot.
        for milliseconds in [50, 100, 200] {
            let moment = Moment::Time(Duration::from_millis(milliseconds));
            let (state, memory) = run_until(vm, moment);
            let state = postcard::from_bytes(&state).unwrap();
            let config = config(guest, Engine::Translator);
            vm = Vm::restore(&config, state, memory, Vec::new()).unwrap();
        }
        finish(vm);
    }
}
