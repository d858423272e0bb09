//! A PC's keyboard controller, the 8042 of the PS/2 kind, with neither keyboard nor auxiliary device connected.
//!
//! ```text
//!   port 0x60: output buffer when read, data when written      port 0x64: status when read, command when written
//!   IRQ 1, IRQ 12: the output buffer is full, from the keyboard's or the auxiliary device's side
//! ```
//!
//! A byte for a device times out: the output buffer then holds 0xfe, and the status register says why. Nothing takes time, the
//! time-out neither, so drivers that probe are done soon. The output port's A20 gate can be read back, but memory is never masked,
//! as that of [`super::ResetRegister::control_port_a`]. The passwords and the polling of the input port (commands 0xa5, 0xa6, 0xc1,
//! 0xc2) are not there.
//!
//! IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller; Intel UPI-41/42 User's Manual.

mod controller;

use irq::Level;

use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, Stop, decode_state, encode_state,
};
use controller::Controller;

/// The keyboard controller as a device with two I/O ports and two interrupt lines.
#[derive(Clone, Debug, Default)]
pub struct KeyboardController(Controller);

/// The region of port 0x64. Region 0 is port 0x60.
const COMMAND: usize = 1;
/// The numbers of the lines IRQ 1 and IRQ 12.
const KEYBOARD_LINE: usize = 0;
const AUXILIARY_LINE: usize = 1;

impl KeyboardController {
    fn drive_lines(&self, context: &mut DeviceContext<'_>) {
        let keyboard = Level::from_active(self.0.keyboard_interrupt());
        let auxiliary = Level::from_active(self.0.auxiliary_interrupt());
        context.set_line(KEYBOARD_LINE, keyboard);
        context.set_line(AUXILIARY_LINE, auxiliary);
    }
}

impl Device for KeyboardController {
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        if access.region == COMMAND {
            return self.0.status().into();
        }
        let data = self.0.read_data();
        self.drive_lines(context);
        data.into()
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        let resets = match access.region {
            COMMAND => self.0.command(value as u8),
            _ => self.0.write_data(value as u8),
        };
        self.drive_lines(context);
        if resets {
            context.stop(Stop::Reset);
        }
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&self.0)
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        self.0 = decode_state(state)?;
        Ok(())
    }
}
