//! The trampolines keep their contracts.

use super::super::contract::{self, Contract, Contracts, Linkage};
use super::super::flow::Disassembly;
use super::super::memory::{self, Rights};
use super::super::registers::{GUEST, R8, R9, RCX};
use super::super::rule::{Need, Rule};
use super::super::state::State;
use super::super::step::Stepper;
use super::super::value::{Low, Values};
use super::super::walk::{Around, FragmentEntries, FragmentEntry, Promise, Walk};
use super::super::widths::Widths;
use super::*;
use crate::cpu::segment::SegReg;
use crate::decode::decoder::CodeSize;
use crate::translate::context::{CONTEXT_BIAS, Context, field};
use crate::translate::trampoline::Trampoline;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Rights of the trampolines. The GDT that segment registers are loaded from is aligned, or no descriptor is known.
const OF_TRAMPOLINES: Rights = Rights {
    widths: NARROW_WIDTHS,
    writes: &[
        field!(polls),
        field!(interrupt_flag),
        field!(eip: u32),
        field!(reason),
        field!(site),
        field!(access),
        field!(address: u32),
        field!(resume),
        field!(fpu_live),
        field!(fs_base),
        field!(fs_usable),
        field!(gs_base),
        field!(gs_usable),
        field!(selectors: u32),
        field!(loaded: u32),
        field!(table),
        field!(cpl),
        field!(level_changed),
        field!(user_stack),
    ],
    aligned: &[(field!(gdt_base), 3)],
    loads_state: true,
    uses_window: false,
};

/// Rights of the trampolines with 48-bit linear addresses.
const OF_WIDE_TRAMPOLINES: Rights = Rights {
    writes: &[
        field!(polls),
        field!(interrupt_flag),
        field!(direction_flag),
        field!(fs_base),
        field!(gs_base),
        field!(kernel_gs_base),
        field!(eip),
        field!(reason),
        field!(site),
        field!(access),
        field!(address),
        field!(resume),
        field!(fpu_live),
        field!(selectors: u32),
        field!(table),
        field!(write_table),
        field!(fetch_table),
        field!(code_table),
        field!(cpl),
        field!(level_changed),
        field!(user_stack),
        memory::UPPER_REGISTERS,
    ],
    aligned: &[],
    ..OF_TRAMPOLINES
};

const NARROW_WIDTHS: Widths = Widths {
    tables: LinearWidth::Bits32,
    code: CodeSize::Bits32,
};
/// The widths of machines and code.
const ALL_WIDTHS: [Widths; 3] = [
    NARROW_WIDTHS,
    Widths {
        tables: LinearWidth::Bits48,
        code: CodeSize::Bits32,
    },
    Widths {
        tables: LinearWidth::Bits48,
        code: CodeSize::Bits64,
    },
];

/// The trampolines as they lie in the arena.
struct InArena {
    rights: Rights,
    bench: Bench,
    code: Vec<u8>,
    /// Arena offsets at which they begin, and of their end.
    starts: Vec<u32>,
    /// Contracts of all that are checked, and of `Exit`.
    contracts: Contracts,
    exit: u32,
}

impl InArena {
    fn new(widths: Widths) -> Self {
        let bench = Bench::new(widths.tables);
        let of_width = match widths.tables {
            LinearWidth::Bits32 => OF_TRAMPOLINES,
            LinearWidth::Bits48 => OF_WIDE_TRAMPOLINES,
        };
        let trampolines = &bench.trampolines;
        let mut code = vec![0; trampolines.end()[0] as usize];
        let memory = File::open("/proc/self/mem").expect("one's own memory");
        memory
            .read_exact_at(&mut code, bench.arena.address_of(0))
            .expect("is mapped");
        let mut contracts = contract::all(trampolines);
        // FragmentEntry tables lead to `Lookup`, and `Exit` is entered by the other trampolines only.
        for (trampoline, needs) in [
            (Trampoline::Lookup, [Need::Word8].as_slice()),
            (Trampoline::Exit, &[]),
        ] {
            let linkage = Linkage::Jump;
            contracts.insert(trampolines.at(trampoline), Contract { linkage, needs });
        }
        let mut starts: Vec<u32> = Trampoline::all()
            .map(|trampoline| trampolines.at(trampoline))
            .collect();
        starts.push(trampolines.end()[0]);
        let exit = trampolines.at(Trampoline::Exit);
        Self {
            rights: Rights { widths, ..of_width },
            bench,
            code,
            starts,
            contracts,
            exit,
        }
    }

    /// The arena offset at which the trampoline at `start` ends.
    fn end(&self, start: u32) -> u32 {
        let behind = match start {
            // Two fall through to the next one.
            start if start == self.bench.trampolines.at(Trampoline::ReturnMismatch) => {
                self.bench.trampolines.at(Trampoline::PolledDispatch)
            }
            start if start == self.bench.trampolines.at(Trampoline::DirectDispatch) => {
                self.bench.trampolines.at(Trampoline::Dispatch)
            }
            start => start,
        };
        *self
            .starts
            .iter()
            .find(|&&other| other > behind)
            .expect("there is an end")
    }

    fn check(&self, start: u32, contract: Contract) -> Result<(), Violation> {
        let bytes = &self.code[start as usize..self.end(start) as usize];
        let disassembly = Disassembly::decode([bytes, &[]], [start, 0])?;
        let widths = self.rights.widths;
        let mut stepper = Stepper::new(self.rights);
        let values = &mut stepper.values;
        let mut state = State::between(values, widths);
        for need in contract.needs {
            match need {
                Need::Word8 => state.registers[R8] = widths.unknown(values, Low::UNKNOWN),
                Need::Inverted8 => {
                    let word = widths.unknown(values, Low::UNKNOWN);
                    state.registers[R8] = values.not(word);
                }
                Need::Word9 => state.registers[R9] = values.word(),
                Need::Offset9 => {
                    state.registers[R9] = values.unknown(PAGE_SIZE as u64 - 1, Low::UNKNOWN);
                }
                Need::Long | Need::Linkage => {}
            }
        }
        if contract.returns() {
            state.stack = vec![values.any()];
        }
        let before = state.clone();
        let keeps = |values: &Values, after: &State| kept(contract, &before, values, after);
        let promise = Promise {
            stack: before.stack.clone(),
            check: &keeps,
        };
        let around = Around {
            contracts: &self.contracts,
            entries: &FragmentEntries::new(),
            fault_map: &FaultMap::default(),
            tables: widths.tables,
        };
        let entry = FragmentEntry {
            at: 0,
            mode: Mode::Supervisor,
        };
        let mut walk = Walk::new(around, disassembly, stepper, entry, promise);
        walk.start(0, state);
        walk.follow().map(|_| ())
    }
}

fn instructions(code: &[u8], start: u32) -> impl Iterator<Item = Instruction> {
    let bytes = &code[start as usize..];
    let decoder = Decoder::with_ip(64, bytes, start.into(), DecoderOptions::NONE);
    decoder.into_iter().collect::<Vec<_>>().into_iter()
}

/// Whether a trampoline that returns has done what callers take for done.
fn kept(contract: Contract, before: &State, values: &Values, after: &State) -> Result<(), Rule> {
    let same = GUEST
        .iter()
        .all(|&number| before.registers[number] == after.registers[number])
        && before.page == after.page;
    let done = match contract.linkage {
        Linkage::Jump | Linkage::PolledJump => false,
        Linkage::LoadsFpu => after.fpu,
        Linkage::LoadsSegment => true,
        Linkage::FindsSlot(kind) => {
            let address = before.registers[R8];
            let found = values.slot(after.registers[RCX]).is_some_and(|slot| {
                slot.address == address
                    && slot.bytes >= kind.size().into()
                    && slot.writes >= kind.writes()
            });
            found
                && [R8, 10]
                    .iter()
                    .all(|&number| before.registers[number] == after.registers[number])
        }
    };
    let untouched = before.scratch == after.scratch;
    (same && done && untouched)
        .then_some(())
        .ok_or(Rule::Contract(Need::Linkage))
}

#[test]
fn every_trampoline_obeys_the_rules() {
    for widths in ALL_WIDTHS {
        let fixed = InArena::new(widths);
        let mut checked = 0;
        for (&start, &contract) in &fixed.contracts {
            let reachable = widths.is_64() || !contract.needs.contains(&Need::Long);
            if start != fixed.exit && reachable {
                let done = fixed.check(start, contract);
                assert_eq!(done, Ok(()), "{start:#x} {contract:?} {widths:?}");
                checked += 1;
            }
        }
        assert!(checked > 22, "only {checked}");
    }
    let fixed = InArena::new(NARROW_WIDTHS);
    let segments = SegReg::ALL.map(|register| {
        fixed
            .bench
            .trampolines
            .at(Trampoline::LoadSegment(register))
    });
    let contract = fixed.contracts[&fixed
        .bench
        .trampolines
        .at(Trampoline::LoadSegment(SegReg::Ds))];
    for start in segments {
        assert_eq!(fixed.check(start, contract), Ok(()), "{start:#x}");
    }
}

#[test]
fn a_broken_trampoline_is_noticed() {
    let mut fixed = InArena::new(NARROW_WIDTHS);
    let kind = AccessKind::new(4, true);
    let start = fixed.bench.trampolines.at(Trampoline::Miss(kind));
    let contract = fixed.contracts[&start];
    let last_byte = instructions(&fixed.code, start)
        .find(|instruction| instruction.code() == Code::Lea_r32_m)
        .expect("there is a comparison of pages");
    let displacement = last_byte.next_ip() as usize - 1;
    assert_eq!(fixed.code[displacement], 3);
    fixed.code[displacement] = 1;
    let rule = fixed
        .check(start, contract)
        .map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Contract(Need::Linkage)));
    let start = fixed.bench.trampolines.at(Trampoline::EmulateAt);
    let contract = fixed.contracts[&start];
    // A field that is none of the trampolines'.
    let store = instructions(&fixed.code, start)
        .find(|instruction| instruction.code() == Code::Mov_rm32_imm32)
        .expect("the reason");
    let displacement = store.next_ip() as usize - size_of::<u32>() - 1;
    fixed.code[displacement] = field::SCRATCH as u8;
    let rule = fixed
        .check(start, contract)
        .map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Field));
}

/// An entry is read from its table only where the sum of slot and EIP was found to lie in the area of entry tables.
#[test]
fn a_dispatcher_that_looks_at_too_little_is_noticed() {
    let [.., long] = ALL_WIDTHS;
    let rotations = |fixed: &InArena, start| {
        instructions(&fixed.code, start)
            .filter(|instruction| instruction.code() == Code::VEX_Rorx_r64_rm64_imm8)
            .map(|instruction| instruction.next_ip() as usize - 1)
            .take(2)
            .collect::<Vec<_>>()
    };
    for (number, rotation) in [(0, 61), (0, 63), (1, 33), (1, 35), (1, 2)] {
        let mut fixed = InArena::new(long);
        let start = fixed.bench.trampolines.at(Trampoline::Dispatch);
        let place = rotations(&fixed, start)[number];
        fixed.code[place] = rotation;
        let verdict = fixed.check(start, fixed.contracts[&start]);
        let rule = verdict.map_err(|violation| violation.rule);
        assert_eq!(rule, Err(Rule::Index), "{number} {rotation}");
    }
}

/// All tables change with the privilege level.
#[test]
fn a_system_call_that_keeps_a_table_is_noticed() {
    let [.., long] = ALL_WIDTHS;
    for place in [
        field::TABLE,
        field::WRITE_TABLE,
        field::FETCH_TABLE,
        field::CODE_TABLE,
    ] {
        let mut fixed = InArena::new(long);
        let start = fixed.bench.trampolines.at(Trampoline::Syscall);
        let store = instructions(&fixed.code, start)
            .find(|instruction| {
                instruction.code() == Code::Mov_rm64_r64
                    && instruction.memory_displacement64() == place as u64
            })
            .expect("it is written");
        // LEA of the same operands.
        let bytes = &mut fixed.code[store.ip() as usize..store.next_ip() as usize];
        bytes[1] = 0x8d;
        let verdict = fixed.check(start, fixed.contracts[&start]);
        let rule = verdict.map_err(|violation| violation.rule);
        assert_eq!(rule, Err(Rule::Tables), "{place}");
    }
}

/// The outermost return leaves the stack as it found it.
#[test]
fn underflow_jumps() {
    let fixed = InArena::new(NARROW_WIDTHS);
    let trampolines = fixed.bench.trampolines;
    let texts: Vec<String> = instructions(&fixed.code, trampolines.at(Trampoline::ReturnUnderflow))
        .take(2)
        .map(|instruction| instruction.to_string())
        .collect();
    assert_eq!(
        texts,
        [
            "lea -8(%rsp),%rsp".into(),
            format!("jmp 0x{:016X}", trampolines.at(Trampoline::PolledDispatch))
        ]
    );
}

/// The way in and the way out exchange the host's state and the guest's: nothing but moves between registers, stack and context,
/// and GS's base.
#[test]
fn ways_in_and_out_only_exchange_states() {
    for widths in ALL_WIDTHS {
        only_exchange_states(&InArena::new(widths));
    }
}

fn only_exchange_states(fixed: &InArena) {
    use Mnemonic::*;
    let end = fixed.bench.trampolines.at(Trampoline::ReturnUnderflow);
    let mut count = 0;
    for instruction in instructions(&fixed.code, fixed.exit) {
        if instruction.ip() >= end.into() {
            break;
        }
        count += 1;
        let known = matches!(
            instruction.mnemonic(),
            Mov | Lea
                | Push
                | Pop
                | Lahf
                | Seto
                | Add
                | Sahf
                | Jrcxz
                | Jmp
                | Fxsave
                | Fxrstor
                | Fninit
                | Ldmxcsr
                | Wrgsbase
                | Ret
        );
        assert!(known, "{instruction}");
        let memory =
            (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
        if memory && instruction.mnemonic() != Lea {
            let offset = instruction.memory_displacement64() as i64 + i64::from(CONTEXT_BIAS);
            let end = offset + instruction.memory_size().size() as i64;
            assert_eq!(instruction.memory_base(), Register::R15, "{instruction}");
            assert_eq!(instruction.memory_index(), Register::None, "{instruction}");
            assert!(
                offset >= 0 && end <= size_of::<Context>() as i64,
                "{instruction}"
            );
        }
        if instruction.mnemonic() == Lea {
            assert_eq!(instruction.to_string(), "lea 0xAA(%rdi),%r15");
        }
    }
    assert!(count > 40, "only {count}");
}
