//! [`Writer`]: adds records to a script, carries each out on the model, and flushes what must be flushed.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::format::{Mode, P, PAGE, Width};
use super::layout::{DIRECT, HOME, pages};
use super::model::Model;
use super::record::{Operation, Record};
use super::stale::{Need, Stale};

/// CR0 with paging off: PE and NE.
const CR0: u32 = 0x21;
const CR0_WP: u32 = 1 << 16;
const CR0_PG: u32 = 1 << 31;
const CR4_PSE: u32 = 1 << 4;
const CR4_PAE: u32 = 1 << 5;
const CR4_PGE: u32 = 1 << 7;
const EFER_NXE: u32 = 1 << 11;

/// A script in the making.
pub struct Writer {
    /// The choices among ways to do the same.
    pub rng: Rng,
    /// The machine as the script leaves it.
    pub model: Model,
    /// Whether the processor is in ring 3.
    pub user: bool,
    /// How often each thing occurs.
    pub counts: BTreeMap<String, u64>,
    /// The width of the code that executes the script.
    pub width: Width,
    /// The pages that are used.
    pub pages: Vec<u64>,
    /// Whether supervisors have memory at [`DIRECT`], too.
    direct: bool,
    records: Vec<Record>,
    stale: Stale,
}

impl Writer {
    /// Creates an empty script, on a machine on which no page is mapped.
    pub fn new(seed: u64, width: Width) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            model: Model::new(width.modes()[0]),
            user: false,
            counts: BTreeMap::new(),
            width,
            pages: pages(width),
            direct: false,
            records: Vec::new(),
            stale: Stale::new(pages(width)),
        }
    }

    /// Counts an occurrence of `what`.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Returns true once in `times`.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.rng.u32(..times) == 0
    }

    /// Returns one of `choices`.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }

    /// Adds a record as it is.
    pub fn emit(&mut self, record: Record) {
        self.records.push(record);
    }

    /// The records so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    fn operate(&mut self, operation: Operation, address: impl Into<u64>, operand: impl Into<u64>) {
        self.emit(Record::new(operation, address.into(), operand.into()));
    }

    /// Goes to ring 3 or 0, by IRET and INT n or by SYSEXIT and SYSENTER, in 64-bit code SYSRET and SYSCALL.
    pub fn go_to(&mut self, user: bool) {
        if user != self.user {
            let operation = match user {
                true => Operation::ToUser,
                false => Operation::ToKernel,
            };
            let fast = self.rng.bool();
            self.emit(Record {
                count: fast.into(),
                ..Record::new(operation, 0, 0)
            });
            self.user = user;
        }
    }

    /// Does something that needs ring 0, and usually goes back.
    fn privileged(&mut self, action: impl FnOnce(&mut Self)) {
        let user = self.user;
        self.go_to(false);
        action(self);
        let back = !self.once_in(8);
        self.go_to(user && back);
    }

    /// Ends part `step` of the script.
    pub fn checkpoint(&mut self, step: u32) {
        let mut record = Record::new(Operation::Checkpoint, 0, 0);
        record.expected = step.into();
        self.emit(record);
    }

    /// Ends the script.
    pub fn finish(&mut self) {
        self.operate(Operation::Finish, 0u32, 0u32);
    }

    // --- Memory -------------------------------------------------------------------------------------------------------

    /// A linear address of physical memory.
    fn place(&mut self, physical: u32) -> u64 {
        if self.direct && !self.user && self.rng.bool() {
            self.count("use of the direct map");
            return DIRECT + u64::from(physical);
        }
        physical.into()
    }

    /// Stores a word that is no entry in use.
    pub fn store(&mut self, address: u32, word: u32) {
        let place = self.place(address);
        self.operate(Operation::Store, place, word);
        self.model.write(address, &word.to_le_bytes());
    }

    /// Stores `values` words from `address` on, each by `step` more than the last, with the width of entries.
    pub fn fill(&mut self, address: u32, first: u32, step: u32, values: u16) {
        let entry = self.model.mode.entry();
        self.emit(Record {
            operation: Operation::Fill,
            count: (entry == 4).into(),
            error: values,
            address: address.into(),
            operand: first.into(),
            expected: step.into(),
        });
        for index in 0..u32::from(values) {
            let value = first.wrapping_add(index.wrapping_mul(step));
            self.model
                .set_entry(address + index * entry, u64::from(value));
        }
    }

    /// Changes an entry, which may be in use.
    pub fn edit(&mut self, address: u32, value: u64) {
        let before = self.stale.snapshot(&self.model);
        let old = self.model.entry(address).value;
        let place = self.place(address);
        let (low, high) = (value as u32, (value >> 32) as u32);
        if self.model.mode == Mode::FourLevel {
            self.operate(Operation::Store64, place, value);
        } else {
            if self.model.mode == Mode::Pae && (old >> 32) as u32 != high {
                // Never a present entry that is half old, half new.
                if old & P != 0 {
                    self.operate(Operation::Store, place, 0u32);
                }
                self.operate(Operation::Store, place + 4, high);
            }
            self.operate(Operation::Store, place, low);
        }
        self.model.set_entry(address, value);
        self.stale
            .changed(&before, &self.stale.snapshot(&self.model));
    }

    /// Requires the bits `mask` of the low half of the entry at `address` to be those of the model.
    pub fn check_word(&mut self, address: u32, mask: u32) {
        let place = self.place(address);
        self.emit(Record {
            expected: (self.model.word(address) & mask).into(),
            ..Record::new(Operation::Check, place, mask.into())
        });
    }

    /// Compares the entries that the walk for `linear` reads, but for the bits `unknown` of those that are present and do not have
    /// them yet. These are then set, so that they are known again.
    pub fn check_entries(&mut self, linear: u64, unknown: u64) {
        for entry in self.model.walk(linear).entries() {
            let unknown = match entry.value & P {
                0 => 0,
                _ => unknown & !entry.value,
            };
            self.check_word(entry.address, !(unknown as u32));
            if unknown != 0 {
                let place = self.place(entry.address);
                self.operate(Operation::Set, place, unknown as u32);
                self.model.set_bits(entry.address, unknown);
            }
        }
    }

    // --- Registers ----------------------------------------------------------------------------------------------------

    /// Leaves all spaces, so that nothing of them is cached: switches paging off, or goes to the kernel's own.
    pub fn leave_spaces(&mut self) {
        self.go_to(false);
        self.direct = false;
        match self.width {
            Width::Narrow => self.operate(Operation::Cr0, CR0, 0u32),
            Width::Wide => {
                self.operate(Operation::Cr3, HOME, 0u32);
                self.operate(Operation::Cr4, CR4_PAE, 0u32);
            }
        }
    }

    /// Enters the space of `cr3`, with the model's choice of everything else.
    pub fn enter_space(&mut self, cr3: u32) {
        self.operate(Operation::Nxe, self.nxe(), 0u32);
        self.operate(Operation::Cr4, self.cr4(), 0u32);
        self.operate(Operation::Cr3, cr3, 0u32);
        self.operate(Operation::Cr0, self.cr0(), 0u32);
        self.direct = self.width == Width::Wide;
        self.model.load_cr3(cr3);
        self.stale.flushed();
    }

    fn nxe(&self) -> u32 {
        if self.model.execute_disable {
            EFER_NXE
        } else {
            0
        }
    }

    fn cr0(&self) -> u32 {
        CR0 | CR0_PG | if self.model.write_protect { CR0_WP } else { 0 }
    }

    fn cr4(&self) -> u32 {
        let mode = match self.model.mode {
            Mode::TwoLevel => CR4_PSE,
            Mode::Pae | Mode::FourLevel => CR4_PAE,
        };
        mode | if self.model.global { CR4_PGE } else { 0 }
    }

    /// Changes CR0.WP, which needs no flush.
    pub fn toggle_write_protect(&mut self) {
        self.model.write_protect ^= true;
        self.privileged(|this| this.operate(Operation::Cr0, this.cr0(), 0u32));
    }

    /// Changes CR4.PGE, which flushes everything.
    pub fn toggle_global(&mut self) {
        self.model.global ^= true;
        self.privileged(|this| this.operate(Operation::Cr4, this.cr4(), 0u32));
        self.stale.flushed();
        self.count("flush by CR4.PGE");
    }

    /// Loads CR3.
    pub fn load_cr3(&mut self, cr3: u32) {
        let before = self.stale.snapshot(&self.model);
        self.privileged(|this| this.operate(Operation::Cr3, cr3, 0u32));
        self.model.load_cr3(cr3);
        self.stale
            .loaded_cr3(&before, &self.stale.snapshot(&self.model));
    }

    /// Executes INVLPG for any address in `page`.
    pub fn invalidate(&mut self, page: u64) {
        let address = page + u64::from(self.rng.u32(..PAGE));
        self.privileged(|this| this.operate(Operation::Invlpg, address, 0u32));
        self.stale.invalidated(page);
        self.count("flush by INVLPG");
    }

    /// Flushes what must be before `page` is accessed.
    pub fn prepare(&mut self, page: u64) {
        loop {
            let need = self.stale.need(page);
            let way = self.rng.u32(..32);
            match need {
                Need::Nothing => return,
                Need::Structures if way < 16 => {
                    let any = self.pages[self.rng.usize(..self.pages.len())];
                    self.invalidate(any);
                }
                Need::Structures | Need::Page if way % 16 < 2 => {
                    self.load_cr3(self.model.cr3());
                    self.count("flush by CR3");
                }
                _ if way == 31 => self.toggle_global(),
                _ => self.invalidate(page),
            }
        }
    }
}
