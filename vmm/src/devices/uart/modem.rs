//! The modem's lines: four outputs (MCR), four inputs (MSR), and their wiring in loopback.
//!
//! ```text
//!           normal                       loopback
//!   DTR  ──► pin                   DTR  ──► DSR
//!   RTS  ──► pin                   RTS  ──► CTS
//!   OUT1 ──► pin                   OUT1 ──► RI
//!   OUT2 ──► pin, gates the IRQ    OUT2 ──► DCD       all pins off
//!   CTS, DSR, DCD: on, RI: off
//! ```

use serde::{Deserialize, Serialize};

use super::registers::{
    MCR_DTR, MCR_LOOP, MCR_OUT1, MCR_OUT2, MCR_RTS, MCR_WRITABLE, MSR_CTS, MSR_DCD, MSR_DELTAS,
    MSR_DSR, MSR_RI, MSR_TERI,
};
use crate::bus::DeviceStateError;

/// The modem's lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modem {
    /// The modem control register.
    control: u8,
    /// The inputs that have changed since the modem status register was last read.
    deltas: u8,
}

/// The inputs as the peer drives them.
const PEER: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

/// The outputs as firmware leaves them.
impl Default for Modem {
    fn default() -> Self {
        Self {
            control: MCR_OUT2,
            deltas: 0,
        }
    }
}

impl Modem {
    /// Checks a saved state.
    pub fn check(&self) -> Result<(), DeviceStateError> {
        if self.control & !MCR_WRITABLE != 0 {
            return Err(DeviceStateError::Impossible("modem control"));
        }
        if self.deltas & !(MSR_DELTAS | MSR_TERI) != 0 {
            return Err(DeviceStateError::Impossible("modem status"));
        }
        Ok(())
    }

    /// The modem control register.
    pub fn control(&self) -> u8 {
        self.control
    }

    /// Writes the modem control register.
    pub fn set_control(&mut self, value: u8) {
        let before = self.inputs();
        self.control = value & MCR_WRITABLE;
        let after = self.inputs();
        self.deltas |= ((before ^ after) >> 4) & MSR_DELTAS;
        if before & !after & MSR_RI != 0 {
            self.deltas |= MSR_TERI;
        }
    }

    /// Reads the modem status register, which clears the deltas.
    pub fn read_status(&mut self) -> u8 {
        self.inputs() | std::mem::take(&mut self.deltas)
    }

    /// Whether an input has changed since the modem status register was last read.
    pub fn has_changed(&self) -> bool {
        self.deltas != 0
    }

    pub fn is_looped(&self) -> bool {
        self.control & MCR_LOOP != 0
    }

    /// Whether the RTS pin lets the peer send.
    pub fn requests_to_send(&self) -> bool {
        self.control & (MCR_RTS | MCR_LOOP) == MCR_RTS
    }

    /// Whether the OUT2 pin lets interrupts pass to the controller, as a PC wires it.
    pub fn passes_interrupts(&self) -> bool {
        self.control & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
    }

    fn inputs(&self) -> u8 {
        if !self.is_looped() {
            return PEER;
        }
        [
            (MCR_DTR, MSR_DSR),
            (MCR_RTS, MSR_CTS),
            (MCR_OUT1, MSR_RI),
            (MCR_OUT2, MSR_DCD),
        ]
        .into_iter()
        .filter(|&(output, _)| self.control & output != 0)
        .fold(0, |inputs, (_, input)| inputs | input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_states_are_named() {
        for (control, deltas, expected) in [
            (MCR_WRITABLE, MSR_DELTAS | MSR_TERI, Ok(())),
            (
                MCR_WRITABLE + 1,
                0,
                Err("impossible value of modem control"),
            ),
            (0, MSR_CTS, Err("impossible value of modem status")),
        ] {
            let checked = Modem { control, deltas }.check();
            assert_eq!(
                checked.map_err(|error| error.to_string()),
                expected.map_err(str::to_owned)
            );
        }
    }
}
