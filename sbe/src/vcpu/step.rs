//! One step: an instruction, and the delivery of the exception that it raises.

use super::Exit;
use super::fetch::{FetchPage, execute, execute_fetched};
use crate::emulate::Cache;
use crate::emulate::Exec;
use crate::fault::Fault;

/// Executes one instruction and delivers the exception it raises.
#[inline(always)]
pub fn step(cx: &mut Exec<'_>, cache: &mut Cache, page: &mut FetchPage) -> Result<(), Exit> {
    let start = cx.cpu.eip;
    match execute(cx, cache, page) {
        Ok(()) => {
            cx.cpu.retired += 1;
            Ok(())
        }
        Err(fault) => fail(cx, start, fault),
    }
}

/// Executes the instruction at EIP, whose bytes were fetched before, and delivers the exception it raises.
#[cold]
pub fn step_fetched(cx: &mut Exec<'_>, cache: &mut Cache, bytes: &[u8]) -> Result<(), Exit> {
    let start = cx.cpu.eip;
    match execute_fetched(cx, cache, bytes) {
        Ok(()) => {
            cx.cpu.retired += 1;
            Ok(())
        }
        Err(fault) => fail(cx, start, fault),
    }
}

/// Delivers the exception of the instruction at `start`, which has had no effect.
#[cold]
fn fail(cx: &mut Exec<'_>, start: u64, fault: Fault) -> Result<(), Exit> {
    // A guest that faults for ever still uses up its budget.
    cx.cpu.retired += 1;
    if fault == Fault::Intercepted {
        return Err(Exit::of_fault(cx, fault));
    }
    cx.undo_instruction(start);
    let result = cx.raise_fault(fault);
    result.map_err(|fault| Exit::of_fault(cx, fault))
}
