//! Fetching, decoding and executing one instruction.

use crate::cpu::Pending;
use crate::cpu::segment::SegReg;
use crate::decode::Flags;
use crate::decode::decoder::{CodeSize, DecodeError, MAX_LENGTH};
use crate::emulate::{self, Cache, Decoded, Exec, Key, is_undefined_opcode};
use crate::fault::{Fault, Unsupported};
use mmu::{Frame, GuestPhys, LinearAddr, MemFault, PAGE_SIZE};
use std::sync::atomic::{Ordering, fence};

/// The page that instructions are being fetched from, and what is known of it.
#[derive(Clone, Copy)]
pub struct FetchPage {
    /// The number of the page at the sum of base and EIP, which outside of 64-bit mode may have 33 bits; [`FetchPage::NONE`] matches
    /// none.
    number: u64,
    /// The base of the code segment, which counts outside of 64-bit mode.
    base: u64,
    /// The highest EIP within the code segment.
    limit: u64,
    /// The bits of instruction pointers and linear addresses.
    mask: u64,
    frame: Frame,
    /// The key of the page's first byte in the decode cache.
    key: Key,
    /// The value of [`mmu::Mmu::code_epoch`] when `key` was made.
    epoch: u64,
}

impl FetchPage {
    /// A number that no linear page has.
    const NONE: u64 = u64::MAX;

    /// No page: the next fetch looks its own up.
    pub fn none() -> Self {
        Self {
            number: Self::NONE,
            base: 0,
            limit: 0,
            mask: 0,
            frame: Frame::new(0),
            key: Key {
                address: 0,
                written: 0,
            },
            epoch: 0,
        }
    }
}

/// Forgets the page if what is known of it may be stale.
#[inline(always)]
pub fn refetch(cx: &mut Exec<'_>, page: &mut FetchPage) {
    if cx.cpu.pending.has(Pending::REFETCH) {
        page.number = FetchPage::NONE;
        cx.cpu.pending.clear(Pending::REFETCH);
    }
}

/// Fetches and executes one instruction. On success EIP is that of the next instruction.
#[inline(always)]
pub fn execute(cx: &mut Exec<'_>, cache: &mut Cache, page: &mut FetchPage) -> Result<(), Fault> {
    let start = cx.cpu.eip;
    let mut linear = page.base.wrapping_add(start);
    if page.number != linear >> mmu::PAGE_SHIFT || page.epoch != cx.mmu.code_epoch() {
        linear = find_page(cx, page)?;
    }
    let mut key = page.key;
    key.address |= linear % PAGE_SIZE as u64;
    let made;
    let decoded @ Decoded { exec, insn } = match cache.get(key) {
        Some(decoded) => decoded,
        None => {
            made = decode(cx, cache, page, key, linear)?;
            &made
        }
    };
    let next = start.wrapping_add(insn.len.into());
    cx.cpu.eip = match next <= page.limit {
        true => next,
        false => next_at_limit(page, next)?,
    };
    if insn.flags.has(Flags::BARRIER) {
        return execute_barrier(cx, decoded);
    }
    exec(cx, insn)
}

/// Executes the instruction at EIP, whose bytes were fetched before, whatever is there now. It lies within the code segment. On
/// success EIP is that of the next instruction.
pub fn execute_fetched(cx: &mut Exec<'_>, cache: &mut Cache, bytes: &[u8]) -> Result<(), Fault> {
    make_room(cx, cache);
    let decoded = emulate::decode(bytes, CodeSize::of(cx.cpu), cx.cpu.model.level(), cx.host);
    let decoded = decoded.map_err(decode_fault)?;
    let next = cx.cpu.eip.wrapping_add(decoded.insn.len.into());
    cx.cpu.eip = cx.cpu.wrap_eip(next);
    execute_barrier(cx, &decoded)
}

/// The instruction pointer behind an instruction that ends with the code segment.
#[cold]
fn next_at_limit(page: &FetchPage, next: u64) -> Result<u64, Fault> {
    match next.wrapping_sub(1) > page.limit {
        true => Err(Fault::gp(0)),
        false => Ok(next & page.mask),
    }
}

/// Executes an instruction that orders memory for device threads, too.
#[cold]
fn execute_barrier(cx: &mut Exec<'_>, decoded: &Decoded) -> Result<(), Fault> {
    fence(Ordering::SeqCst);
    let result = (decoded.exec)(cx, &decoded.insn);
    fence(Ordering::SeqCst);
    result
}

/// Looks up the page of CS:EIP. Returns the linear address of CS:EIP.
#[cold]
fn find_page(cx: &mut Exec<'_>, page: &mut FetchPage) -> Result<u64, Fault> {
    page.number = FetchPage::NONE;
    cx.check_near_target(cx.cpu.eip)?;
    let linear = cx.cpu.linear_eip().get();
    let frame = fetch_frame(cx, linear)?;
    cx.mmu.memory().mark_executed(frame);
    let size = CodeSize::of(cx.cpu);
    let cs = cx.cpu.seg(SegReg::Cs);
    let (base, limit, mask) = match size {
        CodeSize::Bits64 => (0, u64::MAX, u64::MAX),
        _ => (cs.base, cs.limit.into(), u32::MAX.into()),
    };
    *page = FetchPage {
        number: base.wrapping_add(cx.cpu.eip) >> mmu::PAGE_SHIFT,
        base,
        limit,
        mask,
        frame,
        key: Key {
            address: frame.base().get() | Key::of_size(size),
            written: cx.mmu.written(frame).get(),
        },
        epoch: cx.mmu.code_epoch(),
    };
    Ok(linear)
}

fn fetch_frame(cx: &mut Exec<'_>, linear: u64) -> Result<Frame, Fault> {
    match cx
        .mmu
        .fetch_page(LinearAddr::new(linear), cx.cpu.privilege())
    {
        Ok(frame) => Ok(frame),
        Err(MemFault::Page(fault)) => Err(fault.into()),
        Err(MemFault::NonCanonical) => Err(Fault::gp(0)),
        Err(MemFault::Device) => Err(Fault::Unsupported(Unsupported::FetchFromDevice)),
    }
}

/// Decodes the instruction at `linear`, which begins in `page`, and caches it if it ends there too.
#[cold]
fn decode(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    page: &mut FetchPage,
    key: Key,
    linear: u64,
) -> Result<Decoded, Fault> {
    make_room(cx, cache);
    let size = CodeSize::of(cx.cpu);
    let offset = linear as usize % PAGE_SIZE;
    cx.mmu.mark_code(page.frame);
    let mut bytes = [0; MAX_LENGTH];
    let here = &mut bytes[..MAX_LENGTH.min(PAGE_SIZE - offset)];
    read_code(cx, page.frame, offset, here);
    match emulate::decode(here, size, cx.cpu.model.level(), cx.host) {
        Err(DecodeError::NeedMoreBytes) => decode_across(cx, page, here, size, linear),
        Ok(decoded) => {
            cache.insert(key, decoded);
            Ok(decoded)
        }
        Err(error) => Err(decode_fault(error)),
    }
}

/// Makes sure that there is room for the code of one more instruction that the host executes.
fn make_room(cx: &mut Exec<'_>, cache: &mut Cache) {
    if cx.host.is_full() {
        cx.host.clear();
        cache.clear();
    }
}

/// Decodes an instruction that continues on the next page. Such instructions are not cached: the second page may change.
fn decode_across(
    cx: &mut Exec<'_>,
    page: &FetchPage,
    first: &[u8],
    size: CodeSize,
    linear: u64,
) -> Result<Decoded, Fault> {
    let length = first.len() as u64;
    let level = cx.cpu.model.level();
    let next = linear.wrapping_add(length) & page.mask;
    let offset = cx.cpu.eip.wrapping_add(length);
    // The limit is checked before the page is.
    let fetched = match cx.check_near_target(offset) {
        Ok(()) => fetch_frame(cx, next),
        Err(fault) => Err(fault),
    };
    let frame = match fetched {
        Err(_) if is_undefined_opcode(first, size, level) => return Err(Fault::ud()),
        frame => frame?,
    };
    let mut bytes = [0; MAX_LENGTH];
    bytes[..first.len()].copy_from_slice(first);
    read_code(cx, frame, 0, &mut bytes[first.len()..]);
    emulate::decode(&bytes, size, level, cx.host).map_err(decode_fault)
}

/// Reads instruction bytes that lie in one page, whose fetch has succeeded.
fn read_code(cx: &Exec<'_>, frame: Frame, offset: usize, bytes: &mut [u8]) {
    let start = GuestPhys::new(frame.base().get() + offset as u64);
    if cx.mmu.memory().read(start, bytes).is_err() {
        debug_assert!(false, "frame {frame:?} was fetched from");
    }
}

fn decode_fault(error: DecodeError) -> Fault {
    match error {
        DecodeError::Invalid => Fault::ud(),
        DecodeError::TooLong | DecodeError::NeedMoreBytes => Fault::gp(0),
    }
}
