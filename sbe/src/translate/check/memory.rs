//! [`Location`]: the memory that an instruction may access.
//!
//! With 32-bit linear addresses every page has a slot of its own, and an address with its slot added is that of a byte of the
//! page. With 48-bit ones, slots are found by some bits of the address, which PEXT puts together by a mask of the context. Then
//! three things are proven of an access:
//!
//! * The slot lies in the table. The mask has 30 bits, and one more for each bit of the address that has to be clear, so that
//!   an index for an access of 2^n bytes is below 2^(30 + n). Tables of data have as many slots, with n up to 4, and those from
//!   2^30 on, which misaligned addresses lead to, are always empty; those of fetches and code have 2^30, and are indexed by pages
//!   only.
//! * The address that the slot is added to is the one that the slot was found by, and the access lies in the bytes that were
//!   found to be in one page with it.
//! * The access cannot reach what is not the guest's RAM. The slot may be that of another page, and the address not canonical.
//!   They have the bits of [`INDEX_BITS`](mmu::INDEX_BITS) in common, so they differ by a multiple of 1 TiB; and so does the sum
//!   from a host address in RAM, of which there is less than 1 TiB. The process has no accessible memory at such a distance from
//!   RAM, and addresses that are not canonical cannot be accessed. So the host faults: [`Rule::Restart`].
//!
//! Code with a window forms addresses by the window's directory instead, with 32 bits of the address as index, of which nothing else
//! needs to be proven. What lies in [`REACH`] of it is the guest's, or faults (`mmu`, `shadow::wide`), and the rule is the
//! same; but of two accesses the second may fault, too, as a page may be shown for reading only.

use super::memory;
use super::rule::Rule;
use super::state::State;
use super::value::{
    Atom, CONTEXT, FIELD_TABLES, Grant, Index, Node, Shift, TABLES, Table, Value, Values,
};
use super::widths::Widths;
use crate::translate::context::{self, Context};
use crate::translate::mode::Mode;
use mmu::{LinearWidth, PAGE_SHIFT, PAGE_SIZE, REACH, SLOT_PRESENT};
use std::mem::offset_of;

/// The size in bytes of a table's slots.
const ENTRY_BYTES: u64 = 8;
/// The size in bytes of an entry table's words.
const CODE_BYTES: u64 = 4;
/// The rotation to the right that multiplies an address by the size of an entry table's words, and keeps all its bits.
const CODE_ROTATION: u8 = 62;
/// The rotation to the right that leaves the low half of an offset clear only if the offset is that of a word in the area of entry
/// tables, of 16 GiB.
const AREA_ROTATION: u8 = 34;
/// Offset of the context's negated address of the area of entry tables.
const ENTRIES: u64 = offset_of!(Context, entries) as u64;
/// The rotation that makes the upper half of a quadword the lower one.
const HALF: u8 = 32;
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
    /// Memory of the guest, reached through this slot.
    Guest(Grant),
    /// Memory of the guest, or inaccessible, reached by the directory of a window.
    Window,
}

/// The rights of code beside those of all code.
#[derive(Clone, Copy)]
pub struct Rights {
    /// The widths of addresses and code.
    pub widths: Widths,
    /// The fields of the context that the code may write.
    pub writes: &'static [Field],
    /// Fields whose low bits are zeros, with the number of these bits.
    pub aligned: &'static [(Field, u8)],
    /// Whether the code may load R14, RSP and the FPU from the context, or change the context's tables.
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

    /// The index of the element at `offset`.
    pub fn index(&self, offset: u64) -> Option<u64> {
        let inside = offset.wrapping_sub(self.offset);
        self.has(offset, self.element)
            .then_some(inside / self.element)
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

/// The fields that fragments may write: first those that only 64-bit code may, then those of 64-bit addresses, which code of both
/// widths may where it has 48-bit linear addresses.
const WRITES: &[Field] = &[
    UPPER_REGISTERS,
    field!(gs_base),
    field!(kernel_gs_base),
    field!(page),
    field!(x87_page),
    field!(x87_operand),
    field!(polls),
    field!(scratch),
    field!(interrupt_flag),
    field!(direction_flag),
    field!(x87_note),
    field!(x87_page: u32),
    field!(x87_operand: u32),
    field!(x87_selector),
];
/// The numbers of fields that only 64-bit code may write, and that only code with 48-bit linear addresses may.
const ONLY_64: usize = 3;
const ONLY_48: usize = 6;

/// R8 to R15.
pub const UPPER_REGISTERS: Field = {
    let all = field!(regs: u64);
    Field {
        offset: all.offset + all.bytes / 2,
        bytes: all.bytes / 2,
        ..all
    }
};

/// The rights of a fragment in `mode`, with linear addresses of this width.
pub fn of_fragment(tables: LinearWidth, mode: Mode) -> Rights {
    let widths = Widths {
        tables,
        code: mode.code_size(),
    };
    let first = match (widths.is_64(), widths.has_wide_tables()) {
        (true, _) => 0,
        (false, true) => ONLY_64,
        (false, false) => ONLY_48,
    };
    Rights {
        widths,
        writes: &WRITES[first..],
        aligned: &[],
        loads_state: false,
        uses_window: mode.is_windowed() && widths.is_64() == widths.has_wide_tables(),
    }
}

/// Locates `operand`.
///
/// # Errors
/// The rule that forbids the access.
pub fn locate(
    values: &mut Values,
    state: &State,
    rights: Rights,
    operand: Operand,
) -> Result<Location, Rule> {
    let Operand { address, bytes, .. } = operand;
    if address.has(CONTEXT) {
        return in_context(values, rights, operand);
    }
    if let Some(base) = table_in(address) {
        let place = entry(values, rights.widths, address, base).ok_or(Rule::Index)?;
        let whole = bytes == ENTRY_BYTES && !operand.writes;
        return whole.then_some(place).ok_or(Rule::Index);
    }
    for (atom, _) in address.parts().filter(|part| part.1 == 1) {
        match values.node(atom) {
            Node::CodeSlot(eip) => {
                let rest = values.subtract(address, Value::atom(atom));
                let whole = bytes == CODE_BYTES && !operand.writes;
                let known = whole
                    && match rights.widths.has_wide_tables() {
                        true => {
                            rest == values.shift(Shift::Rotate64, eip, CODE_ROTATION)
                                && is_entry(values, state, address)
                        }
                        false => rest == eip.times(CODE_BYTES),
                    };
                return known.then_some(Location::Code(eip)).ok_or(Rule::Index);
            }
            Node::Distance(unit) => {
                let linear = values.subtract(address, Value::atom(atom));
                if is_in_reach(values, unit, linear) {
                    return Ok(Location::Window);
                }
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

/// Whether `address`, the sum of a code slot and the EIP that it was found by, was found to be that of a word in the area of entry
/// tables. Then the slot is that of EIP's page: the address of any other page with this slot differs in bits above 39, which a
/// rotation moves to places above those of offsets in the area, or to the lowest two.
fn is_entry(values: &mut Values, state: &State, address: Value) -> bool {
    state.facts.clone().into_iter().any(|fact| {
        let low = fact.value.single().map(|atom| values.node(atom));
        let Some(Node::Low32(rotated)) = low else {
            return false;
        };
        let node = rotated.single().map(|atom| values.node(atom));
        let Some(Node::Shifted(Shift::Rotate64, offset, AREA_ROTATION)) = node else {
            return false;
        };
        let negated = values.subtract(offset, address);
        fact.zero && is_field(values, negated, ENTRIES)
    })
}

/// Whether `value` was loaded from a quadword of the context.
pub fn is_field(values: &Values, value: Value, offset: u64) -> bool {
    field_of(values, value) == Some(offset)
}

/// The offset of the quadword of the context that `value` was loaded from.
pub fn field_of(values: &Values, value: Value) -> Option<u64> {
    match values.node(value.single()?) {
        Node::Loaded {
            address, bytes: 8, ..
        } => address.distance(Value::atom(CONTEXT)),
        _ => None,
    }
}

/// Whether `linear` lies in [`REACH`] of an address of which `unit` is the upper half.
fn is_in_reach(values: &mut Values, unit: Value, linear: Value) -> bool {
    let node = |values: &Values, value: Value| value.single().map(|atom| values.node(atom));
    let Some(Node::Low32(rotated)) = node(values, unit) else {
        return false;
    };
    let Some(Node::Shifted(Shift::Rotate64, within, HALF)) = node(values, rotated) else {
        return false;
    };
    let distance = values.subtract(linear, within);
    let least = distance.constant.cast_signed();
    let more = values.most(distance.plus(distance.constant.wrapping_neg()));
    let most = i64::try_from(more)
        .ok()
        .and_then(|more| least.checked_add(more));
    REACH.contains(&least) && most.is_some_and(|most| REACH.contains(&most))
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
        Ok(Location::Guest(slot))
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

/// The address of a table that is part of `address`: R14's, or one that was loaded from its field in the context.
fn table_in(address: Value) -> Option<Atom> {
    let loaded = FIELD_TABLES.map(|(atom, _)| atom);
    let mut tables = loaded.into_iter().chain([TABLES]);
    tables.find(|&table| address.has(table))
}

/// The table of which `address`, the sum of the table's or the read table's address `base` and other parts, has a slot.
fn table(widths: Widths, base: Atom, address: Value) -> Option<Table> {
    if let Some(&(_, table)) = FIELD_TABLES.iter().find(|table| table.0 == base) {
        return (widths.has_wide_tables() && address.constant == 0).then_some(table);
    }
    let distance = |distance: i32| address.constant == i64::from(distance) as u64;
    match widths.tables {
        _ if address.constant == 0 => Some(Table::Read),
        LinearWidth::Bits48 => None,
        LinearWidth::Bits32 if distance(context::WRITE_TABLE) => Some(Table::Write),
        LinearWidth::Bits32 if distance(context::FETCH_TABLE) => Some(Table::Fetch),
        LinearWidth::Bits32 if distance(context::CODE_TABLE) => Some(Table::Code),
        LinearWidth::Bits32 => None,
    }
}

fn entry(values: &mut Values, widths: Widths, address: Value, base: Atom) -> Option<Location> {
    let table = table(widths, base, address)?;
    let rest = values.subtract(address, Value::atom(base));
    let rest = rest.plus(address.constant.wrapping_neg());
    let mut parts = rest.parts();
    let index = match (parts.next(), parts.next()) {
        (Some((atom, ENTRY_BYTES)), None) => match widths.tables {
            LinearWidth::Bits32 => index(values, atom)?,
            LinearWidth::Bits48 => extracted_index(values, atom)?,
        },
        _ => return None,
    };
    let has_any = matches!(table, Table::Read | Table::Write);
    (index.log == 0 || has_any).then_some(Location::TableWord(table, index))
}

/// The index that `atom` is in tables of 32-bit addresses: the page number of an address, below the address's low bits, if those
/// are few enough.
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

/// The index that `atom` is in tables of 48-bit addresses: what the mask for a size extracts from an address, rotated by log2 of
/// the size.
fn extracted_index(values: &Values, atom: Atom) -> Option<Index> {
    let Node::Extracted(rotated, log) = values.node(atom) else {
        return None;
    };
    if log == 0 {
        let address = rotated;
        return Some(Index { address, log });
    }
    match values.node(rotated.single()?) {
        Node::Shifted(Shift::Rotate64, address, count) if count == log && log <= MOST_LOG => {
            Some(Index { address, log })
        }
        _ => None,
    }
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
) -> Result<Grant, Rule> {
    let Some((atom, slot)) = pointer
        .parts()
        .filter(|part| part.1 == 1)
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
    Ok(slot)
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
pub fn granted(values: &Values, state: &State, index: Index, writes: bool, load: u32) -> Grant {
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
        load,
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
            let sum = match last.single().map(|atom| values.node(atom)) {
                Some(Node::Low32(sum)) => sum,
                _ => last,
            };
            last.distance(address).or_else(|| sum.distance(address))
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
