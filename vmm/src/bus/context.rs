//! [`DeviceContext`]: the parts of the machine that a device may use while it is called.

use std::sync::Arc;

use irq::{Chipset, Level};
use mmu::Memory;
use serde::{Deserialize, Serialize};

use super::{
    address_map::{AddressMap, Target},
    lines::{LineDriver, Wires},
    resources::{AttachError, IoRegion},
};
use crate::clock::Clock;

/// The parts of the machine that a device may use while it is called: the time, guest memory, its own interrupt lines and
/// regions, and the request to stop.
pub struct DeviceContext<'a> {
    pub(super) clock: &'a Clock,
    pub(super) now: Option<u64>,
    pub(super) memory: &'a Arc<Memory>,
    pub(super) chipset: &'a mut Chipset,
    pub(super) stop: &'a mut Option<Stop>,
    pub(super) map: &'a mut AddressMap,
    pub(super) wires: &'a mut Wires,
    pub(super) lines: &'a mut [LineDriver],
    pub(super) device: usize,
}

/// A device's request to stop the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The guest reset the machine.
    Reset,
    /// The guest wrote this byte to the debug-exit port.
    DebugExit(u8),
    /// The guest switched the machine off.
    PowerOff,
}

impl DeviceContext<'_> {
    /// The time in nanoseconds since the machine was switched on. It is the same throughout a call.
    pub fn now(&mut self) -> u64 {
        *self.now.get_or_insert_with(|| self.clock.now())
    }

    /// The guest's memory, for DMA: [`Memory::read`] and [`Memory::store_bytes`], from other threads too.
    pub fn memory(&self) -> &Arc<Memory> {
        self.memory
    }

    /// Drives the device's interrupt line with number `line` in its [`super::Resources`]. Nothing happens if there is none.
    ///
    /// The controllers take the rising edge of an edge triggered line as a request, and the high level of a level triggered
    /// one: a device keeps its line high until the guest has seen to it.
    #[inline]
    pub fn set_line(&mut self, line: usize, level: Level) {
        if let Some(driver) = self.lines.get_mut(line) {
            self.wires.drive(driver, level, self.chipset);
        }
    }

    /// Asks the machine to stop after the guest's present instruction. The first request counts.
    pub fn stop(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    /// Adds a region to the device, under a number of its choice.
    ///
    /// # Errors
    /// If the region is empty or another one answers there.
    pub fn map(&mut self, number: usize, region: &IoRegion) -> Result<(), AttachError> {
        let target = Target::Device {
            device: self.device,
            region: number,
        };
        self.map.insert(region, target, self.memory)
    }

    /// Removes the device's regions with this number.
    pub fn unmap(&mut self, number: usize) {
        let removed = Target::Device {
            device: self.device,
            region: number,
        };
        self.map.remove(|target| target == removed);
    }
}
