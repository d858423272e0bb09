//! Raw accesses to guest memory through the slots of the present address space.

use std::ptr;

use super::{SLOT_PRESENT, Tables};
use crate::addr::{LinearAddr, PAGE_SIZE};
use crate::paging::{Access, Privilege};
use crate::scalar::Scalar;
use crate::tlb::view::View;

/// The order in which the bytes of a range are accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Ascending: from the lowest address on.
    Upward,
    /// Descending: from the highest address on.
    Downward,
}

impl Tables {
    /// Loads a value as `privilege`, if there is a slot for that and the value lies in one page.
    #[inline(always)]
    pub(crate) fn load<T: Scalar>(&self, addr: LinearAddr, privilege: Privilege) -> Option<T> {
        let host = self.host(addr, size_of::<T>(), Access::Read, privilege)?;
        // SAFETY: `host` is valid for `size_of::<T>()` bytes of the RAM mapping, which is mapped readable, and any bytes
        // are a T (ByteValued). No Rust reference to guest RAM exists that this could alias.
        Some(unsafe { host.cast::<T>().read_unaligned() })
    }

    /// Stores a value as `privilege`, if there is a slot for that and the value lies in one page. Returns whether it did.
    #[inline(always)]
    pub(crate) fn store<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        value: T,
    ) -> bool {
        let Some(host) = self.host(addr, size_of::<T>(), Access::Write, privilege) else {
            return false;
        };
        // SAFETY: as in `load`; the RAM mapping is writable.
        unsafe { host.cast::<T>().write_unaligned(value) };
        true
    }

    /// Reads `out.len()` bytes as `privilege`, if all of them lie in one page that there is a slot for. Returns whether it did;
    /// else nothing happened.
    pub fn load_bytes(&self, addr: LinearAddr, privilege: Privilege, out: &mut [u8]) -> bool {
        let Some(host) = self.host(addr, out.len(), Access::Read, privilege) else {
            return false;
        };
        // SAFETY: `host` is valid for `out.len()` bytes of the RAM mapping; `out` is none of them, as no Rust reference to
        // guest RAM exists.
        unsafe { ptr::copy_nonoverlapping(host, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Writes `data` as `privilege`, if all of it lies in one page that there is a slot for. Returns whether it did; else nothing
    /// happened.
    pub fn store_bytes(&mut self, addr: LinearAddr, privilege: Privilege, data: &[u8]) -> bool {
        let Some(host) = self.host(addr, data.len(), Access::Write, privilege) else {
            return false;
        };
        // SAFETY: as in `load_bytes`; the RAM mapping is writable.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), host, data.len()) };
        true
    }

    /// Writes `value` `count` times from `addr` on, as so many writes would, if all of it lies in one page that there is a slot
    /// for. Returns whether it did; else nothing happened.
    pub fn fill_run<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        value: T,
        count: usize,
    ) -> bool {
        let len = count.saturating_mul(size_of::<T>());
        let Some(host) = self.host(addr, len, Access::Write, privilege) else {
            return false;
        };
        for index in 0..count {
            // SAFETY: as in `store`; `host` made sure of all `count` values.
            unsafe { host.cast::<T>().add(index).write_unaligned(value) };
        }
        true
    }

    /// Copies `len` bytes from `from` to `to`, as reads and writes in that order would, if both lie in one page each that there
    /// is a slot for and no write changes what is read later. Returns whether it did; else nothing happened.
    pub fn copy(
        &mut self,
        to: LinearAddr,
        from: LinearAddr,
        privilege: Privilege,
        len: usize,
        order: Order,
    ) -> bool {
        let (Some(target), Some(source)) = (
            self.host(to, len, Access::Write, privilege),
            self.host(from, len, Access::Read, privilege),
        ) else {
            return false;
        };
        let apart = target.addr().abs_diff(source.addr()) >= len;
        let behind = match order {
            Order::Upward => target.addr() <= source.addr(),
            Order::Downward => target.addr() >= source.addr(),
        };
        if !apart && !behind {
            return false;
        }
        // SAFETY: `host` made sure that both ranges lie in the RAM mapping; no Rust reference to guest RAM exists.
        unsafe { ptr::copy(source, target, len) };
        true
    }

    /// Host address of `len` bytes at `addr`: inside the RAM mapping, within one page.
    #[inline(always)]
    fn host(
        &self,
        addr: LinearAddr,
        len: usize,
        access: Access,
        privilege: Privilege,
    ) -> Option<*mut u8> {
        let slot = self.slot(View::of(access, privilege), addr.page());
        if slot == 0 || len > PAGE_SIZE - addr.offset() as usize {
            return None;
        }
        let linear = self.width.linear(addr);
        let host = linear.wrapping_add(slot).wrapping_sub(SLOT_PRESENT);
        // The slot was set by `set_frame`: host is in the page of a frame inside the mapping, whose provenance `new`
        // exposed.
        Some(ptr::with_exposed_provenance_mut(host as usize))
    }
}
