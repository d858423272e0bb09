//! [`Register`]: one register as gdb sees it.

use sbe::cpu::Cpu;

type Get = Box<dyn Fn(&Cpu) -> u128>;
type Set = Box<dyn Fn(&mut Cpu, u128) -> Result<(), NotWritable>>;

/// One register: its name, size and type, and how it is read and written.
pub struct Register {
    /// The name, by which users know it.
    pub(super) name: &'static str,
    pub(super) bits: usize,
    /// The type in target descriptions.
    pub(super) kind: &'static str,
    get: Get,
    /// `None` for a read-only register, one whose change takes more than a new value.
    pub(super) set: Option<Set>,
}

/// The error for a value that cannot be written: the register is read-only or cannot hold it, or the value has another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritable;

impl Register {
    pub(super) fn new(
        name: &'static str,
        bits: usize,
        kind: &'static str,
        get: impl Fn(&Cpu) -> u128 + 'static,
    ) -> Self {
        Self {
            name,
            bits,
            kind,
            get: Box::new(get),
            set: None,
        }
    }

    pub(super) fn set_by(self, set: impl Fn(&mut Cpu, u128) + 'static) -> Self {
        self.try_set_by(move |cpu, value| {
            set(cpu, value);
            Ok(())
        })
    }

    pub(super) fn try_set_by(
        self,
        set: impl Fn(&mut Cpu, u128) -> Result<(), NotWritable> + 'static,
    ) -> Self {
        Self {
            set: Some(Box::new(set)),
            ..self
        }
    }

    /// The size of the register in packets, in bytes.
    pub fn bytes(&self) -> usize {
        self.bits / 8
    }

    /// The value of the register in `cpu`, little endian.
    pub fn read(&self, cpu: &Cpu) -> Vec<u8> {
        (self.get)(cpu).to_le_bytes()[..self.bytes()].to_vec()
    }

    /// Sets the register in `cpu` to a value of [`Self::bytes`] bytes. Its present value can always be written.
    ///
    /// # Errors
    /// If this value cannot be written.
    pub fn write(&self, cpu: &mut Cpu, value: &[u8]) -> Result<(), NotWritable> {
        let present = self.read(cpu);
        self.replace(cpu, &present, value)
    }

    /// Sets the register, which was `before`, to `value`, unless they are the same or it has this value already.
    pub(super) fn replace(
        &self,
        cpu: &mut Cpu,
        before: &[u8],
        value: &[u8],
    ) -> Result<(), NotWritable> {
        if value.len() != self.bytes() {
            return Err(NotWritable);
        }
        if before == value || self.read(cpu) == value {
            return Ok(());
        }
        let set = self.set.as_ref().ok_or(NotWritable)?;
        let mut bytes = [0; size_of::<u128>()];
        bytes[..value.len()].copy_from_slice(value);
        set(cpu, u128::from_le_bytes(bytes))
    }
}
