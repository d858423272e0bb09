//! Counts of the faults of 64-bit code at addresses that no program can use: which instructions met which kind of address.

use super::address::{SLOT_BITS, is_canonical};
use super::case::{Case, Outcome, PAGE_FAULT};
use super::layout::{CODE, CODE_BYTES, PAGE, PLACES, SANDBOX, SANDBOX_PAGES};
use super::prepare::{gpr_index, is_iret};
use iced_x86::{
    CpuidFeature, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
    UsedMemory,
};
use std::collections::BTreeMap;
use std::fmt;

/// The kinds of addresses.
const KINDS: [&str; 5] = [
    "not canonical",
    "end of lower half",
    "start of upper half",
    "upper half",
    "1 TiB alias",
];
/// What instructions do at addresses.
const USES: [&str; 10] = [
    "load",
    "store",
    "modify",
    "by #SS",
    "stack",
    "string",
    "x87, MMX, SSE",
    "FXSAVE, FXRSTOR",
    "branch",
    "return",
];

/// Vector of #SS.
const STACK_FAULT: u8 = 12;
/// Vector of #GP.
const GENERAL_PROTECTION: u8 = 13;

/// Counts of faults, by use and kind, which are indices in `USES` and `KINDS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strange(BTreeMap<(usize, usize), u64>);

impl Strange {
    /// Adds a case of 64-bit code, as the real CPU ran it.
    pub fn add(&mut self, case: &Case, outcome: &Outcome) {
        let Some(exception) = outcome.exception else {
            return;
        };
        let at = outcome.end.rip;
        match exception.vector {
            // The fetch at the target of a branch or return: which it was is not known.
            PAGE_FAULT if exception.address == at && is_alias(at, CODE, CODE_BYTES) => {
                self.count("branch", "1 TiB alias");
            }
            STACK_FAULT | GENERAL_PROTECTION | PAGE_FAULT => {
                let position = u64::from(case.position(outcome.end.cs, at));
                let mut instructions = case
                    .pieces()
                    .flat_map(|piece| piece.instructions().collect::<Vec<_>>());
                if let Some(instruction) = instructions.find(|found| found.ip() == position) {
                    self.add_fault(&instruction, outcome, exception.vector);
                }
            }
            _ => {}
        }
    }

    fn add_fault(&mut self, instruction: &Instruction, outcome: &Outcome, vector: u8) {
        let mut factory = InstructionInfoFactory::new();
        let mut met = false;
        for used in factory.info(instruction).used_memory() {
            let Some(address) = address_of(used, outcome) else {
                continue;
            };
            let Some(kind) = kind(address, used.memory_size().size() as u64) else {
                continue;
            };
            self.count(use_of(instruction, used), kind);
            if vector == STACK_FAULT {
                self.count("by #SS", kind);
            }
            met = true;
        }
        let transfers = match instruction.flow_control() {
            FlowControl::IndirectBranch | FlowControl::IndirectCall => Some("branch"),
            FlowControl::Return => Some("return"),
            _ => None,
        };
        if let Some(transfers) = transfers.filter(|_| !met && vector == GENERAL_PROTECTION) {
            self.count(transfers, "not canonical");
        }
    }

    fn count(&mut self, what: &str, kind: &str) {
        let index = |names: &[&str], name| names.iter().position(|&known| known == name);
        if let (Some(what), Some(kind)) = (index(&USES, what), index(&KINDS, kind)) {
            *self.0.entry((what, kind)).or_default() += 1;
        }
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// What must be met in a run over all forms and was not: every use with an address that is not canonical, the common ones with
    /// an alias and in the upper half, and accesses across both borders of the canonical addresses.
    pub fn missing(&self) -> Vec<String> {
        let is_met = |(what, kind): &(usize, usize)| self.0.contains_key(&(*what, *kind));
        let common = ["load", "store", "modify", "string", "x87, MMX, SSE"];
        let uses = || USES.iter().enumerate();
        let plain = uses().map(|(what, _)| (what, 0));
        let mapped = uses()
            .filter(|(_, name)| common.contains(*name))
            .flat_map(|(what, _)| [(what, 3), (what, 4)]);
        let mut missing: Vec<String> = plain
            .chain(mapped)
            .filter(|pair| !is_met(pair))
            .map(|(what, kind)| format!("{}: {}", USES[what], KINDS[kind]))
            .collect();
        let crossed = |kind: &usize| (0..USES.len()).any(|what| is_met(&(what, *kind)));
        let borders = [1, 2].into_iter().filter(|kind| !crossed(kind));
        missing.extend(borders.map(|kind| KINDS[kind].to_owned()));
        missing
    }
}

impl fmt::Display for Strange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<18}", "faults at addresses")?;
        for kind in KINDS {
            write!(out, " {kind:>20}")?;
        }
        for (what, name) in USES.iter().enumerate() {
            write!(out, "\n{name:<18}")?;
            for kind in 0..KINDS.len() {
                write!(out, " {:>20}", self.0.get(&(what, kind)).unwrap_or(&0))?;
            }
        }
        Ok(())
    }
}

/// The linear address of a memory operand with the registers of `outcome`.
fn address_of(used: &UsedMemory, outcome: &Outcome) -> Option<u64> {
    used.virtual_address(0, |register, _, _| match register {
        Register::FS => Some(outcome.end.bases[0]),
        Register::GS => Some(outcome.end.bases[1]),
        Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
        Register::RIP | Register::EIP => None,
        _ => gpr_index(register).map(|index| {
            let value = outcome.end.gpr[index];
            match register.size() {
                8 => value,
                size => value & ((1 << (8 * size)) - 1),
            }
        }),
    })
}

/// The kind of `size` bytes at `address`; `None` if it is an ordinary address.
fn kind(address: u64, size: u64) -> Option<&'static str> {
    let last = address.wrapping_add(size.max(1) - 1);
    Some(match (is_canonical(address), is_canonical(last)) {
        (false, false) => "not canonical",
        (true, false) => "end of lower half",
        (false, true) => "start of upper half",
        (true, true) if address >> 63 != 0 => "upper half",
        _ if is_alias(address, SANDBOX, SANDBOX_PAGES * PAGE) => "1 TiB alias",
        _ => return None,
    })
}

/// Whether `address` differs by a multiple of 1 TiB from one of the `bytes` bytes at `start` of a place, and is in no place.
fn is_alias(address: u64, start: u32, bytes: u32) -> bool {
    const SLOTS: u64 = (1 << SLOT_BITS) - 1;
    let distances = PLACES.map(|place| address.wrapping_sub(place + u64::from(start)));
    let inside = |mask: u64| {
        distances
            .iter()
            .any(|distance| distance & mask < bytes.into())
    };
    inside(SLOTS) && !inside(u64::MAX)
}

fn use_of(instruction: &Instruction, used: &UsedMemory) -> &'static str {
    match instruction.mnemonic() {
        Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
            return "FXSAVE, FXRSTOR";
        }
        _ => {}
    }
    if instruction.is_string_instruction() {
        "string"
    } else if instruction.is_stack_instruction() && used.base() == Register::RSP
        || is_iret(instruction)
    {
        "stack"
    } else if is_floating(instruction) {
        "x87, MMX, SSE"
    } else {
        match used.access() {
            OpAccess::Read | OpAccess::CondRead => "load",
            OpAccess::Write | OpAccess::CondWrite => "store",
            _ => "modify",
        }
    }
}

/// Whether the instruction is one of x87, MMX or SSE.
fn is_floating(instruction: &Instruction) -> bool {
    use CpuidFeature::{FPU, FPU287, FPU387, FXSR, MMX, SSE, SSE2, SSE3, SSE4_1, SSSE3};
    let features = instruction.cpuid_features().iter();
    let mut features = features.map(|feature| {
        matches!(
            feature,
            FPU | FPU287 | FPU387 | FXSR | MMX | SSE | SSE2 | SSE3 | SSSE3 | SSE4_1
        )
    });
    features.any(|is_floating| is_floating)
}
