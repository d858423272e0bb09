//! [`Processors`]: a processor of each engine, with windows and without, that execute the same guests.

use mmu::{GuestPhys, Memory, Mmu};
use sbe::{CpuModel, EmptyBus, Engine, Exit, Vcpu, VcpuConfig, VcpuState, Windows};

use crate::{
    case::Case,
    layout::{MEMORY, PAGE, RAM},
};

/// Instructions after which a guest counts as endless.
const INSTRUCTIONS: u64 = 3000;
/// The budget of the translator for each of them: at least one of 16 is emulated.
const POLLS: u64 = 16 * 4;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By HLT.
    Halt,
    /// By a triple fault.
    Shutdown,
    /// With something that replex does not have.
    Unsupported,
    /// Not at all.
    Endless,
    /// It depends on the time.
    Timed,
}

/// What came of a guest that does the same on both engines.
pub struct Outcome {
    pub end: End,
    /// Instructions and deliveries on the emulator.
    pub instructions: u64,
    pub deliveries: u64,
}

/// What a guest left.
#[derive(PartialEq)]
struct Left {
    exit: Exit,
    state: VcpuState,
    memory: Vec<u8>,
}

/// The processors.
pub struct Processors {
    emulator: Vcpu,
    translators: [(&'static str, Vcpu); 2],
}

impl Processors {
    /// Processors after RESET.
    pub fn new() -> Self {
        let translators = [
            ("translator by tables", Windows::Never),
            ("translator with windows", Windows::Always),
        ];
        Self {
            emulator: processor(Engine::Emulator, Windows::Never),
            translators: translators
                .map(|(name, windows)| (name, processor(Engine::Translator, windows))),
        }
    }

    /// The number of fragments that passed their check.
    pub fn verified(&self) -> u64 {
        let verified = |vcpu: &Vcpu| vcpu.verified().expect("code is checked");
        self.translators
            .iter()
            .map(|(_, vcpu)| verified(vcpu))
            .sum()
    }

    /// Lets all processors execute a guest, and compares what it left.
    ///
    /// # Errors
    /// The difference.
    pub fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let emulated = run(&mut self.emulator, case, INSTRUCTIONS, INSTRUCTIONS);
        let cpu = &self.emulator.cpu;
        let (instructions, deliveries) = (cpu.retired, cpu.delivered);
        let budget = match emulated.exit {
            Exit::Budget => INSTRUCTIONS,
            _ => INSTRUCTIONS * POLLS,
        };
        let mut end = match emulated.exit {
            Exit::Halt => End::Halt,
            Exit::Shutdown(_) => End::Shutdown,
            Exit::Unsupported(_) => End::Unsupported,
            Exit::Budget => End::Endless,
            other => return Err(format!("{other:?} of the emulator")),
        };
        for (name, translator) in &mut self.translators {
            let translated = run(translator, case, case.slice, budget);
            if let Exit::Internal(what) = &translated.exit {
                return Err(format!("{name}: {what}"));
            }
            if end == End::Endless || emulated == translated {
                continue;
            }
            // What reads the time-stamp counter is never the same.
            let again = run(&mut self.emulator, case, INSTRUCTIONS, INSTRUCTIONS);
            if again == emulated {
                return Err(difference(&emulated, (name, &translated)));
            }
            end = End::Timed;
        }
        Ok(Outcome {
            end,
            instructions,
            deliveries,
        })
    }
}

fn processor(engine: Engine, windows: Windows) -> Vcpu {
    let model = CpuModel::X86_64;
    let paging = model.paging_model();
    let memory = Memory::for_width(MEMORY, paging.linear_width).expect("RAM");
    let config = VcpuConfig {
        model,
        engine,
        windows,
        code_cache: 4 << 20,
        verify_code: true,
        ..VcpuConfig::default()
    };
    Vcpu::new(&config, Mmu::with_model(memory, paging).expect("tables")).expect("a processor")
}

fn memory(vcpu: &Vcpu) -> Vec<u8> {
    let mut bytes = vec![0; RAM];
    let memory = vcpu.mmu.memory();
    memory.read(GuestPhys::new(0), &mut bytes).expect("RAM");
    bytes
}

/// Makes memory what the guest begins with. What is right is not stored to, so that translations of it stay.
fn load(vcpu: &Vcpu, wanted: &[u8]) {
    let before = memory(vcpu);
    let pages = wanted
        .chunks(PAGE as usize)
        .zip(before.chunks(PAGE as usize));
    for (number, (page, old)) in (0..).zip(pages) {
        if page != old {
            let at = GuestPhys::new(number * PAGE);
            vcpu.mmu.memory().write(at, page).expect("RAM");
        }
    }
}

/// Executes a guest until it ends, or all its budget is used up.
fn run(vcpu: &mut Vcpu, case: &Case, slice: u64, mut budget: u64) -> Left {
    load(vcpu, &case.memory);
    vcpu.restore(&case.state, 0).expect("a valid state");
    let mut exit = Exit::Budget;
    while exit == Exit::Budget && budget > 0 {
        let slice = slice.min(budget);
        exit = vcpu.run(&mut EmptyBus, slice);
        budget -= slice;
    }
    let mut state = vcpu.save(0);
    // Only the emulator counts instructions, and time passes.
    state.cpu.retired = 0;
    state.cpu.time_stamp = 0;
    Left {
        exit,
        state,
        memory: memory(vcpu),
    }
}

/// Names what differs.
fn difference(emulated: &Left, (name, translated): (&str, &Left)) -> String {
    let mut lines = vec![format!(
        "emulator {:?}, {name} {:?}",
        emulated.exit, translated.exit
    )];
    let [one, other] = [emulated, translated].map(|left| format!("{:#x?}", left.state));
    for (one, other) in one
        .lines()
        .zip(other.lines())
        .filter(|(one, other)| one != other)
    {
        lines.push(format!("{} | {}", one.trim(), other.trim()));
    }
    let bytes = emulated.memory.iter().zip(&translated.memory);
    let differing = (0..).zip(bytes).filter(|(_, (one, other))| one != other);
    for (at, (one, other)) in differing.take(16) {
        let at: usize = at;
        lines.push(format!("{at:#x}: {one:#x} | {other:#x}"));
    }
    lines.join("\n  ")
}
