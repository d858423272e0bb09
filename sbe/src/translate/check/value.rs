//! [`Value`]: what a register holds, as a sum of named parts, so that equal sums are equal values whatever code made them.

use hashbrown::HashMap;

/// Largest 32-bit number.
pub const WORD: u64 = u32::MAX as u64;
/// Low bits of a number that are kept account of: those of an offset in a page.
const LOW_BITS: u8 = 12;
/// Parts that a sum can have; one of more is just some number.
const PARTS: usize = 3;
/// The 64-byte alignment of the context and the page alignment of the tables.
const CONTEXT_LOW: u8 = 6;

/// Part of a sum, by its number in [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom(u32);

/// Address of the context.
pub const CONTEXT: Atom = Atom(0);
/// Address of the read table of the current privilege.
pub const TABLES: Atom = Atom(1);
/// Host address at which the arena's first byte executes.
pub const ARENA: Atom = Atom(2);

/// What is known of the low bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Low {
    /// How many are known.
    pub bits: u8,
    /// They.
    pub value: u64,
}

impl Low {
    /// Nothing.
    pub const UNKNOWN: Self = Self { bits: 0, value: 0 };

    /// All that are kept account of.
    pub const fn of(value: u64) -> Self {
        Self::new(LOW_BITS, value)
    }

    /// So many.
    pub const fn new(bits: u8, value: u64) -> Self {
        let value = value & ((1 << bits) - 1);
        Self { bits, value }
    }

    /// How many are known to be zeros, up to the first that is not.
    pub fn zeros(self) -> u8 {
        self.bits.min(self.value.trailing_zeros() as u8)
    }

    /// What both know.
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

/// A table of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// For reads.
    Read,
    /// For writes.
    Write,
    /// For fetches: emitted code only compares what is there.
    Fetch,
    /// Of entry tables.
    Code,
}

/// An operation that is not kept as a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shift {
    /// Right, of 64 bits.
    Right,
    /// Left, of 32 bits.
    Left32,
    /// Right with copies of the sign, of 32 bits.
    Signed32,
    /// Rotation right, of 32 bits.
    Rotate32,
}

/// What a part of a sum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Some number.
    Unknown {
        /// Upper bound.
        most: u64,
        /// Its low bits.
        low: Low,
    },
    /// The low 32 bits of a number.
    Low32(Value),
    /// A shifted number.
    Shifted(Shift, Value, u8),
    /// A number found in memory.
    Loaded {
        /// Its address.
        address: Value,
        /// Its size.
        bytes: u8,
        /// Tells apart what memory held at different times.
        version: u32,
    },
    /// A word of a table, which may be empty; the second number makes it one of its kind.
    TableWord(Table, Index, u32),
    /// A slot that is not empty: with a linear address added, it is a host address but for its bias.
    Slot(Grant),
    /// Address of the entry table for the page of an EIP, less four times the page's address.
    CodeSlot(Value),
    /// Arena offset of the code for an EIP, or 0.
    Code(Value),
}

/// Index of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// For the page of this linear address.
    pub address: Value,
    /// Of an empty slot unless the address is a multiple of two to this.
    pub log: u8,
}

/// What a slot that is not empty grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Access from this linear address on,
    pub address: Value,
    /// to so many bytes;
    pub bytes: u64,
    /// the address is a multiple of two to this;
    pub aligned: u8,
    /// whether for writing, too.
    pub writes: bool,
}

/// A sum of multiples of atoms and a constant, modulo 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// Factors that are not 0 first, by atom; then zeros.
    parts: [(Atom, u64); PARTS],
    /// What is added to them.
    pub constant: u64,
}

impl Value {
    const NO_PART: (Atom, u64) = (Atom(0), 0);

    /// `constant`.
    pub const fn constant(constant: u64) -> Self {
        Self {
            parts: [Self::NO_PART; PARTS],
            constant,
        }
    }

    /// `atom` alone.
    pub const fn atom(atom: Atom) -> Self {
        let mut value = Self::constant(0);
        value.parts[0] = (atom, 1);
        value
    }

    /// Its parts: atoms and factors.
    pub fn parts(&self) -> impl Iterator<Item = (Atom, u64)> {
        self.parts.into_iter().filter(|part| part.1 != 0)
    }

    /// Its value, if that is known.
    pub fn known(&self) -> Option<u64> {
        self.parts().next().is_none().then_some(self.constant)
    }

    /// The atom it is, if it is one.
    pub fn single(&self) -> Option<Atom> {
        let atom = self.parts[0].0;
        (*self == Self::atom(atom)).then_some(atom)
    }

    /// Whether `atom` is part of the sum just once.
    pub fn has(&self, atom: Atom) -> bool {
        self.parts().any(|part| part == (atom, 1))
    }

    /// `self` + `constant`.
    pub fn plus(mut self, constant: u64) -> Self {
        self.constant = self.constant.wrapping_add(constant);
        self
    }

    /// `self` - `other`, if that is a constant.
    pub fn distance(&self, other: Self) -> Option<u64> {
        (self.parts == other.parts).then_some(self.constant.wrapping_sub(other.constant))
    }

    /// The same or its negative, whichever of both the first factor is positive in.
    pub fn absolute(self) -> Self {
        if (self.parts[0].1 as i64) < 0 {
            self.times(u64::MAX)
        } else {
            self
        }
    }

    /// `self` * `factor`.
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

    /// The sum, unless it has too many parts.
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

/// All atoms that the values of one piece of code are made of.
#[derive(Debug)]
pub struct Values {
    nodes: Vec<Node>,
    numbers: HashMap<Node, Atom>,
}

impl Values {
    /// The atoms that there always are.
    pub fn new() -> Self {
        let address = |bits| Node::Unknown {
            most: u64::MAX,
            low: Low::new(bits, 0),
        };
        Self {
            nodes: vec![address(CONTEXT_LOW), address(LOW_BITS), address(LOW_BITS)],
            numbers: HashMap::new(),
        }
    }

    /// What `atom` is.
    pub fn node(&self, atom: Atom) -> Node {
        self.nodes[atom.0 as usize]
    }

    /// Some number of which only this is known.
    pub fn unknown(&mut self, most: u64, low: Low) -> Value {
        self.nodes.push(Node::Unknown { most, low });
        Value::atom(Atom(self.nodes.len() as u32 - 1))
    }

    /// Any 64 bits.
    pub fn any(&mut self) -> Value {
        self.unknown(u64::MAX, Low::UNKNOWN)
    }

    /// Any 32 bits, zero-extended.
    pub fn word(&mut self) -> Value {
        self.unknown(WORD, Low::UNKNOWN)
    }

    /// A new number for [`Node::TableWord`] or [`Node::Loaded`].
    pub fn serial(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// The value that is just `node`.
    pub fn of(&mut self, node: Node) -> Value {
        let next = Atom(self.nodes.len() as u32);
        let atom = *self.numbers.entry(node).or_insert(next);
        if atom == next {
            self.nodes.push(node);
        }
        Value::atom(atom)
    }

    /// `a` + `b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        a.sum(b).unwrap_or_else(|| self.any())
    }

    /// `a` - `b`.
    pub fn subtract(&mut self, a: Value, b: Value) -> Value {
        self.add(a, b.times(u64::MAX))
    }

    /// All bits of `value` inverted.
    pub fn not(&self, value: Value) -> Value {
        value.times(u64::MAX).plus(u64::MAX)
    }

    /// `value` modulo 2^32.
    pub fn low32(&mut self, value: Value) -> Value {
        match value.known() {
            Some(known) => Value::constant(known & WORD),
            None if self.most(value) <= WORD => value,
            None => self.of(Node::Low32(value)),
        }
    }

    /// `value` shifted by `count`.
    pub fn shift(&mut self, shift: Shift, value: Value, count: u8) -> Value {
        let value = match shift {
            Shift::Right => value,
            _ => self.low32(value),
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
            Node::Loaded { bytes: 1, .. } => u8::MAX.into(),
            Node::Loaded { bytes: 2, .. } => u16::MAX.into(),
            Node::Loaded { bytes: 4, .. } | Node::Low32(_) | Node::Shifted(..) | Node::Code(_) => {
                WORD
            }
            Node::Loaded { .. } | Node::TableWord(..) | Node::Slot(_) | Node::CodeSlot(_) => {
                u64::MAX
            }
        }
    }

    /// The slot that `value` is, if it is just one.
    pub fn slot(&self, value: Value) -> Option<Grant> {
        match self.node(value.single()?) {
            Node::Slot(slot) => Some(slot),
            _ => None,
        }
    }

    /// What is known of the low bits of `value`.
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
