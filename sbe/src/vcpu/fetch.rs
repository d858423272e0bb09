//! Fetching an instruction, and executing it.

use crate::cpu::Pending;
use crate::cpu::segment::SegReg;
use crate::decode::decoder::{CodeSize, DecodeError, MAX_LENGTH};
use crate::emulate::{self, Cache, Decoded, Exec, Key, is_undefined_opcode};
use crate::fault::{Fault, Unsupported};
use mmu::{Frame, GuestPhys, LinearAddr, MemFault, PAGE_SIZE};

/// The page instructions are being fetched from.
#[derive(Clone, Copy)]
pub struct FetchWindow {
    /// Linear page number; [`FetchWindow::CLOSED`] matches none.
    page: u32,
    /// Base of the code segment.
    base: u32,
    /// Highest EIP within the code segment.
    limit: u32,
    frame: Frame,
    /// Key of the page's first byte.
    key: Key,
    /// Value of [`Mmu::code_epoch`] when `key` was made.
    epoch: u64,
}

impl FetchWindow {
    /// No linear page has this number.
    const CLOSED: u32 = u32::MAX;

    /// A window on nothing.
    pub fn closed() -> Self {
        Self {
            page: Self::CLOSED,
            base: 0,
            limit: 0,
            frame: Frame::new(0),
            key: Key {
                address: 0,
                written: 0,
            },
            epoch: 0,
        }
    }
}

/// Closes the window if it is stale.
#[inline(always)]
pub fn refetch(cx: &mut Exec<'_>, window: &mut FetchWindow) {
    if cx.cpu.pending.has(Pending::REFETCH) {
        window.page = FetchWindow::CLOSED;
        cx.cpu.pending.clear(Pending::REFETCH);
    }
}

/// Fetches and executes one instruction. On success EIP is the next instruction's.
#[inline(always)]
pub fn execute(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
) -> Result<(), Fault> {
    let start = cx.cpu.eip;
    let mut linear = window.base.wrapping_add(start);
    if window.page != linear >> mmu::PAGE_SHIFT || window.epoch != cx.mmu.code_epoch() {
        linear = open_window(cx, window)?;
    }
    let mut key = window.key;
    key.address |= u64::from(linear) % PAGE_SIZE as u64;
    let made;
    let Decoded { exec, insn } = match cache.get(key) {
        Some(decoded) => decoded,
        None => {
            made = decode(cx, cache, window, key, linear)?;
            &made
        }
    };
    let last = start.wrapping_add(u32::from(insn.len) - 1);
    if last > window.limit || last < start {
        return Err(Fault::gp(0));
    }
    cx.cpu.eip = last.wrapping_add(1);
    exec(cx, insn)
}

/// Points the window at the page of CS:EIP and returns the linear address of that.
#[cold]
fn open_window(cx: &mut Exec<'_>, window: &mut FetchWindow) -> Result<u32, Fault> {
    window.page = FetchWindow::CLOSED;
    let cs = *cx.cpu.seg(SegReg::Cs);
    if cx.cpu.eip > cs.limit {
        return Err(Fault::gp(0));
    }
    let linear = cs.base.wrapping_add(cx.cpu.eip);
    let frame = fetch_frame(cx, linear)?;
    cx.mmu.phys.mark_executed(frame);
    let code32 = if cx.cpu.is_code32() { Key::CODE32 } else { 0 };
    *window = FetchWindow {
        page: linear >> mmu::PAGE_SHIFT,
        base: cs.base,
        limit: cs.limit,
        frame,
        key: Key {
            address: frame.base().get() | code32,
            written: cx.mmu.written(frame).get(),
        },
        epoch: cx.mmu.code_epoch(),
    };
    Ok(linear)
}

fn fetch_frame(cx: &mut Exec<'_>, linear: u32) -> Result<Frame, Fault> {
    match cx
        .mmu
        .fetch_page(LinearAddr::from(linear), cx.cpu.privilege())
    {
        Ok(frame) => Ok(frame),
        Err(MemFault::Page(fault)) => Err(fault.into()),
        Err(MemFault::Device) => Err(Fault::Unsupported(Unsupported::FetchFromDevice)),
    }
}

/// Decodes the instruction at `linear`, inside the window's page, and caches it if it lies in one page.
#[cold]
fn decode(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
    key: Key,
    linear: u32,
) -> Result<Decoded, Fault> {
    if cx.host.is_full() {
        cx.host.clear();
        cache.clear();
    }
    let size = if cx.cpu.is_code32() {
        CodeSize::Bits32
    } else {
        CodeSize::Bits16
    };
    let offset = linear as usize % PAGE_SIZE;
    cx.mmu.mark_code(window.frame);
    let mut bytes = [0; MAX_LENGTH];
    let here = &mut bytes[..MAX_LENGTH.min(PAGE_SIZE - offset)];
    read_code(cx, window.frame, offset, here);
    match emulate::decode(here, size, cx.host) {
        Err(DecodeError::NeedMoreBytes) => decode_across(cx, here, size, linear),
        Ok(decoded) => {
            cache.insert(key, decoded);
            Ok(decoded)
        }
        Err(error) => Err(decode_fault(error)),
    }
}

/// Decodes an instruction that continues on the next page. Such instructions are not cached: the second page may change.
fn decode_across(
    cx: &mut Exec<'_>,
    first: &[u8],
    size: CodeSize,
    linear: u32,
) -> Result<Decoded, Fault> {
    let next = linear.wrapping_add(first.len() as u32);
    let frame = match fetch_frame(cx, next) {
        Err(_) if is_undefined_opcode(first, size) => return Err(Fault::ud()),
        frame => frame?,
    };
    let mut bytes = [0; MAX_LENGTH];
    bytes[..first.len()].copy_from_slice(first);
    read_code(cx, frame, 0, &mut bytes[first.len()..]);
    emulate::decode(&bytes, size, cx.host).map_err(decode_fault)
}

/// Reads instruction bytes, all in one page of memory that was fetched from.
fn read_code(cx: &Exec<'_>, frame: Frame, offset: usize, bytes: &mut [u8]) {
    let start = GuestPhys::new(frame.base().get() + offset as u64);
    if cx.mmu.phys.read(start, bytes).is_err() {
        debug_assert!(false, "frame {frame:?} was fetched from");
    }
}

fn decode_fault(error: DecodeError) -> Fault {
    match error {
        DecodeError::Invalid => Fault::ud(),
        DecodeError::TooLong | DecodeError::NeedMoreBytes => Fault::gp(0),
    }
}
