//! The interrupt hardware of a PC, wired up: the 8259A pair, and the 8254 whose OUT0 drives IRQ 0.
//!
//! How a machine uses it:
//! 1. It calls [`Chipset::advance`] with the present time before each port access and before it looks at INTR.
//! 2. It decodes a port with [`Port::decode`], then calls [`Chipset::read`] or [`Chipset::write`].
//! 3. Its devices drive their lines with [`Chipset::set_line`].
//! 4. While [`Chipset::intr`] is true, a processor that accepts interrupts calls [`Chipset::acknowledge`] for the
//!    vector.
//! 5. A halted processor sleeps until [`Chipset::next_deadline`], or until a device acts.
//!
//! # Ticks when the machine or the guest is late
//!
//! A *tick* is a rising edge of OUT0. On hardware it requests an interrupt when it happens, and is lost if the request
//! of the tick before it is still waiting. Here, the caller advances the chipset only when the host lets it run.
//! Several ticks may then have passed at once, of which the guest could have taken only the first. So the chipset tells
//! two cases apart:
//!
//! ```text
//!            ┌─ may request at once ─▶ request ─ INTA, poll ─▶ delivered
//!   tick ────┤                          ▲  └── guest cancels it or lets it wait ───▶ lost
//!            ├─ machine was late ───▶ owed ───── too many, reprogrammed, masked ───▶ lost
//!            └─ guest lets the request wait ───────────────────────────────────────▶ lost
//! ```
//!
//! * **The guest is late** if a request is waiting that an earlier [`Chipset::advance`] already found waiting, so that
//!   a processor could have taken it in between. Then the rules of the hardware apply: further ticks are lost, and the
//!   request is withdrawn when OUT0 falls. If an `advance` comes more than [`PATIENCE`] after the one before it, only
//!   the ticks within `PATIENCE` are lost; no processor ran during the rest.
//! * **The machine is late** in all other cases. Ticks that cannot request at once are *owed*: they are requested
//!   later, one after the other, each when IRQ 0 is neither requested nor in service. So a guest that takes its
//!   interrupts counts every tick, however the host schedules the machine. The request of an owed tick is not withdrawn
//!   when OUT0 falls.
//! * **The interrupted program gets its turn.** No tick requests until [`GAP`] after the first `advance` that follows
//!   an acknowledge, and no owed tick until `GAP` after the last `advance` that found IRQ 0 in service. So the program
//!   runs for at least that long between two handlers. Ticks within the gap are owed. If the timer is faster than the
//!   guest takes interrupts, more and more ticks are owed; beyond [`MOST_OWED`] they are lost.
//! * **Ticks that nobody wants are dropped.** A control word for counter 0 drops the owed ticks, and so does a guest
//!   that keeps IRQ 0 masked past a tick, which is lost. A mask for the length of a handler, as Linux sets it, drops
//!   nothing.
//! * **A pause is not lateness.** [`Chipset::advance_paused`] passes over a time in which the machine was stopped on
//!   purpose. It leaves one tick, or none if a request is already waiting; the rest are lost. An `advance` must come
//!   first, when the pause begins, because the machine may be late at that moment.
//!
//! [`TimerStats`] is the account of all ticks; at any time `ticks + doubled = delivered + lost + waiting`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lines::{Irq, Level};
use crate::pic::{AlwaysEdgeTriggered, Pic, PicPort, PicState};
use crate::pit::{Channel, Pit, PitPort, PitState};
use crate::state::{MOST_COUNTED, StateError, check};

/// The least time that an interrupted program runs before the timer interrupts it again, in nanoseconds.
///
/// It is long compared with a handler's exit path (tens of instructions), so the program gets most of the time even on
/// a slow machine. It is short compared with any period that guests use (at least 1 ms): 2,000 owed ticks are caught up
/// in a tenth of a second.
pub const GAP: u64 = 50_000;
/// The greatest number of ticks owed: those of a 1000 Hz timer in ten seconds.
pub const MOST_OWED: u64 = 10_000;
/// The longest time between two calls of [`Chipset::advance`] for which the machine does not count as late, in
/// nanoseconds. It is several times as long as a machine lets its processor run between two calls.
pub const PATIENCE: u64 = 1_000_000;

/// A byte-wide port of the chipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A port of the interrupt controllers.
    Pic(PicPort),
    /// A port of the timer.
    Pit(PitPort),
}

impl Port {
    /// Returns the register at I/O address `port`, or `None` if the chipset does not decode it.
    #[must_use]
    pub const fn decode(port: u16) -> Option<Self> {
        if let Some(port) = PicPort::decode(port) {
            return Some(Self::Pic(port));
        }
        match PitPort::decode(port) {
            Some(port) => Some(Self::Pit(port)),
            None => None,
        }
    }
}

/// The account of all ticks since power-on: `ticks + doubled = delivered + lost + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerStats {
    /// Rising edges of OUT0.
    pub ticks: u64,
    /// Acknowledges of IRQ 0, by an INTA cycle or by a poll.
    pub delivered: u64,
    /// Delivered ticks that were owed before.
    pub late: u64,
    /// Ticks that have not caused an interrupt and never will.
    pub lost: u64,
    /// Deliveries without a tick: a master programmed for level-triggered inputs requests as long as OUT0 is high.
    pub doubled: u64,
    /// Ticks requested or owed at present.
    pub waiting: u64,
}

impl TimerStats {
    /// Whether the account is one that a chipset can have kept.
    fn is_balanced(&self) -> bool {
        let counts = [self.ticks, self.doubled, self.delivered, self.lost];
        counts.iter().all(|&count| count <= MOST_COUNTED)
            && self.ticks + self.doubled == self.delivered + self.lost + self.waiting
            && self.late <= self.delivered
    }
}

/// The request that a tick makes on IR0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// The tick was owed.
    late: bool,
    /// IR0 stays high until the acknowledge, because OUT0 has fallen since the tick, or may have.
    kept: bool,
    /// An `advance` has found the request waiting, so the guest could have taken it.
    refused: bool,
}

/// The 8259A pair and the 8254 of a PC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chipset {
    pic: Pic,
    pit: Pit,
    /// The time of the latest `advance`.
    now: u64,
    request: Option<Request>,
    owed: u64,
    /// The time before which no tick may request.
    gap_end: u64,
    /// IRQ 0 has been acknowledged since the latest `advance`.
    acknowledged: bool,
    stats: TimerStats,
}

/// The saved state of a [`Chipset`]. Its times are on the clock of the machine that saved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipsetState {
    pic: PicState,
    pit: PitState,
    now: u64,
    request: Option<Request>,
    owed: u64,
    gap_end: u64,
    acknowledged: bool,
    stats: TimerStats,
}

/// Saving and restoring.
impl Chipset {
    /// Saves the state of the chipset at the time of the latest [`Self::advance`].
    #[must_use]
    pub fn save(&self) -> ChipsetState {
        ChipsetState {
            pic: self.pic.save(),
            pit: self.pit.save(),
            now: self.now,
            request: self.request,
            owed: self.owed,
            gap_end: self.gap_end,
            acknowledged: self.acknowledged,
            stats: self.stats,
        }
    }

    /// Restores a chipset that continues exactly as the saved one, if the caller's clock goes on from the time at which
    /// it was saved.
    ///
    /// # Errors
    /// [`StateError`] if no chipset can have been saved like this.
    pub fn restore(state: ChipsetState) -> Result<Self, StateError> {
        let chipset = Self {
            pic: Pic::restore(state.pic)?,
            pit: Pit::restore(state.pit)?,
            now: state.now,
            request: state.request,
            owed: state.owed,
            gap_end: state.gap_end,
            acknowledged: state.acknowledged,
            stats: state.stats,
        };
        chipset.check_times()?;
        chipset.check_account()?;
        Ok(chipset)
    }

    fn check_times(&self) -> Result<(), StateError> {
        check(self.pit.is_at(self.now), "time of the 8254")?;
        let latest_gap_end = self.now.saturating_add(GAP);
        check(self.gap_end <= latest_gap_end, "end of the gap")
    }

    fn check_account(&self) -> Result<(), StateError> {
        let requested = self.request.is_none() || self.pic.is_requested(Irq::TIMER);
        check(requested, "request of IRQ 0")?;
        check(self.owed <= MOST_OWED, "ticks owed")?;
        check(self.stats.waiting == 0, "ticks waiting")?;
        let stats = self.timer_stats();
        let delivered = self.pic.acknowledged(Irq::TIMER);
        check(stats.delivered == delivered, "ticks delivered")?;
        check(stats.is_balanced(), "account of ticks")
    }
}

/// Ports, lines, time and the processor's pins.
impl Chipset {
    /// Creates the chipset as it is after power-on at time 0: uninitialized controllers, and the timer of [`Pit::new`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a byte from `port`.
    pub fn read(&mut self, port: Port) -> u8 {
        match port {
            Port::Pic(port) => self.with_pic(|pic| pic.read(port)),
            Port::Pit(port) => self.pit.read(port),
        }
    }

    /// Writes a byte to `port`.
    pub fn write(&mut self, port: Port, value: u8) {
        match port {
            Port::Pic(port) => self.with_pic(|pic| pic.write(port, value)),
            Port::Pit(port) => self.write_pit(port, value),
        }
    }

    /// Drives device line `irq` to `level`. Driving line 0 has no effect, because it is the timer's.
    pub fn set_line(&mut self, irq: Irq, level: Level) {
        if irq != Irq::TIMER {
            self.pic.set_line(irq, level);
        }
    }

    /// Makes device line `irq` level triggered or edge triggered, as firmware does; see [`Pic::set_level_triggered`].
    ///
    /// A line that several devices share must be level triggered. The line has one driver here, so whoever wires the
    /// devices to it calls [`Self::set_line`] with the OR of their levels.
    ///
    /// # Errors
    /// IRQ 0, 1, 2, 8 and 13 cannot be level triggered.
    pub fn set_level_triggered(
        &mut self,
        irq: Irq,
        level_triggered: bool,
    ) -> Result<(), AlwaysEdgeTriggered> {
        self.with_pic(|pic| pic.set_level_triggered(irq, level_triggered))
    }

    /// Runs the timer up to `now_ns`, in nanoseconds since time 0. A time before the latest one counts as the latest
    /// one.
    pub fn advance(&mut self, now_ns: u64) {
        if self.request.is_some_and(|request| request.refused) {
            let ticks = self.run_timer(now_ns.min(self.now.saturating_add(PATIENCE)));
            self.pass_over(ticks);
        }
        let ticks = self.run_timer(now_ns);
        self.come_to(now_ns);
        if let Some(request) = &mut self.request {
            request.refused = true;
        }
        self.take_in(ticks);
    }

    /// Runs the timer up to `now_ns` over a time in which the machine was stopped on purpose.
    ///
    /// It leaves at most one tick, or none if a request is already waiting, and the guest does not count as having
    /// refused a request. The time before the pause must be passed to [`Self::advance`] first.
    pub fn advance_paused(&mut self, now_ns: u64) {
        let ticks = self.run_timer(now_ns);
        self.come_to(now_ns);
        let left = ticks.min(self.request.is_none().into());
        self.stats.lost += ticks - left;
        self.take_in(left);
    }

    /// Whether the processor's INTR pin is high.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.pic.intr()
    }

    /// The masks of the interrupt controllers; see [`Pic::masks`].
    #[must_use]
    pub fn masks(&self) -> Option<u16> {
        self.pic.masks()
    }

    /// Runs an INTA cycle and returns the vector, or a default vector if there is no request.
    pub fn acknowledge(&mut self) -> u8 {
        self.with_pic(Pic::acknowledge)
    }

    /// Ends the service of the interrupt that was acknowledged with `vector`; see [`Pic::end_service`].
    pub fn end_service(&mut self, vector: u8) {
        self.pic.end_service(vector);
    }

    /// The time at which the timer can next raise an interrupt, in nanoseconds since time 0; a time in the past means
    /// now. `None` if it will raise none before the guest writes a register: OUT0 stays as it is, or IRQ 0 is masked.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.pic.is_masked(Irq::TIMER) {
            None
        } else if self.may_repay() {
            Some(self.gap_end)
        } else {
            self.pit.next_edge().map(|edge| edge.max(self.gap_end))
        }
    }

    /// Returns the account of all ticks since power-on.
    #[must_use]
    pub fn timer_stats(&self) -> TimerStats {
        TimerStats {
            waiting: self.owed + u64::from(self.request.is_some()),
            ..self.stats
        }
    }
}

/// Delivering, owing and losing ticks.
impl Chipset {
    fn run_timer(&mut self, now_ns: u64) -> u64 {
        let ticks = self.pit.advance(now_ns);
        self.stats.ticks += ticks;
        ticks
    }

    /// Loses the ticks of a time in which the guest let a request wait.
    fn pass_over(&mut self, ticks: u64) {
        self.stats.lost += ticks;
        if ticks > 0 && self.pic.is_masked(Irq::TIMER) {
            self.drop_owed();
        }
    }

    /// Makes `now_ns`, up to which the timer has run, the present.
    fn come_to(&mut self, now_ns: u64) {
        self.now = self.now.max(now_ns);
        if std::mem::take(&mut self.acknowledged) {
            self.begin_gap();
        }
        self.follow_fall();
    }

    /// Requests or owes the ticks of a time in which the machine was late, or just in time.
    fn take_in(&mut self, ticks: u64) {
        let at_once = u64::from(ticks > 0 && self.may_request());
        if at_once > 0 {
            self.raise(false);
        }
        self.owe(ticks - at_once);
        if self.owed > 0 && self.pic.is_in_service(Irq::TIMER) {
            self.begin_gap();
        }
        if self.may_repay() && self.is_gap_over() {
            self.owed -= 1;
            self.raise(true);
        }
    }

    /// Whether a tick may request at once. As on hardware, it may do so while the one before it is in service.
    fn may_request(&self) -> bool {
        let queued = self.owed > 0 && self.pic.is_in_service(Irq::TIMER);
        self.request.is_none() && !queued && self.is_gap_over()
    }

    /// Whether a tick is owed and may be requested as soon as the gap is over.
    fn may_repay(&self) -> bool {
        self.owed > 0 && self.request.is_none() && !self.pic.is_in_service(Irq::TIMER)
    }

    fn is_gap_over(&self) -> bool {
        self.now >= self.gap_end
    }

    fn begin_gap(&mut self) {
        self.gap_end = self.now.saturating_add(GAP);
    }

    fn owe(&mut self, ticks: u64) {
        let owed = ticks.min(MOST_OWED - self.owed);
        self.owed += owed;
        self.stats.lost += ticks - owed;
    }

    fn drop_owed(&mut self) {
        self.stats.lost += std::mem::take(&mut self.owed);
    }

    /// Requests an interrupt by a rising edge of IR0.
    fn raise(&mut self, late: bool) {
        self.pic.set_line(Irq::TIMER, Level::Low);
        self.pic.set_line(Irq::TIMER, Level::High);
        self.request = Some(Request {
            late,
            kept: late || !self.pit.out(Channel::Timer).is_high(),
            refused: false,
        });
    }

    /// Lowers IR0 if OUT0 is low, unless there is a request that the guest could not have seen yet.
    fn follow_fall(&mut self) {
        let unseen = self
            .request
            .is_some_and(|request| request.kept || !request.refused);
        if !unseen && !self.pit.out(Channel::Timer).is_high() {
            self.with_pic(|pic| pic.set_line(Irq::TIMER, Level::Low));
        }
    }

    /// Lets `action` change the controllers, then accounts for what it did to the request.
    fn with_pic<R>(&mut self, action: impl FnOnce(&mut Pic) -> R) -> R {
        let result = action(&mut self.pic);
        let delivered = self.pic.acknowledged(Irq::TIMER);
        if delivered > self.stats.delivered {
            self.stats.delivered = delivered;
            self.acknowledged = true;
            self.begin_gap();
            match self.request.take() {
                Some(request) => self.stats.late += u64::from(request.late),
                None => self.stats.doubled += 1,
            }
        } else if self.request.is_some() && !self.pic.is_requested(Irq::TIMER) {
            self.request = None;
            self.stats.lost += 1;
        }
        result
    }

    /// Writes a byte to the timer, and passes a change of OUT0 on to IR0 at once.
    fn write_pit(&mut self, port: PitPort, value: u8) {
        let before = self.pit.out(Channel::Timer);
        self.pit.write(port, value);
        let after = self.pit.out(Channel::Timer);
        let programmed = port.programs(value) == Some(Channel::Timer);
        if programmed {
            self.drop_owed();
        }
        if !after.is_high() && (programmed || before.is_high()) {
            self.with_pic(|pic| pic.set_line(Irq::TIMER, Level::Low));
        } else if after.is_high() && !before.is_high() {
            self.stats.ticks += 1;
            self.stats.lost += u64::from(self.request.is_some());
            self.raise(false);
        }
    }
}

/// Prints a line for each controller, counter and output.
impl fmt::Display for Chipset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.pic, self.pit)
    }
}
