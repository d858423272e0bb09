//! The run loop: instructions by the emulator, or translated code and the emulator by turns.

use super::Exit;
use super::boundary::step_watched;
use super::fetch::{FetchPage, refetch};
use super::step::{step, step_fetched};
use crate::cpu::{Cpu, Pending, eflags};
use crate::emulate::Cache;
use crate::emulate::Exec;
use crate::translate::{Outcome, Translator, is_flat};

/// Polls of translated code that take as long as one emulated instruction.
const EMULATED: u64 = 16;

/// Takes account of what has changed while the processor stood still.
pub fn begin(cx: &mut Exec<'_>) -> Result<(), Exit> {
    cx.cpu.pending.clear(Pending::BREAK | Pending::WATCH);
    cx.cpu.pending.set(cx.debugger.reasons());
    if cx.debugger.take_watch_change() {
        cx.mmu.keep_out(cx.debugger.watched_pages());
    }
    cx.update_access_checks();
    cx.mmu.wake();
    cx.sample_bus();
    cx.resume().map_err(|fault| Exit::of_fault(cx, fault))?;
    let here = cx.cpu.linear_eip();
    cx.debugger.go_on_at(here);
    stop_if_watched(cx)
}

/// Ends a run with the result `ran`. A store of a device that hit a watchpoint meanwhile takes precedence over HLT and the end
/// of the budget, which the next run meets again.
pub fn end(cx: &mut Exec<'_>, ran: Result<(), Exit>) -> Result<(), Exit> {
    match ran {
        Ok(()) | Err(Exit::Halt) => {
            cx.snoop();
            stop_if_watched(cx).and(ran)
        }
        other => other,
    }
}

/// Ends the run after an access that hit a watchpoint.
fn stop_if_watched(cx: &mut Exec<'_>) -> Result<(), Exit> {
    match cx.debugger.take_hit() {
        Some(hit) => Err(Exit::Watchpoint(hit)),
        None => Ok(()),
    }
}

/// Executes the instruction whose breakpoint the processor stands at. No interrupt is delivered before it, since the handler
/// would return to the breakpoint.
pub fn pass_breakpoint(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
) -> Result<(), Exit> {
    if !cx.debugger.passes_breakpoint() {
        return Ok(());
    }
    next_uninterrupted(cx, cache, page)?;
    cx.sample_bus();
    Ok(())
}

/// Executes the next instruction as [`next`] does, with interrupts on the INTR pin held back, unless the processor is in HLT.
pub fn next_uninterrupted(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
) -> Result<(), Exit> {
    if !cx.cpu.pending.has(Pending::HALT) {
        cx.cpu.pending.clear(Pending::INTR);
    }
    next(cx, cache, page)
}

/// Emulates up to `budget` instructions.
pub fn emulate(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
    budget: u64,
) -> Result<(), Exit> {
    let end = cx.cpu.retired.saturating_add(budget);
    while cx.cpu.retired < end {
        next(cx, cache, page)?;
    }
    Ok(())
}

/// Runs translated code where it may run, and emulates one instruction at a time elsewhere.
pub fn translate(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
    translator: &mut Translator,
    budget: u64,
) -> Result<(), Exit> {
    let end = cx.cpu.retired.saturating_add((budget / EMULATED).max(1));
    let mut polls = u32::try_from(budget).unwrap_or(u32::MAX).max(2);
    while cx.cpu.retired < end {
        if may_translate(cx.cpu) {
            let outcome = translator.run(cx, &mut polls);
            if let Some(violation) = translator.cache().verifier().violation() {
                return Err(Exit::Internal(format!("emitted code: {violation}")));
            }
            if outcome == Outcome::Budget {
                break;
            }
            if let Some(bytes) = translator.take_fetched() {
                step_fetched(cx, cache, &bytes)?;
                stop_if_watched(cx)?;
                continue;
            }
        }
        next(cx, cache, page)?;
    }
    Ok(())
}

/// Whether translated code may run: nothing has to be looked at between two instructions, and the segments are as it expects.
fn may_translate(cpu: &Cpu) -> bool {
    let waiting = cpu.eflags & eflags::IF == 0;
    let always = Pending::REFETCH | Pending::BREAK | Pending::WATCH;
    let ignored = always | if waiting { Pending::INTR } else { 0 };
    cpu.pending.0 & !ignored == 0 && cpu.eflags & (eflags::TF | eflags::RF) == 0 && is_flat(cpu)
}

/// Executes one instruction or delivers one event.
#[inline(always)]
fn next(cx: &mut Exec<'_>, cache: &mut Cache, page: &mut FetchPage) -> Result<(), Exit> {
    refetch(cx, page);
    if cx.cpu.pending.0 != 0 || cx.cpu.eflags & (eflags::TF | eflags::RF) != 0 {
        step_watched(cx, cache, page)?;
        stop_if_watched(cx)
    } else {
        step(cx, cache, page)
    }
}
