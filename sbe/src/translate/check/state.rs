//! [`State`]: the abstract values of registers, stack and context between two instructions.

use super::value::{CONTEXT, Grant, Low, Node, TABLES, Value, Values};
use crate::translate::context::{CONTEXT_BIAS, PAGE_BIAS};
use mmu::PAGE_SHIFT;

// Numbers of registers.
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RSP: usize = 4;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R8: usize = 8;
pub const R9: usize = 9;
pub const R10: usize = 10;
pub const R13: usize = 13;
pub const R14: usize = 14;
pub const R15: usize = 15;

/// The registers that hold the guest's.
pub const GUEST: [usize; 8] = [RAX, RDX, 3, 5, RSI, RDI, 11, 12];
/// The most facts kept: code uses its tests soon after.
const MOST_FACTS: usize = 16;

/// The result of a test for zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The value tested.
    pub value: Value,
    /// Whether the value was zero.
    pub zero: bool,
}

/// The progress of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// No poll was begun.
    None,
    /// The count has become this.
    Counted(Value),
    /// The count was not used up.
    Done,
}

/// The abstract state at one point of the code.
#[derive(Clone, Debug)]
pub struct State {
    /// Registers by number; RSP's is not used.
    pub registers: [Value; 16],
    /// The host's stack above its level on entry, the top last.
    pub stack: Vec<Value>,
    /// The context's `scratch`.
    pub scratch: Value,
    /// The latest tests.
    pub facts: Vec<Fact>,
    /// The host's unit holds the guest's FPU state.
    pub fpu: bool,
    /// The poll that a call needs.
    pub poll: Poll,
    /// A number that changes when memory does.
    pub version: u32,
}

/// The low bits of a page's address as R13 holds it.
fn page_low() -> Low {
    debug_assert_eq!(PAGE_SHIFT, 12);
    Low::of(PAGE_BIAS as u64)
}

impl State {
    /// The state between instructions of the guest: its registers have 32 bits, and R13 to R15 hold the page, the tables and the
    /// context.
    pub fn between(values: &mut Values) -> Self {
        let mut registers = std::array::from_fn(|_| values.any());
        for number in GUEST {
            registers[number] = values.word();
        }
        registers[R13] = values.unknown(u32::MAX.into(), page_low());
        registers[R14] = Value::atom(TABLES);
        registers[R15] = Value::atom(CONTEXT).plus(CONTEXT_BIAS as u64);
        Self {
            registers,
            stack: Vec::new(),
            scratch: values.any(),
            facts: Vec::new(),
            fpu: false,
            poll: Poll::None,
            version: values.serial(),
        }
    }

    /// Adds the result of a test.
    pub fn learn(&mut self, value: Value, zero: bool) {
        if self.facts.len() == MOST_FACTS {
            self.facts.remove(0);
        }
        let value = value.absolute();
        self.facts.push(Fact { value, zero });
    }

    /// Whether `value` is known to be zero, or not to be.
    pub fn knows(&self, value: Value, zero: bool) -> bool {
        if let Some(known) = value.known() {
            return zero == (known == 0);
        }
        let value = value.absolute();
        self.facts.contains(&Fact { value, zero })
    }

    /// Notes that memory has changed.
    pub fn store(&mut self, values: &mut Values) {
        // A new serial is one that no atom of before has.
        values.any();
        self.version = values.serial();
    }

    /// Joins the state with that of another path to the same point; `None` when their stacks differ.
    pub fn join(&mut self, other: &Self, values: &mut Values) -> Option<()> {
        if self.stack.len() != other.stack.len() {
            return None;
        }
        let ours = self.registers.iter_mut().chain(&mut self.stack);
        let theirs = other.registers.iter().chain(&other.stack);
        let pairs = ours.zip(theirs);
        for (our, their) in pairs.chain([(&mut self.scratch, &other.scratch)]) {
            *our = join(*our, *their, values);
        }
        self.facts.retain(|fact| other.facts.contains(fact));
        self.fpu &= other.fpu;
        if self.poll != other.poll {
            self.poll = Poll::None;
        }
        if self.version != other.version {
            self.store(values);
        }
        Some(())
    }

    /// Whether `value` is a page's address as R13 holds it.
    pub fn is_page(values: &Values, value: Value) -> bool {
        values.is_word(value) && values.low(value) == page_low()
    }
}

/// The value of which only is known that it is `a` or `b`.
fn join(a: Value, b: Value, values: &mut Values) -> Value {
    if a == b {
        return a;
    }
    for (a, b) in [(a, b), (b, a)] {
        let code = a
            .single()
            .is_some_and(|atom| matches!(values.node(atom), Node::Code(_)));
        // Code may be unknown: 0.
        if code && b.known() == Some(0) {
            return a;
        }
    }
    if let (Some(a), Some(b)) = (values.slot(a), values.slot(b))
        && a.address == b.address
    {
        return values.of(Node::Slot(Grant {
            address: a.address,
            bytes: a.bytes.min(b.bytes),
            aligned: a.aligned.min(b.aligned),
            writes: a.writes && b.writes,
        }));
    }
    let most = values.most(a).max(values.most(b));
    let low = values.low(a).common(values.low(b));
    values.unknown(most, low)
}
