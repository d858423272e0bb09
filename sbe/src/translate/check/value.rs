//! [`Value`]: an abstract value, as a sum of named parts, so that equal sums are equal values whatever code computed them.

use hashbrown::HashMap;
use mmu::INDEX_BITS;

/// The largest 32-bit number.
pub const WORD: u64 = u32::MAX as u64;
/// The number of low bits that are kept account of: those of an offset in a page.
const LOW_BITS: u8 = 12;
/// The most parts of a sum; a sum of more parts is just some number.
const PARTS: usize = 5;
/// log2 of the context's alignment.
const CONTEXT_LOW: u8 = 6;

/// A part of a sum, by its number in [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom(u32);

/// The address of the context.
pub const CONTEXT: Atom = Atom(0);
/// The address of the read table of the current privilege.
pub const TABLES: Atom = Atom(1);
/// The host address at which the arena's first byte executes.
pub const ARENA: Atom = Atom(2);
/// The addresses of the write, fetch and code tables of the current privilege, where the context has them.
pub const FIELD_TABLES: [(Atom, Table); 3] = [
    (Atom(3), Table::Write),
    (Atom(4), Table::Fetch),
    (Atom(5), Table::Code),
];

/// The known low bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Low {
    /// The number of known bits.
    pub bits: u8,
    /// The value of these bits.
    pub value: u64,
}

impl Low {
    /// No known bits.
    pub const UNKNOWN: Self = Self { bits: 0, value: 0 };

    /// All the low bits of `value` that are kept account of.
    pub const fn of(value: u64) -> Self {
        Self::new(LOW_BITS, value)
    }

    /// The low `bits` bits of `value`.
    pub const fn new(bits: u8, value: u64) -> Self {
        let value = value & ((1 << bits) - 1);
        Self { bits, value }
    }

    /// The number of low bits known to be zeros, up to the first that is not.
    pub fn zeros(self) -> u8 {
        self.bits.min(self.value.trailing_zeros() as u8)
    }

    /// The bits that are known to be the same in both.
    pub fn common(self, other: Self) -> Self {
        let bits = self.bits.min(other.bits);
        let differing = (self.value ^ other.value).trailing_zeros() as u8;
        Self::new(bits.min(differing), self.value)
    }

    fn plus(self, other: Self) -> Self {
        let sum = self.value.wrapping_add(other.value);
        Self::new(self.bits.min(other.bits), sum)
    }

    fn times(self, factor: u64) -> Self {
        let bits = u32::from(self.bits) + factor.trailing_zeros();
        let bits = bits.min(LOW_BITS.into()) as u8;
        Self::new(bits, self.value.wrapping_mul(factor))
    }
}

/// A table of the software TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// The read table.
    Read,
    /// The write table.
    Write,
    /// The fetch table, whose slots emitted code only compares.
    Fetch,
    /// The code table, whose slots lead to entry tables.
    Code,
}

/// An operation whose result is not a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shift {
    /// Shift right, of 64 bits.
    Right,
    /// Shift left, of 32 bits.
    Left32,
    /// Shift right with copies of the sign, of 32 bits.
    Signed32,
    /// Shift right with copies of the sign, of 64 bits.
    Signed64,
    /// Rotation right, of 32 bits.
    Rotate32,
    /// Rotation right, of 64 bits.
    Rotate64,
}

impl Shift {
    /// Whether only the low 32 bits of its operand matter, and those above are clear in its result.
    fn is_narrow(self) -> bool {
        matches!(self, Self::Left32 | Self::Signed32 | Self::Rotate32)
    }
}

/// The meaning of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Some number.
    Unknown {
        /// Upper bound.
        most: u64,
        /// The known low bits.
        low: Low,
    },
    /// The low 32 bits of a number.
    Low32(Value),
    /// A shifted number.
    Shifted(Shift, Value, u8),
    /// The bits of a number that the context's mask with this index chooses, put together.
    Extracted(Value, u8),
    /// A number found in memory.
    Loaded {
        /// Address of the number.
        address: Value,
        /// Size of the number.
        bytes: u8,
        /// Tells apart what memory held at different times.
        version: u32,
    },
    /// A slot of a table, which may be empty; the number tells apart loads at different times.
    TableWord(Table, Index, u32),
    /// A slot that is not empty: with a linear address added, it is a host address, but for the slot's bias.
    Slot(Grant),
    /// Address of the entry table for the page of an EIP, less four times the page's address; with 48-bit linear addresses, less
    /// the page's address rotated left by two, and perhaps of another page.
    CodeSlot(Value),
    /// Arena offset of the code for an EIP, or 0.
    Code(Value),
    /// The word of a window's directory for the unit with this number: the distance of host addresses from linear addresses.
    Distance(Value),
}

/// The index of a slot in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// The linear address for whose page the slot is.
    pub address: Value,
    /// The index is that of an empty slot unless the address is a multiple of two to this.
    pub log: u8,
}

/// The access that a slot grants if it is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The first linear address that may be accessed.
    pub address: Value,
    /// The number of bytes that may be accessed.
    pub bytes: u64,
    /// The address is a multiple of two to this.
    pub aligned: u8,
    /// Whether the bytes may be written, too.
    pub writes: bool,
    /// Tells apart slots found at different times.
    pub load: u32,
}

/// A sum of multiples of atoms and a constant, modulo 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// Atoms with their factors: those with a factor other than 0 first, by atom; then zeros.
    parts: [(Atom, u64); PARTS],
    /// The constant part of the sum.
    pub constant: u64,
}

impl Value {
    const NO_PART: (Atom, u64) = (Atom(0), 0);

    /// The value that is `constant`.
    pub const fn constant(constant: u64) -> Self {
        Self {
            parts: [Self::NO_PART; PARTS],
            constant,
        }
    }

    /// The value that is `atom` alone.
    pub const fn atom(atom: Atom) -> Self {
        let mut value = Self::constant(0);
        value.parts[0] = (atom, 1);
        value
    }

    /// The parts of the sum: atoms and factors.
    pub fn parts(&self) -> impl Iterator<Item = (Atom, u64)> {
        self.parts.into_iter().filter(|part| part.1 != 0)
    }

    /// The number that the value is, if that is known.
    pub fn known(&self) -> Option<u64> {
        self.parts().next().is_none().then_some(self.constant)
    }

    /// The atom that the value is, if it is just one.
    pub fn single(&self) -> Option<Atom> {
        let atom = self.parts[0].0;
        (*self == Self::atom(atom)).then_some(atom)
    }

    /// Whether `atom` is part of the sum exactly once.
    pub fn has(&self, atom: Atom) -> bool {
        self.parts().any(|part| part == (atom, 1))
    }

    /// The value `self` + `constant`.
    pub fn plus(mut self, constant: u64) -> Self {
        self.constant = self.constant.wrapping_add(constant);
        self
    }

    /// The difference `self` - `other`, if that is a constant.
    pub fn distance(&self, other: Self) -> Option<u64> {
        (self.parts == other.parts).then_some(self.constant.wrapping_sub(other.constant))
    }

    /// The value or its negative: the one whose first factor is positive.
    pub fn absolute(self) -> Self {
        if (self.parts[0].1 as i64) < 0 {
            self.times(u64::MAX)
        } else {
            self
        }
    }

    /// The value `self` * `factor`.
    pub fn times(self, factor: u64) -> Self {
        let mut product = Self::constant(self.constant.wrapping_mul(factor));
        let parts = self
            .parts()
            .map(|(atom, times)| (atom, times.wrapping_mul(factor)))
            .filter(|part| part.1 != 0);
        for (place, part) in product.parts.iter_mut().zip(parts) {
            *place = part;
        }
        product
    }

    /// The value `self` + `other`, unless it has too many parts.
    fn sum(self, other: Self) -> Option<Self> {
        let mut parts: Vec<_> = self.parts().collect();
        for (atom, factor) in other.parts() {
            match parts.iter_mut().find(|part| part.0 == atom) {
                Some(part) => part.1 = part.1.wrapping_add(factor),
                None => parts.push((atom, factor)),
            }
        }
        parts.retain(|part| part.1 != 0);
        parts.sort_unstable();
        let mut sum = Self::constant(self.constant.wrapping_add(other.constant));
        let fits = parts.len() <= PARTS;
        for (place, part) in sum.parts.iter_mut().zip(parts) {
            *place = part;
        }
        fits.then_some(sum)
    }
}

/// The atoms that the values of one walk are made of.
#[derive(Debug)]
pub struct Values {
    nodes: Vec<Node>,
    numbers: HashMap<Node, Atom>,
}

impl Values {
    /// Creates the atoms that always exist.
    pub fn new() -> Self {
        let address = |bits| Node::Unknown {
            most: u64::MAX,
            low: Low::new(bits, 0),
        };
        Self {
            nodes: [CONTEXT_LOW, LOW_BITS, LOW_BITS]
                .into_iter()
                .chain(FIELD_TABLES.map(|_| LOW_BITS))
                .map(address)
                .collect(),
            numbers: HashMap::new(),
        }
    }

    /// The meaning of `atom`.
    pub fn node(&self, atom: Atom) -> Node {
        self.nodes[atom.0 as usize]
    }

    /// A new value, of which only an upper bound and low bits are known.
    pub fn unknown(&mut self, most: u64, low: Low) -> Value {
        self.nodes.push(Node::Unknown { most, low });
        Value::atom(Atom(self.nodes.len() as u32 - 1))
    }

    /// A new value of any 64 bits.
    pub fn any(&mut self) -> Value {
        self.unknown(u64::MAX, Low::UNKNOWN)
    }

    /// A new value of any 32 bits, zero-extended.
    pub fn word(&mut self) -> Value {
        self.unknown(WORD, Low::UNKNOWN)
    }

    /// A new number for [`Node::TableWord`], [`Node::Loaded`] or [`Grant`].
    pub fn serial(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// The value whose meaning is `node`.
    pub fn of(&mut self, node: Node) -> Value {
        let next = Atom(self.nodes.len() as u32);
        let atom = *self.numbers.entry(node).or_insert(next);
        if atom == next {
            self.nodes.push(node);
        }
        Value::atom(atom)
    }

    /// The value `a` + `b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        a.sum(b).unwrap_or_else(|| self.any())
    }

    /// The value `a` - `b`.
    pub fn subtract(&mut self, a: Value, b: Value) -> Value {
        self.add(a, b.times(u64::MAX))
    }

    /// The value `value` with all bits inverted.
    pub fn not(&self, value: Value) -> Value {
        value.times(u64::MAX).plus(u64::MAX)
    }

    /// The value `value` modulo 2^32.
    pub fn low32(&mut self, value: Value) -> Value {
        match value.known() {
            Some(known) => Value::constant(known & WORD),
            None if self.most(value) <= WORD => value,
            None => self.of(Node::Low32(value)),
        }
    }

    /// The value `value` shifted by `count`.
    pub fn shift(&mut self, shift: Shift, value: Value, count: u8) -> Value {
        let value = match shift.is_narrow() {
            true => self.low32(value),
            false => value,
        };
        self.of(Node::Shifted(shift, value, count))
    }

    /// An upper bound of `value`.
    pub fn most(&self, value: Value) -> u64 {
        value
            .parts()
            .try_fold(value.constant, |sum, (atom, factor)| {
                sum.checked_add(self.most_of(atom).checked_mul(factor)?)
            })
            .unwrap_or(u64::MAX)
    }

    fn most_of(&self, atom: Atom) -> u64 {
        match self.node(atom) {
            Node::Unknown { most, .. } => most,
            Node::Shifted(Shift::Right, value, count) => self.most(value) >> count,
            Node::Shifted(shift, ..) if !shift.is_narrow() => u64::MAX,
            Node::Extracted(_, log) => {
                u64::MAX >> (u64::BITS - INDEX_BITS.count_ones() - u32::from(log))
            }
            Node::Loaded { bytes: 1, .. } => u8::MAX.into(),
            Node::Loaded { bytes: 2, .. } => u16::MAX.into(),
            Node::Loaded { bytes: 4, .. } | Node::Low32(_) | Node::Shifted(..) | Node::Code(_) => {
                WORD
            }
            Node::Loaded { .. }
            | Node::TableWord(..)
            | Node::Slot(_)
            | Node::CodeSlot(_)
            | Node::Distance(_) => u64::MAX,
        }
    }

    /// The grant of the slot that `value` is, if it is one.
    pub fn slot(&self, value: Value) -> Option<Grant> {
        match self.node(value.single()?) {
            Node::Slot(slot) => Some(slot),
            _ => None,
        }
    }

    /// The known low bits of `value`.
    pub fn low(&self, value: Value) -> Low {
        let constant = Low::of(value.constant);
        value.parts().fold(constant, |sum, (atom, factor)| {
            sum.plus(self.low_of(atom).times(factor))
        })
    }

    fn low_of(&self, atom: Atom) -> Low {
        match self.node(atom) {
            Node::Unknown { low, .. } => low,
            Node::Low32(value) => self.low(value),
            _ => Low::UNKNOWN,
        }
    }

    /// Whether `value` has 32 bits, zero-extended.
    pub fn is_word(&self, value: Value) -> bool {
        self.most(value) <= WORD
    }
}
