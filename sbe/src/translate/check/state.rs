//! [`State`]: the abstract values of registers, stack and context between two instructions.

use super::registers::{GUEST, R13, R14, R15};
use super::value::{CONTEXT, Grant, Low, Node, TABLES, Value, Values};
use super::widths::{PAGE_LOW, Widths};
use crate::translate::context::CONTEXT_BIAS;

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

/// The privilege level that a table of the present ones is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The level at which the code executes.
    Present,
    /// The level with this index in the context.
    Other(usize),
    /// An unknown level.
    Unknown,
}

/// The start of a guest's instruction, at which it begins anew if it faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Arena offset of the code's first byte.
    pub code: u32,
    /// The value of R10 then, if the code goes on with that of the fault where it begins anew in emitted code.
    pub pointer: Option<Value>,
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
    /// The context's `page`, which counts where linear addresses have 48 bits.
    pub page: Value,
    /// The latest tests.
    pub facts: Vec<Fact>,
    /// The host's unit holds the guest's FPU state.
    pub fpu: bool,
    /// The poll that a call needs.
    pub poll: Poll,
    /// A number that changes when memory does.
    pub version: u32,
    /// The levels of the read table, in R14 or the context, and of the write, fetch and code tables in the context.
    pub tables: [Level; 4],
    /// The start of the present instruction; `None` if that may be one or another.
    pub beginning: Option<Beginning>,
    /// Whether something of the guest's may have changed since the instruction began.
    pub changed: bool,
    /// Slots through which memory was accessed: they did not fault.
    pub touched: Vec<Grant>,
}

impl State {
    /// The state between instructions of the guest: its registers have the width of its code, R15 holds the context, and R13 and R14
    /// hold the page and the tables where they are not the guest's.
    pub fn between(values: &mut Values, widths: Widths) -> Self {
        let mut registers = std::array::from_fn(|_| values.any());
        for &number in widths.guest() {
            registers[number] = widths.unknown(values, Low::UNKNOWN);
        }
        let page = widths.unknown(values, PAGE_LOW);
        if !widths.has_wide_tables() {
            registers[R13] = page;
            registers[R14] = Value::atom(TABLES);
        }
        registers[R15] = Value::atom(CONTEXT).plus(CONTEXT_BIAS as u64);
        Self {
            registers,
            stack: Vec::new(),
            scratch: values.any(),
            page,
            facts: Vec::new(),
            fpu: false,
            poll: Poll::None,
            version: values.serial(),
            tables: [Level::Present; 4],
            beginning: None,
            changed: false,
            touched: Vec::new(),
        }
    }

    /// The page's address, in R13 or the context.
    pub fn present_page(&self, widths: Widths) -> Value {
        match widths.has_wide_tables() {
            true => self.page,
            false => self.registers[R13],
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

    /// Writes a register.
    pub fn set(&mut self, number: usize, value: Value) {
        self.changed |= GUEST.contains(&number) && self.registers[number] != value;
        self.registers[number] = value;
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
        let fields = [
            (&mut self.scratch, &other.scratch),
            (&mut self.page, &other.page),
        ];
        for (our, their) in pairs.chain(fields) {
            *our = join(*our, *their, values);
        }
        self.facts.retain(|fact| other.facts.contains(fact));
        for (our, their) in self.tables.iter_mut().zip(other.tables) {
            if *our != their {
                *our = Level::Unknown;
            }
        }
        self.touched.retain(|slot| other.touched.contains(slot));
        self.beginning = self
            .beginning
            .filter(|&begun| other.beginning == Some(begun));
        self.changed |= other.changed;
        self.fpu &= other.fpu;
        if self.poll != other.poll {
            self.poll = Poll::None;
        }
        if self.version != other.version {
            self.store(values);
        }
        Some(())
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
            load: values.serial(),
        }));
    }
    let most = values.most(a).max(values.most(b));
    let low = values.low(a).common(values.low(b));
    values.unknown(most, low)
}
