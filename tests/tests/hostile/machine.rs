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
/// The steps for each of them, where iterations of repeated string instructions are steps of their own.
const STEPS: u64 = 1024;

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
    /// It depends on which translations of linear addresses the processor has cached, as the guest has changed its page tables
    /// without a flush: which of them it then uses is left open (SDM Vol. 3A, 4.10.2.3 "Details of TLB Use", 4.10.4.3
    /// "Optional Invalidation").
    Stale,
    /// It depends on how often a repeated string instruction that overwrites itself is executed before its new bytes are fetched,
    /// which is left open (SDM Vol. 3A, 8.1.3 "Handling Self- and Cross-Modifying Code").
    SelfModifying,
}

/// The ends that the architecture leaves open, each with the way to execute on the emulator that leads to another end then.
const OPEN: [(End, Pace); 3] = [
    (End::Timed, Pace::Runs(INSTRUCTIONS)),
    (End::Stale, Pace::Flushes),
    (End::SelfModifying, Pace::Steps),
];

/// The way in which a processor executes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// By runs with such a budget.
    Runs(u64),
    /// By single instructions, with nothing cached before each.
    Flushes,
    /// By single instructions, and single iterations of repeated ones.
    Steps,
}

impl Pace {
    /// The budget for as many instructions as every guest gets.
    fn budget(self) -> u64 {
        match self {
            Self::Runs(_) | Self::Flushes => INSTRUCTIONS,
            Self::Steps => INSTRUCTIONS * STEPS,
        }
    }

    /// Executes on the processor, of a budget `left`. Returns why it stopped, and what of the budget it has used up.
    fn go(self, vcpu: &mut Vcpu, left: u64) -> (Exit, u64) {
        match self {
            Self::Runs(slice) => {
                let slice = slice.min(left);
                (vcpu.run(&mut EmptyBus, slice), slice)
            }
            Self::Flushes => {
                let state = vcpu.save(0);
                vcpu.restore(&state, 0).expect("a state of its own");
                (vcpu.run(&mut EmptyBus, 1), 1)
            }
            Self::Steps => (vcpu.step(&mut EmptyBus), 1),
        }
    }
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
        let pace = Pace::Runs(INSTRUCTIONS);
        let emulated = run(&mut self.emulator, case, pace, INSTRUCTIONS);
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
            let translated = run(translator, case, Pace::Runs(case.slice), budget);
            if let Exit::Internal(what) = &translated.exit {
                return Err(format!("{name}: {what}"));
            }
            if end == End::Endless || emulated == translated {
                continue;
            }
            end = open_end(&mut self.emulator, case, &emulated)
                .ok_or_else(|| difference(&emulated, (name, &translated)))?;
        }
        Ok(Outcome {
            end,
            instructions,
            deliveries,
        })
    }
}

/// The end of a guest whose result is left open: the emulator, which left `emulated`, itself comes to another one. `None` if it does
/// not.
fn open_end(emulator: &mut Vcpu, case: &Case, emulated: &Left) -> Option<End> {
    let differs = |&(_, pace): &(End, Pace)| {
        let left = run(emulator, case, pace, pace.budget());
        // One that takes too many steps tells nothing.
        left != *emulated && (left.exit != Exit::Budget || pace != Pace::Steps)
    };
    OPEN.iter().copied().find(differs).map(|(end, _)| end)
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
fn run(vcpu: &mut Vcpu, case: &Case, pace: Pace, mut budget: u64) -> Left {
    load(vcpu, &case.memory);
    vcpu.restore(&case.state, 0).expect("a valid state");
    let mut exit = Exit::Budget;
    while exit == Exit::Budget && budget > 0 {
        let used;
        (exit, used) = pace.go(vcpu, budget);
        budget -= used;
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
