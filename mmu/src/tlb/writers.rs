//! For each frame, where it was last entered writable.
//!
//! One linear page a frame is remembered, and whether there were more: then only emptying the whole write views is sure
//! to catch all. The record may be out of date in the safe direction (the page was flushed since).

use crate::addr::{Frame, LinearPage, PAGE_SHIFT};

const ONE: u32 = 1 << 30;
const MANY: u32 = 1 << 31;

/// Linear pages that may have a write slot for a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writer {
    /// No page.
    None,
    /// At most this page.
    One(LinearPage),
    /// Any page.
    Many,
}

/// A [`Writer`] for each frame of RAM: four bytes a frame, zero-backed.
pub(super) struct Writers(Vec<u32>);

impl Writers {
    pub(super) fn new(ram_bytes: usize) -> Self {
        Self(vec![0; ram_bytes >> PAGE_SHIFT])
    }

    pub(super) fn get(&self, frame: Frame) -> Writer {
        match self.0.get(frame.get() as usize) {
            None | Some(0) => Writer::None,
            Some(&word) if word & MANY != 0 => Writer::Many,
            Some(&word) => Writer::One(LinearPage::truncated(word)),
        }
    }

    pub(super) fn set(&mut self, frame: Frame, writer: Writer) {
        let Some(word) = self.0.get_mut(frame.get() as usize) else {
            return;
        };
        *word = match writer {
            Writer::None => 0,
            Writer::One(page) => ONE | page.get(),
            Writer::Many => MANY,
        };
    }

    /// The writers of `frame`, which has none from now on.
    pub(super) fn take(&mut self, frame: Frame) -> Writer {
        let writer = self.get(frame);
        self.set(frame, Writer::None);
        writer
    }
}
