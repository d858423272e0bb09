//! [`Pending`]: the reasons why the run loop must look up between two instructions.

/// A set of reasons for looking up between two instructions. It is zero in the common case, so that the run loop tests one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pending(pub u32);

impl Pending {
    /// The INTR pin is high.
    pub const INTR: u32 = 1 << 0;
    /// A non-maskable interrupt arrived.
    pub const NMI: u32 = 1 << 1;
    /// Maskable interrupts are inhibited until the next instruction has executed (STI, MOV SS, POP SS;
    /// SDM Vol. 3A, 6.8.3 "Masking Exceptions and Interrupts When Switching Stacks").
    pub const SHADOW: u32 = 1 << 2;
    /// NMIs and debug exceptions are inhibited as well (MOV SS, POP SS); set together with [`Self::SHADOW`].
    pub const SHADOW_SS: u32 = 1 << 7;
    /// Memory accesses are checked for alignment (CR0.AM, EFLAGS.AC, CPL 3).
    pub const ALIGN: u32 = 1 << 8;
    /// [`super::Cpu::debug_hits`] holds debug conditions to report as a trap.
    pub const DEBUG_TRAP: u32 = 1 << 9;
    /// A breakpoint of the debug registers is enabled: instruction fetches and memory accesses are compared with it.
    pub const DEBUG: u32 = 1 << 3;
    /// HLT was executed.
    pub const HALT: u32 = 1 << 4;
    /// The bus asked the machine to stop.
    pub const STOP: u32 = 1 << 5;
    /// The paging registers, CPL or CS changed, or translations were flushed: the page to fetch from has to be looked up again.
    pub const REFETCH: u32 = 1 << 6;
    /// The debugger has breakpoints: [`crate::Debugger::add_breakpoint`].
    pub const BREAK: u32 = 1 << 10;
    /// The debugger has watchpoints: [`crate::Debugger::add_watchpoint`].
    pub const WATCH: u32 = 1 << 11;

    /// Adds reasons.
    pub fn set(&mut self, bits: u32) {
        self.0 |= bits;
    }

    /// Removes reasons.
    pub fn clear(&mut self, bits: u32) {
        self.0 &= !bits;
    }

    /// Whether any of the given reasons is there.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}
