//! The board: interrupt controllers and timer, the bus with its devices, and the pins of the processor.
//!
//! ```text
//!   devices ── lines ──► chipset ── INTR ──► processor
//!      ▲                    ▲                   │
//!      └────── bus ─────────┴─ ports, memory ───┘
//! ```
//!
//! Where nobody answers, reads give ones and writes are dropped; every access to a port is counted.

use std::{collections::VecDeque, ops::RangeInclusive, os::fd::BorrowedFd, sync::Arc};

use irq::{Chipset, ChipsetState, StateError};
use mmu::{GuestPhys, Memory};
use sbe::{Bus, Observation, Width};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bus::{
        AttachError, BusStateError, Device, DeviceState, Environment, Resources, Stop, SystemBus,
    },
    clock::Clock,
    ports::PortCounts,
    stop::StopReason,
    trace::Trace,
};

/// A board: everything on the processor's bus but RAM.
#[derive(Debug)]
pub struct Board {
    clock: Clock,
    memory: Arc<Memory>,
    chipset: Chipset,
    bus: SystemBus,
    /// Vectors of the interrupts that a debugger has requested.
    injected: VecDeque<u8>,
    /// Vector of the latest acknowledged interrupt, if it came from the interrupt controllers.
    acknowledged: Option<u8>,
    stop: Option<Stop>,
    counts: Counts,
    trace: Option<Trace>,
}

/// Counts of accesses and interrupts since power-on.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accesses to I/O ports.
    pub ports: PortCounts,
    /// Accesses to guest-physical addresses at which nobody answers.
    pub mmio: u64,
    /// Acknowledged interrupts.
    pub interrupts: u64,
}

/// The saved state of a board: its time, the chipset, and the devices by their names. Counts are not saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardState {
    /// Nanoseconds since the board was switched on.
    time: u64,
    chipset: ChipsetState,
    devices: Vec<DeviceState>,
    injected: VecDeque<u8>,
    acknowledged: Option<u8>,
    stop: Option<Stop>,
}

impl BoardState {
    /// Whether the board had a device called `name`.
    pub(crate) fn has_device(&self, name: &str) -> bool {
        self.devices.iter().any(|device| device.name == name)
    }
}

#[cfg(test)]
impl Board {
    /// Initializes the 8259As as a PC's firmware does: vectors from 0x08 and from 0x70, no line masked.
    pub(crate) fn initialize_pics(&mut self) {
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x08),
            (0x21, 0x04),
            (0x21, 0x01),
            (0x21, 0x00),
            (0xa0, 0x11),
            (0xa1, 0x70),
            (0xa1, 0x02),
            (0xa1, 0x01),
            (0xa1, 0x00),
        ] {
            self.port_write(port, Width::Byte, value);
        }
    }
}

#[cfg(test)]
impl BoardState {
    pub(crate) fn device_mut(&mut self, name: &str) -> &mut DeviceState {
        let mut devices = self.devices.iter_mut();
        devices.find(|device| device.name == name).unwrap()
    }
}

/// The error of saving or restoring a board.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoardStateError {
    /// The saved time is one that no machine reaches.
    #[error("saved time: {0} ns")]
    Time(u64),
    /// The saved state of the chipset is impossible.
    #[error(transparent)]
    Chipset(#[from] StateError),
    /// A device cannot be saved, or its saved state is impossible.
    #[error(transparent)]
    Devices(#[from] BusStateError),
}

/// The latest time that can be restored, in nanoseconds: 146 years.
const LATEST: u64 = 1 << 62;

impl Board {
    /// Creates a board without devices, just switched on.
    pub fn new(clock: Clock, memory: Arc<Memory>) -> Self {
        Self {
            clock,
            chipset: Chipset::new(),
            bus: SystemBus::new(&memory),
            memory,
            injected: VecDeque::new(),
            acknowledged: None,
            stop: None,
            counts: Counts::default(),
            trace: None,
        }
    }

    /// Sets the trace, which is told what the processor does while that is observed.
    pub fn set_trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// Tells the trace that the processor has paused.
    pub fn pause_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.pause();
        }
    }

    /// Tells the trace that the machine has ended.
    pub fn trace_end(&mut self, stop: &StopReason) {
        if let Some(trace) = &mut self.trace {
            trace.end(self.clock.now(), stop);
        }
    }

    /// Attaches a device. A guest that is running already may or may not notice.
    ///
    /// # Errors
    /// If a region, a line or the name is not free. Nothing is then attached.
    pub fn attach(
        &mut self,
        resources: &Resources,
        device: Box<dyn Device>,
    ) -> Result<(), AttachError> {
        self.bus
            .attach(resources, device, &self.memory, &mut self.chipset)
    }

    /// Detaches the device called `name`, if there is one. Its lines fall, and nobody answers in its regions any more.
    pub fn detach(&mut self, name: &str) -> Option<Box<dyn Device>> {
        self.bus.detach(name, &mut self.chipset)
    }

    /// The names of the attached devices.
    pub(crate) fn device_names(&self) -> Vec<String> {
        self.bus.device_names().map(Into::into).collect()
    }

    /// The I/O ports at which the chipset or a device answers.
    pub fn connected_ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.bus.connected_ports()
    }

    /// The time in nanoseconds since the board was switched on.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Brings the timer and the devices, and with them the interrupt lines, up to the present.
    pub fn advance(&mut self) {
        let now = self.clock.now();
        self.chipset.advance(now);
        self.advance_devices_to(now);
    }

    /// Brings the board up to the present after a deliberate pause of the machine: unlike after [`Self::advance`], the guest
    /// is not owed the timer's ticks of that time.
    pub fn advance_paused(&mut self) {
        let now = self.clock.now();
        self.chipset.advance_paused(now);
        self.advance_devices_to(now);
    }

    /// Brings the devices, but not the timer, up to the present, after input from outside.
    pub fn advance_devices(&mut self) {
        self.advance_devices_to(self.clock.now());
    }

    /// The next time in nanoseconds at which the board may request an interrupt by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        let devices = self.bus.next_deadline(self.clock.now());
        let timer = self.chipset.next_deadline();
        timer.into_iter().chain(devices).min()
    }

    /// The devices' file descriptors that become readable when a device has something to do.
    pub fn wakeups(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.bus.wakeups()
    }

    /// The stop that a device has asked for, if one has.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Requests an interrupt with `vector`, bypassing the interrupt controllers.
    pub fn inject(&mut self, vector: u8) {
        self.injected.push_back(vector);
    }

    /// The interrupt controllers and the timer.
    pub fn chipset(&self) -> &Chipset {
        &self.chipset
    }

    /// Ends the service of the latest acknowledged interrupt, of which the guest does not learn. Nothing happens unless it
    /// has `vector` and came from the interrupt controllers.
    pub fn end_service(&mut self, vector: u8) {
        if self.acknowledged == Some(vector) {
            self.chipset.end_service(vector);
        }
    }

    /// The counts of accesses and interrupts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The account of the timer's ticks so far.
    pub fn timer_stats(&self) -> irq::TimerStats {
        self.chipset.timer_stats()
    }

    /// Saves the board's present state.
    ///
    /// # Errors
    /// If a device cannot be saved.
    pub fn save(&self) -> Result<BoardState, BoardStateError> {
        let time = self.clock.now();
        Ok(BoardState {
            time,
            chipset: self.chipset.save(),
            devices: self.bus.save(time)?,
            injected: self.injected.clone(),
            acknowledged: self.acknowledged,
            stop: self.stop,
        })
    }

    /// Restores a saved state, which may come from an untrusted source, on a board with the same devices attached. The clock
    /// continues from the saved time, so the guest sees no time pass in between.
    ///
    /// # Errors
    /// If the state cannot be one of this board. The board is then unusable until another `restore` succeeds.
    pub fn restore(&mut self, state: BoardState) -> Result<(), BoardStateError> {
        if state.time > LATEST {
            return Err(BoardStateError::Time(state.time));
        }
        self.chipset = Chipset::restore(state.chipset)?;
        self.clock.set(state.time);
        self.injected = state.injected;
        self.acknowledged = state.acknowledged;
        self.stop = state.stop;
        let (bus, mut environment) = self.split();
        environment.now = Some(state.time);
        Ok(bus.restore(&state.devices, &mut environment)?)
    }

    fn advance_devices_to(&mut self, now: u64) {
        let (bus, mut environment) = self.split();
        environment.now = Some(now);
        bus.advance(&mut environment);
    }

    /// Splits the board into the bus and the environment for a call to it.
    #[inline]
    fn split(&mut self) -> (&mut SystemBus, Environment<'_>) {
        let environment = Environment {
            clock: &self.clock,
            now: None,
            memory: &self.memory,
            chipset: &mut self.chipset,
            stop: &mut self.stop,
        };
        (&mut self.bus, environment)
    }

    #[cold]
    fn log_first_access(&self, port: u16, what: &str) {
        if !self.bus.is_connected(port) {
            log::debug!("port {port:#06x}: {what}, nobody there");
        }
    }
}

impl Bus for Board {
    fn port_read(&mut self, port: u16, width: Width) -> u32 {
        let count = self.counts.ports.at(port);
        count.reads += 1;
        if count.reads == 1 {
            self.log_first_access(port, "read");
        }
        let (bus, mut environment) = self.split();
        bus.port_read(port, width, &mut environment)
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) {
        let count = self.counts.ports.at(port);
        count.writes += 1;
        if count.writes == 1 {
            self.log_first_access(port, "write");
        }
        let (bus, mut environment) = self.split();
        bus.port_write(port, width, value, &mut environment);
    }

    fn mmio_read(&mut self, addr: GuestPhys, bytes: u8) -> u64 {
        let (bus, mut environment) = self.split();
        if let Some(value) = bus.mmio_read(addr.get(), bytes, &mut environment) {
            return value;
        }
        log::trace!("memory {addr:?}: read of {bytes} bytes, nobody there");
        self.counts.mmio += 1;
        u64::MAX
    }

    fn mmio_write(&mut self, addr: GuestPhys, bytes: u8, value: u64) {
        let (bus, mut environment) = self.split();
        if !bus.mmio_write(addr.get(), bytes, value, &mut environment) {
            log::trace!("memory {addr:?}: write of {bytes} bytes, {value:#x}, nobody there");
            self.counts.mmio += 1;
        }
    }

    fn intr(&self) -> bool {
        self.chipset.intr() || !self.injected.is_empty()
    }

    fn acknowledge(&mut self) -> u8 {
        self.counts.interrupts += 1;
        if let Some(vector) = self.injected.pop_front() {
            self.acknowledged = None;
            return vector;
        }
        let vector = self.chipset.acknowledge();
        self.acknowledged = Some(vector);
        vector
    }

    fn stop_requested(&self) -> bool {
        self.stop.is_some()
    }

    fn observe(&mut self, observation: &Observation) {
        if let Some(trace) = &mut self.trace {
            trace.observe(observation, || self.clock.now());
        }
    }
}
