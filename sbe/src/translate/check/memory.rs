//! [`Location`]: the memory that an instruction may access.

use super::memory;
use super::rule::Rule;
use super::state::State;
use super::value::{Atom, CONTEXT, Grant, Index, Node, Shift, TABLES, Table, Value, Values};
use crate::translate::context::{CODE_TABLE, Context, FETCH_TABLE, WRITE_TABLE};
use crate::translate::mode::Mode;
use mmu::{PAGE_SHIFT, PAGE_SIZE, SLOT_PRESENT};

/// The size in bytes of a table's slots.
const ENTRY_BYTES: u64 = 8;
/// The size in bytes of an entry table's words.
const CODE_BYTES: u64 = 4;
/// log2 of the size of the largest operand that has an index of its own.
const MOST_LOG: u8 = 4;

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The operand's address.
    pub address: Value,
    /// The operand's size.
    pub bytes: u64,
    /// Whether the operand is written.
    pub writes: bool,
    /// The alignment that its address needs.
    pub alignment: u64,
}

/// The location of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// The context, at this offset.
    Context(u64),
    /// Somewhere in the context.
    Array,
    /// A slot of a table.
    TableWord(Table, Index),
    /// The word of an entry table for an EIP.
    Code(Value),
    /// Memory of the guest.
    Guest,
}

/// The rights of code beside those of all code.
#[derive(Clone, Copy)]
pub struct Rights {
    /// The fields of the context that the code may write.
    pub writes: &'static [Field],
    /// Fields whose low bits are zeros, with the number of these bits.
    pub aligned: &'static [(Field, u8)],
    /// Whether the code may load R14, RSP and the FPU from the context.
    pub loads_state: bool,
    /// Whether the code may access the window.
    pub uses_window: bool,
}

/// A field of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offset of the field.
    pub offset: u64,
    /// Size of the field.
    pub bytes: u64,
    /// Size of its elements.
    pub element: u64,
}

impl Field {
    /// Whether the `bytes` bytes at `offset` are one of the field's elements.
    pub fn has(&self, offset: u64, bytes: u64) -> bool {
        let inside = offset.wrapping_sub(self.offset);
        inside < self.bytes && inside.is_multiple_of(self.element) && bytes == self.element
    }
}

/// The size of a field of the context.
pub const fn size<T>(_field: fn(&Context) -> &T) -> u64 {
    size_of::<T>() as u64
}

/// A [`Field`] by its name, or as an array by its name and its elements' type.
macro_rules! field {
    ($name:ident) => {
        field!($name, bytes memory::size(|context| &context.$name))
    };
    ($name:ident: $element:ty) => {
        field!($name, bytes size_of::<$element>() as u64)
    };
    ($name:ident, bytes $element:expr) => {
        memory::Field {
            offset: std::mem::offset_of!(crate::translate::context::Context, $name) as u64,
            bytes: memory::size(|context| &context.$name),
            element: $element,
        }
    };
}

/// The rights of a fragment in `mode`.
pub fn of_fragment(mode: Mode) -> Rights {
    const WRITES: &[Field] = &[
        field!(polls),
        field!(scratch),
        field!(interrupt_flag),
        field!(direction_flag),
        field!(x87_note),
        field!(x87_page),
        field!(x87_operand),
        field!(x87_selector),
    ];
    Rights {
        writes: WRITES,
        aligned: &[],
        loads_state: false,
        uses_window: mode == Mode::Windowed,
    }
}

/// Locates `operand`.
///
/// # Errors
/// The rule that forbids the access.
pub fn locate(values: &mut Values, rights: Rights, operand: Operand) -> Result<Location, Rule> {
    let Operand { address, bytes, .. } = operand;
    if address.has(CONTEXT) {
        return in_context(values, rights, operand);
    }
    if address.has(TABLES) {
        let place = entry(values, address).ok_or(Rule::Index)?;
        let whole = bytes == ENTRY_BYTES && !operand.writes;
        return whole.then_some(place).ok_or(Rule::Index);
    }
    for (atom, _) in address.parts().filter(|part| part.1 == 1) {
        match values.node(atom) {
            Node::CodeSlot(eip) => {
                let rest = values.subtract(address, Value::atom(atom));
                let whole = bytes == CODE_BYTES && !operand.writes;
                let known = whole && rest == eip.times(CODE_BYTES);
                return known.then_some(Location::Code(eip)).ok_or(Rule::Index);
            }
            Node::Slot(slot) => {
                let reached = reach(values, address, Value::atom(atom), slot);
                if let Some(reach) = reached {
                    return through(slot, reach, operand);
                }
            }
            _ => {}
        }
    }
    Err(Rule::Address)
}

/// The distance of an operand's start from the slot's address.
fn reach(values: &mut Values, address: Value, atom: Value, slot: Grant) -> Option<u64> {
    let linear = values.subtract(address, atom);
    let rest = values.subtract(linear, slot.address);
    rest.plus(SLOT_PRESENT).known()
}

fn through(slot: Grant, reach: u64, operand: Operand) -> Result<Location, Rule> {
    let inside = reach
        .checked_add(operand.bytes)
        .is_some_and(|end| end <= slot.bytes);
    if !inside || operand.bytes == 0 {
        Err(Rule::Size)
    } else if operand.writes && !slot.writes {
        Err(Rule::ReadSlot)
    } else if !reach.is_multiple_of(operand.alignment) || operand.alignment > 1 << slot.aligned {
        Err(Rule::Alignment)
    } else {
        Ok(Location::Guest)
    }
}

fn in_context(values: &mut Values, rights: Rights, operand: Operand) -> Result<Location, Rule> {
    let offset = values.subtract(operand.address, Value::atom(CONTEXT));
    let end = values.most(offset).checked_add(operand.bytes);
    if end.is_none_or(|end| end > size_of::<Context>() as u64) {
        return Err(Rule::Field);
    }
    match offset.known() {
        Some(offset) => {
            let writable = || {
                let has = |field: &Field| field.has(offset, operand.bytes);
                rights.writes.iter().any(has)
            };
            let may = !operand.writes || writable();
            may.then_some(Location::Context(offset)).ok_or(Rule::Field)
        }
        None if !operand.writes => Ok(Location::Array),
        _ => Err(Rule::Field),
    }
}

fn entry(values: &mut Values, address: Value) -> Option<Location> {
    let table = match address.constant as i64 {
        0 => Table::Read,
        distance if distance == WRITE_TABLE.into() => Table::Write,
        distance if distance == FETCH_TABLE.into() => Table::Fetch,
        distance if distance == CODE_TABLE.into() => Table::Code,
        _ => return None,
    };
    let rest = values.subtract(address, Value::atom(TABLES));
    let rest = rest.plus(address.constant.wrapping_neg());
    let mut parts = rest.parts();
    let index = match (parts.next(), parts.next()) {
        (Some((atom, ENTRY_BYTES)), None) => index(values, atom)?,
        _ => return None,
    };
    let has_any = matches!(table, Table::Read | Table::Write);
    (index.log == 0 || has_any).then_some(Location::TableWord(table, index))
}

/// The index that `atom` is: the page number of an address, below the address's low bits, if those are few enough.
fn index(values: &Values, atom: Atom) -> Option<Index> {
    let Node::Shifted(Shift::Right, rotated, count) = values.node(atom) else {
        return None;
    };
    let node = rotated.single().map(|atom| values.node(atom));
    if let Some(Node::Shifted(Shift::Rotate32, address, log)) = node {
        let fits = log <= MOST_LOG && u32::from(count + log) == PAGE_SHIFT;
        if fits {
            return Some(Index { address, log });
        }
    }
    let fits = u32::from(count) == PAGE_SHIFT && values.is_word(rotated);
    fits.then_some(Index {
        address: rotated,
        log: 0,
    })
}

/// Checks that a repeated string instruction may access `count` elements of `bytes` bytes at `pointer`, upwards.
///
/// # Errors
/// The rule that is violated, if they may lie in more than one page, or in one that may not be accessed.
pub fn repeated(
    values: &mut Values,
    state: &State,
    pointer: Value,
    count: Value,
    bytes: u64,
    writes: bool,
) -> Result<(), Rule> {
    let Some((atom, slot)) = pointer
        .parts()
        .find_map(|(atom, _)| match values.node(atom) {
            Node::Slot(slot) => Some((atom, slot)),
            _ => None,
        })
    else {
        return Err(Rule::Address);
    };
    if reach(values, pointer, Value::atom(atom), slot) != Some(0) {
        return Err(Rule::Address);
    }
    // A larger count could wrap around to the same page.
    if !values.is_word(count) {
        return Err(Rule::Size);
    }
    let end = values.add(slot.address, count.times(bytes));
    if !same_page(values, state, slot.address, end.plus(u64::MAX)) {
        return Err(Rule::Size);
    }
    if writes && !slot.writes {
        return Err(Rule::ReadSlot);
    }
    Ok(())
}

/// Whether two addresses were found to lie in one page.
pub fn same_page(values: &mut Values, state: &State, first: Value, last: Value) -> bool {
    let shift = PAGE_SHIFT as u8;
    let first = values.shift(Shift::Right, first, shift);
    let last = values.shift(Shift::Right, last, shift);
    let distance = values.subtract(last, first);
    state.knows(distance, true)
}

/// The access granted by a slot at `index` that is not empty: to as many bytes as the address is aligned to, since it would have
/// missed else, or as were found to lie in the page of the address.
pub fn granted(values: &Values, state: &State, index: Index, writes: bool) -> Grant {
    let low = values.low(index.address);
    let aligned = index.log.max(low.zeros());
    let bytes = state
        .facts
        .iter()
        .filter(|fact| fact.zero)
        .filter_map(|fact| same_page_as(values, fact.value, index.address))
        .fold(1 << aligned, |most, last| most.max(last + 1));
    Grant {
        address: index.address,
        bytes,
        aligned,
        writes,
    }
}

/// The distance from `address` to another address behind it, if `difference` is that of their page numbers.
fn same_page_as(values: &Values, difference: Value, address: Value) -> Option<u64> {
    let mut parts = difference.parts();
    let (Some(a), Some(b), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let opposite = (a.1.wrapping_neg() == b.1) && matches!(a.1, 1 | u64::MAX);
    if !opposite || difference.constant != 0 {
        return None;
    }
    [(a.0, b.0), (b.0, a.0)]
        .into_iter()
        .filter(|&(first, _)| shifted_by_page(values, first) == Some(address))
        .filter_map(|(_, last)| {
            let last = shifted_by_page(values, last)?;
            let last = match last.single().map(|atom| values.node(atom)) {
                Some(Node::Low32(sum)) => sum,
                _ => last,
            };
            last.distance(address)
        })
        .find(|&distance| distance < PAGE_SIZE as u64)
}

/// The address of which `atom` is the page number.
fn shifted_by_page(values: &Values, atom: Atom) -> Option<Value> {
    match values.node(atom) {
        Node::Shifted(Shift::Right, value, count) if u32::from(count) == PAGE_SHIFT => Some(value),
        _ => None,
    }
}
