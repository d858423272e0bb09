//! The one entrance for stores, whoever makes them, and the report to all subscribers.

use std::iter;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use vm_memory::VolatileMemory;

use super::{Attribute, Memory, NotRam, Party, RegionKind, Store, Subscriber, SubscriberId};
use crate::addr::{Frame, GuestPhys, PAGE_SIZE};
use crate::scalar::Scalar;

/// The length from which on bytes are written through the file, which takes no page fault for each page.
const LARGE: usize = 64 << 10;

/// Whoever stores, a processor with the name that it subscribed by.
#[derive(Clone, Copy)]
pub(crate) enum By {
    Processor(SubscriberId),
    Device,
    Host,
}

impl Memory {
    /// Writes RAM or ROM as the host does: a loader, a debugger.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is neither; nothing is then written.
    pub fn write(&self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        let slice = self.slice(addr, data.len())?;
        if data.len() < LARGE || self.file.write_all_at(data, addr.get()).is_err() {
            slice.copy_from(data);
        }
        self.stored(By::Host, addr, data.len() as u64, &mut |_| ());
        Ok(())
    }

    /// Stores bytes as a device does: ROM ignores them.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is neither RAM nor ROM; nothing is then stored.
    pub fn store_bytes(&self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        self.store_by(By::Device, addr, data, |_| ())
    }

    /// Stores a value as a device does: ROM ignores it.
    ///
    /// # Errors
    /// As [`Self::store_bytes`].
    pub fn store<T: Scalar>(&self, addr: GuestPhys, value: T) -> Result<(), NotRam> {
        self.store_bytes(addr, value.as_slice())
    }

    /// Stores bytes as the guest does: ROM ignores them. All subscribers are told except a processor that has stored, which
    /// learns of it by `own`.
    pub(crate) fn store_by(
        &self,
        by: By,
        mut addr: GuestPhys,
        mut data: &[u8],
        mut own: impl FnMut(Store),
    ) -> Result<(), NotRam> {
        self.check(addr, data.len())?;
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(PAGE_SIZE - addr.offset() as usize));
            if self.region(addr) == RegionKind::Ram {
                self.slice(addr, piece.len())?.copy_from(piece);
                self.stored(by, addr, piece.len() as u64, &mut own);
            }
            addr = addr.frame().next().base();
            data = rest;
        }
        Ok(())
    }

    /// Replaces a paging-structure entry of `size` bytes, 4 or 8, as a processor's locked access does: `old` by `new`. Returns
    /// `false`, and stores nothing, if something else is there. ROM ignores it. Subscribers are told as by [`Self::store_by`].
    pub(crate) fn exchange_by(
        &self,
        by: SubscriberId,
        addr: GuestPhys,
        size: usize,
        (old, new): (u64, u64),
        mut own: impl FnMut(Store),
    ) -> bool {
        if self.region(addr) != RegionKind::Ram {
            return true;
        }
        let Ok(slice) = self.slice(addr, size) else {
            return true;
        };
        let exchanged = if size == size_of::<u32>() {
            let entry = slice.get_atomic_ref::<AtomicU32>(0);
            entry.map(|entry| {
                let exchanged = entry.compare_exchange(old as u32, new as u32, SeqCst, SeqCst);
                exchanged.is_ok()
            })
        } else {
            let entry = slice.get_atomic_ref::<AtomicU64>(0);
            entry.map(|entry| entry.compare_exchange(old, new, SeqCst, SeqCst).is_ok())
        };
        let exchanged = exchanged.expect("entries are aligned");
        if exchanged {
            self.stored(By::Processor(by), addr, size as u64, &mut own);
        }
        exchanged
    }

    /// Records that a device has written `len` bytes from `addr` by means other than this type's methods.
    pub fn mark_written(&self, addr: GuestPhys, len: u64) {
        self.stored(By::Device, addr, len, &mut |_| ());
    }

    fn stored(&self, by: By, addr: GuestPhys, len: u64, own: &mut impl FnMut(Store)) {
        let (party, id) = match by {
            By::Processor(id) => (Party::Processor, Some(id)),
            By::Device => (Party::Device, None),
            By::Host => (Party::Host, None),
        };
        for (frame, bytes) in self.pieces(addr, len) {
            let attributes = self.frames.written(frame);
            let is_code = attributes.has(Attribute::Code);
            let marking = is_code.then(|| self.marking.lock());
            // A processor's own store to a frame from which nothing was made does not interest others.
            if id.is_some() && !attributes.is_source() {
                continue;
            }
            let store = Store {
                frame,
                bytes,
                by: party,
                attributes,
            };
            self.tell(id, |subscriber| subscriber.stored(&store));
            if id.is_some() {
                own(store);
            }
            if marking.is_some() {
                self.frames.overwritten(frame);
            }
        }
    }

    pub(super) fn tell(&self, except: Option<SubscriberId>, what: impl Fn(&dyn Subscriber)) {
        let subscriptions = Arc::clone(&self.subscriptions.read());
        for subscription in subscriptions.iter() {
            if Some(subscription.id) != except
                && let Some(subscriber) = subscription.subscriber.upgrade()
            {
                what(&*subscriber);
            }
        }
    }

    /// The frames that hold `len` bytes from `addr`, each with the offsets of the bytes in it.
    fn pieces(
        &self,
        addr: GuestPhys,
        len: u64,
    ) -> impl Iterator<Item = (Frame, Range<u32>)> + use<> {
        let limit = self.frames.count() * PAGE_SIZE as u64;
        let end = addr.get().saturating_add(len).min(limit);
        let mut next = addr.get();
        iter::from_fn(move || {
            let addr = GuestPhys::new(next);
            let room = PAGE_SIZE as u64 - u64::from(addr.offset());
            let len = end.checked_sub(next)?.min(room) as u32;
            next += u64::from(len);
            (len > 0).then(|| (addr.frame(), addr.offset()..addr.offset() + len))
        })
    }
}
