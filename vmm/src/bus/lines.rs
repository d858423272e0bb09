//! Interrupt lines as wires between devices and the interrupt controllers.
//!
//! ```text
//!   device, line 0 ──┐
//!                    ├─ OR ── IRQ 11 ──► 8259A
//!   device, line 0 ──┘
//! ```

use irq::{Chipset, Irq, Level};

use super::resources::{AttachError, Trigger};

/// Who drives the sixteen lines.
#[derive(Debug, Default)]
pub struct Wires([Wire; 16]);

#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    /// Nobody drives the wire: none.
    trigger: Option<Trigger>,
    drivers: u32,
    /// How many of the drivers drive it high.
    high: u32,
}

/// A device's end of a wire.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    irq: Irq,
    level: Level,
}

impl Driver {
    /// The line.
    pub fn irq(&self) -> Irq {
        self.irq
    }

    /// What the device drives it to.
    pub fn level(&self) -> Level {
        self.level
    }
}

/// Lines that the chipset drives itself.
const CHIPSET_LINES: [Irq; 2] = [Irq::TIMER, Irq::CASCADE];

impl Wires {
    /// Adds a driver, which drives the line low. A level triggered line is made so in the edge/level control register.
    /// `present` is the name of a driver that the line has already.
    ///
    /// # Errors
    /// If the line cannot have the driver.
    pub fn connect(
        &mut self,
        irq: Irq,
        trigger: Trigger,
        chipset: &mut Chipset,
        present: &str,
    ) -> Result<Driver, AttachError> {
        let wire = &mut self.0[usize::from(irq.number())];
        let shared = wire
            .trigger
            .is_none_or(|other| (other, trigger) == (Trigger::Level, Trigger::Level));
        if CHIPSET_LINES.contains(&irq) || !shared {
            let device = present.into();
            return Err(AttachError::LineInUse { irq, device });
        }
        if trigger == Trigger::Level && wire.drivers == 0 {
            chipset.set_level_triggered(irq, true)?;
        }
        wire.trigger = Some(trigger);
        wire.drivers += 1;
        let level = Level::Low;
        Ok(Driver { irq, level })
    }

    /// Removes a driver. A line without drivers is low and edge triggered, as at power-on.
    pub fn disconnect(&mut self, mut driver: Driver, chipset: &mut Chipset) {
        self.drive(&mut driver, Level::Low, chipset);
        let wire = &mut self.0[usize::from(driver.irq.number())];
        wire.drivers -= 1;
        if wire.drivers == 0 && wire.trigger.take() == Some(Trigger::Level) {
            // Every line can be edge triggered.
            let _ = chipset.set_level_triggered(driver.irq, false);
        }
    }

    /// Drives a line from one of its ends.
    #[inline]
    pub fn drive(&mut self, driver: &mut Driver, level: Level, chipset: &mut Chipset) {
        if driver.level == level {
            return;
        }
        driver.level = level;
        let wire = &mut self.0[usize::from(driver.irq.number())];
        match level {
            Level::High => wire.high += 1,
            Level::Low => wire.high -= 1,
        }
        chipset.set_line(driver.irq, Level::from_active(wire.high > 0));
    }
}
