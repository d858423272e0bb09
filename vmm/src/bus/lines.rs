//! Interrupt lines as wires between devices and the interrupt controllers.
//!
//! ```text
//!   device, line 0 ──┐
//!                    ├─ OR ── IRQ 11 ──► 8259A
//!   device, line 0 ──┘
//! ```

use irq::{Chipset, Irq, Level};

use super::resources::{AttachError, Trigger};

/// The wires of the sixteen interrupt lines.
#[derive(Debug, Default)]
pub struct Wires([Wire; 16]);

#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    /// The trigger of the line, while anybody drives it.
    trigger: Option<Trigger>,
    drivers: u32,
    /// The number of drivers that drive it high.
    high: u32,
}

/// A device's connection to a wire, and the level that it drives.
#[derive(Clone, Copy, Debug)]
pub struct LineDriver {
    irq: Irq,
    level: Level,
}

impl LineDriver {
    /// The number of the line.
    pub fn irq(&self) -> Irq {
        self.irq
    }

    /// The level that the device drives.
    pub fn level(&self) -> Level {
        self.level
    }
}

/// The lines that the chipset drives itself.
const CHIPSET_LINES: [Irq; 2] = [Irq::TIMER, Irq::CASCADE];

impl Wires {
    /// Connects a driver, low at first. The edge/level control register is preset for a level triggered line. `present`
    /// names a driver that the line already has, for the error.
    ///
    /// # Errors
    /// If the line cannot have this driver beside those it has.
    pub fn connect(
        &mut self,
        irq: Irq,
        trigger: Trigger,
        chipset: &mut Chipset,
        present: &str,
    ) -> Result<LineDriver, AttachError> {
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
        Ok(LineDriver { irq, level })
    }

    /// Disconnects a driver. A line without drivers is low and edge triggered, as at power-on.
    pub fn disconnect(&mut self, mut driver: LineDriver, chipset: &mut Chipset) {
        self.drive(&mut driver, Level::Low, chipset);
        let wire = &mut self.0[usize::from(driver.irq.number())];
        wire.drivers -= 1;
        if wire.drivers == 0 && wire.trigger.take() == Some(Trigger::Level) {
            // Every line can be edge triggered.
            let _ = chipset.set_level_triggered(driver.irq, false);
        }
    }

    /// Drives the line of `driver`.
    #[inline]
    pub fn drive(&mut self, driver: &mut LineDriver, level: Level, chipset: &mut Chipset) {
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

#[cfg(test)]
mod tests {
    use irq::{PicPort, Port};

    use super::*;

    fn irq(number: u8) -> Irq {
        Irq::new(number).unwrap()
    }

    fn elcr(chipset: &mut Chipset) -> u8 {
        chipset.read(Port::Pic(PicPort::SlaveElcr))
    }

    /// A chipset with all lines unmasked, vectors 0x20 and 0x28.
    fn chipset() -> Chipset {
        let mut chipset = Chipset::new();
        for (port, values) in [
            (PicPort::MasterCommand, [0x11].as_slice()),
            (PicPort::MasterData, &[0x20, 0x04, 0x01, 0x00]),
            (PicPort::SlaveCommand, &[0x11]),
            (PicPort::SlaveData, &[0x28, 0x02, 0x01, 0x00]),
        ] {
            for &value in values {
                chipset.write(Port::Pic(port), value);
            }
        }
        chipset
    }

    #[test]
    fn a_shared_line_is_the_or_of_its_drivers() {
        let (mut wires, mut chipset) = (Wires::default(), chipset());
        let mut connect = |chipset: &mut Chipset| {
            wires
                .connect(irq(11), Trigger::Level, chipset, "other")
                .unwrap()
        };
        let (mut one, mut other) = (connect(&mut chipset), connect(&mut chipset));
        assert_eq!(elcr(&mut chipset), 1 << 3, "preset");
        for (driver, level, intr) in [
            (0, Level::High, true),
            (1, Level::High, true),
            (0, Level::High, true),
            (0, Level::Low, true),
            (0, Level::Low, true),
            (1, Level::Low, false),
            (1, Level::High, true),
        ] {
            let driver = if driver == 0 { &mut one } else { &mut other };
            wires.drive(driver, level, &mut chipset);
            assert_eq!(chipset.intr(), intr);
        }
        wires.disconnect(other, &mut chipset);
        assert!(!chipset.intr(), "it falls with its driver");
        assert_eq!(elcr(&mut chipset), 1 << 3);
        wires.disconnect(one, &mut chipset);
        assert_eq!(elcr(&mut chipset), 0);
        wires
            .connect(irq(11), Trigger::Edge, &mut chipset, "nobody")
            .unwrap();
    }

    #[test]
    fn only_level_triggered_lines_are_shared() {
        let [edge, level] = [Trigger::Edge, Trigger::Level];
        for (first, second) in [(edge, edge), (edge, level), (level, edge)] {
            let (mut wires, mut chipset) = (Wires::default(), Chipset::new());
            wires
                .connect(irq(5), first, &mut chipset, "nobody")
                .unwrap();
            let error = wires
                .connect(irq(5), second, &mut chipset, "first")
                .unwrap_err();
            let (irq, device) = (irq(5), "first".into());
            assert_eq!(error, AttachError::LineInUse { irq, device });
        }
    }
}
