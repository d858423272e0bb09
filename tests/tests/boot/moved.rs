//! A machine that is moved into another process in the middle of a boot goes on there.
//!
//! ```text
//!   this process                                  the same program, started for it
//!   boot ─► random moment ─► state ── file ─────► restore ─► "echo moved $((6*7))" ─► "moved 42"
//!                            memory ─ stdin ────►
//! ```
//!
//! Each move is made from one engine to one, all four pairs in turn. By hand, many moments:
//!
//! ```text
//! REPLEX_MOVES=200 cargo test --release -p tests --test boot -- moved --nocapture
//! ```

use std::{
    env, fs,
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guest_kernels::{Guest, Stage, fetch};
use tests::hang::{Guarded, PATIENCE};
use vmm::{
    BootSource, Engine, Kernel, Machine, StopReason, VcpuConfig, Vm, VmConfig, VmState,
    console::pipe,
    loader::{Cache, linux_cmdline},
    tsc::TscMeter,
};

use crate::guests;

/// The environment variable with the number of moves.
const MOVES: &str = "REPLEX_MOVES";
/// The number of moves without that variable: each pair of engines once.
const DEFAULT: usize = 4;
/// Tells the process that a machine is moved into from the one that runs the test: the file with the state, and the engine.
const STATE: &str = "REPLEX_TEST_STATE";
const ENGINE: &str = "REPLEX_TEST_ENGINE";
/// The name of the test, by which it is started again.
const TEST: &str = "moved::a_machine_goes_on_in_another_process";

const COMMAND: &str = "echo moved $((6*7)); poweroff -f\r";
const ANSWER: &str = "moved 42";

const PAIRS: [[Engine; 2]; 4] = [
    [Engine::Translator, Engine::Translator],
    [Engine::Translator, Engine::Emulator],
    [Engine::Emulator, Engine::Translator],
    [Engine::Emulator, Engine::Emulator],
];

fn config(engine: Engine) -> VmConfig {
    VmConfig {
        memory: 64 << 20,
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
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
    Vm::boot(&config(engine), &source).unwrap()
}

/// Runs `vm` for a while, and takes it apart: its state and its memory.
fn run_for(vm: Vm, time: Duration) -> (Vec<u8>, File) {
    let (line, terminal) = pipe().unwrap();
    let (machine, _) = Machine::start(vm, line).unwrap();
    thread::sleep(time);
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

/// Goes on with the machine in the process that it is moved into.
fn go_on(state: &Path) {
    let engine = match env::var(ENGINE).as_deref() {
        Ok("emulator") => Engine::Emulator,
        _ => Engine::Translator,
    };
    let state: VmState = postcard::from_bytes(&fs::read(state).unwrap()).unwrap();
    let memory = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    finish(Vm::restore(&config(engine), state, memory, Vec::new()).unwrap());
}

/// Makes another process go on with a machine. Returns what it left if it failed.
fn move_to_process(state: &[u8], memory: File, engine: Engine) -> Result<(), String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(state).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(STATE, file.path())
        .env(ENGINE, format!("{engine:?}").to_lowercase())
        .stdin(Stdio::from(memory))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn();
    let status = Guarded::new(child.unwrap()).wait();
    status.success().then_some(()).ok_or(status.to_string())
}

#[test]
fn a_machine_goes_on_in_another_process() {
    if let Some(state) = env::var_os(STATE) {
        return go_on(Path::new(&state));
    }
    let guests = [Guest::Debian686, Guest::Debian686Pae];
    if guests.iter().any(|&guest| guests::release(guest).is_none()) {
        return;
    }
    let moves = env::var(MOVES).map_or(DEFAULT, |count| count.parse().expect(MOVES));
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    let start = Instant::now();
    // How long a boot takes here, so that the moments lie in it.
    let mut boots = [Duration::ZERO; 2];
    for (boot_time, engine) in boots.iter_mut().zip([Engine::Translator, Engine::Emulator]) {
        let begin = Instant::now();
        finish(boot(Guest::Debian686, engine));
        *boot_time = begin.elapsed();
    }
    let mut failed = Vec::new();
    for number in 0..moves {
        let [from, to] = PAIRS[number % PAIRS.len()];
        let guest = guests[number / PAIRS.len() % guests.len()];
        let longest = boots[usize::from(from == Engine::Emulator)];
        let moment = longest.mul_f64(fastrand::f64());
        let (state, memory) = run_for(boot(guest, from), moment);
        if let Err(left) = move_to_process(&state, memory, to) {
            failed.push(format!(
                "{guest} after {moment:?}, {from:?} to {to:?}: {left}"
            ));
        }
    }
    println!(
        "{moves} moves to another process in a boot, {} failed, seed {seed}, {:.0} s",
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
}

#[test]
fn a_machine_goes_on_in_another_vm_of_the_same_process() {
    if guests::release(Guest::Debian686).is_none() {
        return;
    }
    let mut vm = boot(Guest::Debian686, Engine::Translator);
    // Several moves in one boot.
    for milliseconds in [50, 100, 200] {
        let (state, memory) = run_for(vm, Duration::from_millis(milliseconds));
        let state = postcard::from_bytes(&state).unwrap();
        vm = Vm::restore(&config(Engine::Translator), state, memory, Vec::new()).unwrap();
    }
    finish(vm);
}
