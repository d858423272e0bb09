//! The interrupt hardware of a PC, wired: the 8259A pair, and the 8254 with OUT0 on IRQ 0.
//!
//! How a machine uses it:
//! 1. Before a port access or a look at INTR, [`Chipset::advance`] to the present.
//! 2. Ports: [`Port::decode`] once, then [`Chipset::read`] and [`Chipset::write`].
//! 3. Devices drive their lines with [`Chipset::set_line`].
//! 4. While [`Chipset::intr`], a processor that accepts interrupts takes [`Chipset::acknowledge`]'s vector.
//! 5. A processor that waits sleeps until [`Chipset::next_deadline`] or until a device acts.
//!
//! # Ticks when the machine or the guest is late
//!
//! A *tick* is a rising edge of OUT0. On hardware it requests an interrupt when it happens, and is lost if the request of the
//! one before still waits. Here the caller comes when its host lets it, and finds that several ticks have passed at once, of
//! which the guest could not take any but the first. So a distinction is made:
//!
//! ```text
//!            ┌─ may request at once ─▶ request ─ INTA, poll ─▶ delivered
//!   tick ────┤                          ▲  └──── guest withdraws or lets it wait ──▶ lost
//!            ├─ machine was late ───▶ owed ───── too many, reprogrammed, masked ───▶ lost
//!            └─ guest lets the request wait ───────────────────────────────────────▶ lost
//! ```
//!
//! * **The guest is late** where a request waits that an earlier [`Chipset::advance`] found waiting already, so that a
//!   processor could have taken it in between. Then hardware's rules hold: further ticks are lost, and the request goes when
//!   OUT0 falls. Of an `advance` that comes more than [`PATIENCE`] after the one before, that is true of the ticks up to then;
//!   no processor executed in the rest.
//! * **The machine is late** otherwise. What cannot request at once is *owed*: requested later, one after the other, each
//!   when IRQ 0 is neither requested nor in service. So a guest that takes its interrupts counts every tick, however
//!   the host schedules the machine. An owed request does not go when OUT0 falls.
//! * **The guest goes on meanwhile.** There is no request for [`GAP`] after a look at the chipset that follows
//!   an acknowledge, and none of what is owed until [`GAP`] after the last look that found IRQ 0 in service: an interrupted
//!   program has at least that time between two handlers. Ticks that come in the gap are owed. A timer that is faster than
//!   the guest takes interrupts makes them more and more; from [`MOST_OWED`] on they are lost.
//! * **What nobody wants is dropped.** A control word for counter 0 ends what was owed, and so does a guest that keeps
//!   IRQ 0 masked past a tick that it thereby loses. A mask for the length of a handler, as Linux sets it, drops nothing.
//! * **A pause is not lateness**: [`Chipset::advance_paused`] lets time pass in which the machine stood still on purpose. One
//!   tick is left of it, unless a request waits already; the rest are lost. A pause begins with an `advance`: the machine may be late when it begins.
//!
//! [`TimerStats`] has the account; at any time `ticks + doubled = delivered + lost + waiting`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lines::{Irq, Level};
use crate::pic::{AlwaysEdgeTriggered, Pic, PicPort, PicState};
use crate::pit::{Channel, Pit, PitPort, PitState};
use crate::state::{MOST_COUNTED, StateError, check};

/// How long an interrupted program goes on at least before the timer interrupts it again, in nanoseconds. Long beside a
/// handler's way out (tens of instructions), and so the greater part of the time even for a slow machine; short beside any
/// period that guests use (1 ms at least): 2,000 owed ticks are caught up in a tenth of a second.
pub const GAP: u64 = 50_000;
/// Ticks owed at most: ten seconds of a timer of 1000 Hz.
pub const MOST_OWED: u64 = 10_000;
/// Nanoseconds that may lie between two calls of [`Chipset::advance`] before the machine counts as late. Several times what a
/// machine runs its processor without looking.
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
    /// The register at I/O address `port`, or `None` when it is not the chipset's.
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

/// What became of the ticks since power-on: `ticks + doubled = delivered + lost + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerStats {
    /// Rising edges of OUT0.
    pub ticks: u64,
    /// Acknowledges of IRQ 0, by the processor or by a poll.
    pub delivered: u64,
    /// Those of the delivered that were owed first.
    pub late: u64,
    /// Ticks that got no interrupt, and will get none.
    pub lost: u64,
    /// Those of the delivered that no tick stands behind: a master programmed for level triggered inputs requests as long as
    /// OUT0 is high.
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

/// The tick that IR0 requests an interrupt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// It was owed.
    late: bool,
    /// OUT0 fell since, or may have: IR0 stays high until the acknowledge.
    kept: bool,
    /// An `advance` found it waiting: the guest could have taken it.
    refused: bool,
}

/// The 8259A pair and the 8254 of a PC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chipset {
    pic: Pic,
    pit: Pit,
    /// Time of the latest `advance`.
    now: u64,
    request: Option<Request>,
    owed: u64,
    /// The timer may not request before this time.
    gap_end: u64,
    /// IRQ 0 was acknowledged since the latest `advance`.
    acknowledged: bool,
    stats: TimerStats,
}

/// The saved state of a [`Chipset`]. Its times are those of the clock of the machine that saved it.
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

/// What a machine does with it.
impl Chipset {
    /// The chipset after power-on at time 0: controllers not initialized, timer as [`Pit::new`] leaves it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one byte.
    pub fn read(&mut self, port: Port) -> u8 {
        match port {
            Port::Pic(port) => self.with_pic(|pic| pic.read(port)),
            Port::Pit(port) => self.pit.read(port),
        }
    }

    /// Writes one byte.
    pub fn write(&mut self, port: Port, value: u8) {
        match port {
            Port::Pic(port) => self.with_pic(|pic| pic.write(port, value)),
            Port::Pit(port) => self.write_pit(port, value),
        }
    }

    /// Drives device line `irq` to `level`. Line 0 is not a device's: the timer drives it, and nothing happens.
    pub fn set_line(&mut self, irq: Irq, level: Level) {
        if irq != Irq::TIMER {
            self.pic.set_line(irq, level);
        }
    }

    /// Makes device line `irq` level triggered, or edge triggered, as firmware does; see [`Pic::set_level_triggered`]. A line
    /// that several devices share is level triggered, and high while any of them drives it: who wires them to the line
    /// calls [`Self::set_line`] with the OR of their levels.
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

    /// Runs the timer up to `now_ns`, in nanoseconds since time 0. A time before the last one counts as the last one.
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

    /// Runs the timer up to `now_ns` like [`Self::advance`], but the machine stood still meanwhile, because it was told to: no
    /// more than one tick comes of it, none if a request waits already, and no request was refused. What has passed before the
    /// pause is [`Self::advance`]'s.
    pub fn advance_paused(&mut self, now_ns: u64) {
        let ticks = self.run_timer(now_ns);
        self.come_to(now_ns);
        let left = ticks.min(self.request.is_none().into());
        self.stats.lost += ticks - left;
        self.take_in(left);
    }

    /// The processor's INTR pin.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.pic.intr()
    }

    /// Runs an interrupt acknowledge cycle and returns the vector; without a request, a default vector.
    pub fn acknowledge(&mut self) -> u8 {
        self.with_pic(Pic::acknowledge)
    }

    /// Ends the service of the interrupt that was acknowledged with `vector`, see [`Pic::end_service`].
    pub fn end_service(&mut self, vector: u8) {
        self.pic.end_service(vector);
    }

    /// When the timer can raise the next interrupt, in nanoseconds since time 0; a time that is over means now. `None` while no
    /// write or line change is due: OUT0 stays as it is, or IRQ 0 is masked.
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

    /// What became of the ticks since power-on.
    #[must_use]
    pub fn timer_stats(&self) -> TimerStats {
        TimerStats {
            waiting: self.owed + u64::from(self.request.is_some()),
            ..self.stats
        }
    }
}

/// What becomes of a tick.
impl Chipset {
    fn run_timer(&mut self, now_ns: u64) -> u64 {
        let ticks = self.pit.advance(now_ns);
        self.stats.ticks += ticks;
        ticks
    }

    /// Ticks of a time in which the guest let a request wait.
    fn pass_over(&mut self, ticks: u64) {
        self.stats.lost += ticks;
        if ticks > 0 && self.pic.is_masked(Irq::TIMER) {
            self.drop_owed();
        }
    }

    /// The time is now `now_ns`, and the timer has run up to it.
    fn come_to(&mut self, now_ns: u64) {
        self.now = self.now.max(now_ns);
        if std::mem::take(&mut self.acknowledged) {
            self.begin_gap();
        }
        self.follow_fall();
    }

    /// Ticks of a time in which the machine was late, or just in time.
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

    /// A tick of now need not be owed. As on hardware it may request while the one before is in service.
    fn may_request(&self) -> bool {
        let queued = self.owed > 0 && self.pic.is_in_service(Irq::TIMER);
        self.request.is_none() && !queued && self.is_gap_over()
    }

    /// A tick is owed, and may be requested as soon as the gap is over.
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

    /// Lowers IR0 with OUT0, unless there is a request that the guest could not have seen yet.
    fn follow_fall(&mut self) {
        let unseen = self
            .request
            .is_some_and(|request| request.kept || !request.refused);
        if !unseen && !self.pit.out(Channel::Timer).is_high() {
            self.with_pic(|pic| pic.set_line(Irq::TIMER, Level::Low));
        }
    }

    /// Lets `action` change the controllers, then looks what it did to the request.
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

    /// What a write does to OUT0 reaches IR0 at once.
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

/// The state of all of it, several lines.
impl fmt::Display for Chipset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.pic, self.pit)
    }
}
