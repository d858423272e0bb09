//! [`Spaces`]: the guest's most recent address spaces, each of which has a set of tables.

use super::view::set_bytes;
use crate::addr::LinearWidth;
use crate::paging::Pdptes;

/// Most spaces kept; beyond that, the least recently used one makes room. A space that is lost loses its window too, which has to
/// be made again page by page; so there are more than busy processes, as a rule. Ended processes leave spaces that others take
/// over, and so few are in use at a time.
pub(super) const fn most_spaces(width: LinearWidth) -> usize {
    match width {
        LinearWidth::Bits32 => 128,
        LinearWidth::Bits48 => 64,
    }
}

/// Host addresses that the tables of all spaces of a processor may take: half of what a host process has on x86-64.
const HOST_ADDRESSES: usize = 1 << 46;

const fn fit(width: LinearWidth) -> bool {
    most_spaces(width) * set_bytes(width) <= HOST_ADDRESSES
}
const _: () = assert!(fit(LinearWidth::Bits32) && fit(LinearWidth::Bits48));

/// The key of an address space. Two spaces with the same key translate alike while CR0, CR4 and EFER stay the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpaceKey {
    /// Paging is off.
    Unpaged,
    /// 32-bit or 4-level paging: address of the top structure.
    Top(u64),
    /// PAE paging: the pointer registers.
    Pointers(Pdptes),
}

/// A generation of a space: the time from one emptying of its tables to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Generation {
    /// Index of the space and of its set of tables.
    pub(super) space: u8,
    number: u64,
}

/// The name of an address space, valid while its cached translations are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpaceId {
    space: u8,
    generation: u64,
}

impl SpaceId {
    /// A small number, different for any two spaces that exist at a time.
    pub fn index(self) -> usize {
        self.space.into()
    }
}

impl Generation {
    /// The name of the space outside this crate.
    pub(super) fn id(self) -> SpaceId {
        SpaceId {
            space: self.space,
            generation: self.number,
        }
    }
}

struct Space {
    key: SpaceKey,
    generation: u64,
    /// The moment at which the space was last entered.
    entered: u64,
}

/// The address spaces, one of which is current.
pub(super) struct Spaces {
    spaces: Vec<Space>,
    /// Most spaces that are kept.
    most: usize,
    current: u8,
    /// Counts entries into spaces and generations.
    clock: u64,
}

impl Spaces {
    /// Creates one space, which is current, of a processor with such addresses.
    pub(super) fn new(width: LinearWidth, key: SpaceKey) -> Self {
        let first = Space {
            key,
            generation: 0,
            entered: 0,
        };
        Self {
            spaces: vec![first],
            most: most_spaces(width),
            current: 0,
            clock: 0,
        }
    }

    /// Whether the space of `key` is current.
    #[inline]
    pub(super) fn is_current(&self, key: SpaceKey) -> bool {
        self.spaces[usize::from(self.current)].key == key
    }

    /// The generation of the current space.
    pub(super) fn current(&self) -> Generation {
        self.generation(self.current)
    }

    /// The space of `key`.
    pub(super) fn find(&self, key: SpaceKey) -> Option<u8> {
        let index = self.spaces.iter().position(|space| space.key == key);
        index.map(|index| index as u8)
    }

    /// Makes a space the current one.
    pub(super) fn enter(&mut self, space: u8) {
        let now = self.tick();
        self.spaces[usize::from(space)].entered = now;
        self.current = space;
    }

    /// Whether no more may be added.
    pub(super) fn is_full(&self) -> bool {
        self.spaces.len() >= self.most
    }

    /// Adds a space.
    pub(super) fn push(&mut self, key: SpaceKey) -> u8 {
        let generation = self.tick();
        self.spaces.push(Space {
            key,
            generation,
            entered: 0,
        });
        self.spaces.len() as u8 - 1
    }

    /// Gives a space another key.
    pub(super) fn rename(&mut self, space: u8, key: SpaceKey) {
        self.spaces[usize::from(space)].key = key;
    }

    /// Ends the generation of a space whose tables are being emptied.
    pub(super) fn end(&mut self, space: u8) {
        self.spaces[usize::from(space)].generation = self.tick();
    }

    /// Whether the space is still of this generation.
    pub(super) fn is_live(&self, generation: Generation) -> bool {
        self.generation(generation.space) == generation
    }

    /// Whether the space that `id` names still exists.
    pub(super) fn is_present(&self, id: SpaceId) -> bool {
        self.generation(id.space).id() == id
    }

    /// All spaces, the least recently entered first, the current one last.
    pub(super) fn oldest_first(&self) -> Vec<u8> {
        let mut order: Vec<u8> = (0..self.spaces.len() as u8).collect();
        order.sort_by_key(|&space| self.entered(space));
        order
    }

    /// The least recently entered space, which is not the current one if there are others.
    pub(super) fn oldest(&self) -> u8 {
        (0..self.spaces.len() as u8)
            .min_by_key(|&space| self.entered(space))
            .unwrap_or(self.current)
    }

    /// The most recently entered space that `is_wanted`, other than the current one.
    pub(super) fn latest_other(&self, is_wanted: impl Fn(u8) -> bool) -> Option<u8> {
        (0..self.spaces.len() as u8)
            .filter(|&space| space != self.current && is_wanted(space))
            .max_by_key(|&space| self.entered(space))
    }

    fn entered(&self, space: u8) -> u64 {
        self.spaces[usize::from(space)].entered
    }

    fn generation(&self, space: u8) -> Generation {
        Generation {
            space,
            number: self.spaces[usize::from(space)].generation,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
