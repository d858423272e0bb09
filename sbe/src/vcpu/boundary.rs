//! The events that can come between two instructions (SDM Vol. 3A, 6.9 "Priority among Simultaneous Events").

use super::Exit;
use super::fetch::FetchPage;
use super::step::step;
use crate::cpu::control::{DR6_BS, DR7_ENABLES};
use crate::cpu::{Pending, eflags};
use crate::emulate::{Cache, Event, Exec};
use crate::fault::Fault;
use mmu::LinearAddr;

/// Executes one instruction, or delivers an event that comes before it: traps, interrupts, shadows, breakpoints.
#[cold]
pub fn step_watched(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
) -> Result<(), Exit> {
    match deliver_pending(cx) {
        Ok(Boundary::Clear) => {}
        Ok(Boundary::Delivered) => {
            // A guest that is interrupted for ever still uses up its budget.
            cx.cpu.retired += 1;
            return Ok(());
        }
        Ok(Boundary::Exit(exit)) => return Err(exit),
        Err(fault) => return Err(Exit::of_fault(cx, fault)),
    }
    let here = cx.cpu.linear_eip();
    if cx.debugger.stops_at(here) && cx.cpu.eflags & eflags::RF == 0 {
        cx.debugger.stand_at(here);
        return Err(Exit::Breakpoint(here));
    }
    let shadows = cx.cpu.pending.0 & (Pending::SHADOW | Pending::SHADOW_SS);
    cx.cpu.pending.clear(shadows);
    if let Some(hits) = code_breakpoints(cx) {
        cx.cpu.retired += 1;
        return cx
            .raise_debug(hits)
            .map_err(|fault| Exit::of_fault(cx, fault));
    }
    let single_step = cx.cpu.eflags & eflags::TF != 0;
    // RF lasts for one instruction; a fault pushes it set by itself.
    cx.cpu.eflags &= !eflags::RF;
    let delivered = cx.cpu.delivered;
    step(cx, cache, page)?;
    // A fault, or INT n, has cleared TF on the way to its handler: no trap.
    if single_step && cx.cpu.delivered == delivered {
        cx.cpu.debug_hits |= DR6_BS;
        cx.cpu.pending.set(Pending::DEBUG_TRAP);
    }
    Ok(())
}

enum Boundary {
    /// Nothing is to be delivered: the next instruction executes.
    Clear,
    /// An event was delivered; there may be more.
    Delivered,
    Exit(Exit),
}

/// Delivers the event of highest priority.
fn deliver_pending(cx: &mut Exec<'_>) -> Result<Boundary, Fault> {
    let pending = cx.cpu.pending;
    if pending.has(Pending::STOP) {
        cx.cpu.pending.clear(Pending::STOP);
        return Ok(Boundary::Exit(Exit::Stop));
    }
    if pending.has(Pending::DEBUG_TRAP) && !pending.has(Pending::SHADOW_SS) {
        cx.cpu.pending.clear(Pending::DEBUG_TRAP);
        let hits = std::mem::take(&mut cx.cpu.debug_hits);
        cx.raise_debug(hits)?;
        return Ok(Boundary::Delivered);
    }
    if pending.has(Pending::NMI) && !pending.has(Pending::SHADOW_SS) && !cx.cpu.nmi_blocked {
        cx.cpu.pending.clear(Pending::NMI);
        cx.deliver(Event::Nmi)?;
        return Ok(Boundary::Delivered);
    }
    let interruptible =
        cx.cpu.eflags & eflags::IF != 0 && !pending.has(Pending::SHADOW | Pending::SHADOW_SS);
    if pending.has(Pending::INTR) && interruptible {
        let vector = cx.bus.acknowledge();
        cx.sample_bus();
        cx.deliver(Event::External(vector))?;
        return Ok(Boundary::Delivered);
    }
    if pending.has(Pending::HALT) {
        cx.cpu.pending.clear(Pending::SHADOW | Pending::SHADOW_SS);
        return Ok(Boundary::Exit(Exit::Halt));
    }
    Ok(Boundary::Clear)
}

/// The DR6 bits of the instruction breakpoints at EIP (SDM Vol. 3B, 17.3.1.1 "Instruction-Breakpoint Exception Condition").
fn code_breakpoints(cx: &Exec<'_>) -> Option<u64> {
    let cpu = &*cx.cpu;
    if cpu.dr[7] & DR7_ENABLES == 0 || cpu.eflags & eflags::RF != 0 {
        return None;
    }
    let linear = cpu.linear_eip();
    let hits = (0..4).fold(0, |hits, index| {
        let enabled = cpu.dr[7] >> (2 * index) & 3 != 0;
        let executes = cpu.dr[7] >> (16 + 4 * index) & 3 == 0;
        if enabled && executes && LinearAddr::new(cpu.dr[index]) == linear {
            hits | 1 << index
        } else {
            hits
        }
    });
    (hits != 0).then_some(hits)
}
