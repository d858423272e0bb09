//! [`Registers`]: everything but memory on which translation depends.

use super::control::{Paging, PagingMode, PagingModel};
use super::entry::ReservedBits;
use super::pdpte::Pdptes;
use crate::addr::{GuestPhys, LinearAddr};
use crate::memory::Memory;

/// CR3 bits 31:12 locate the page directory of 32-bit paging.
const DIRECTORY: u64 = 0xffff_f000;

/// The control registers, the PAE pointer registers and the model of a processor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) paging: Paging,
    pub(crate) pdptes: Pdptes,
    pub(crate) model: PagingModel,
}

impl Registers {
    /// Loads the PAE pointer registers from the table at `cr3`. On error they keep their values.
    pub(crate) fn load_pdptes(&mut self, memory: &Memory, cr3: u32) -> Result<(), ReservedBits> {
        self.pdptes = Pdptes::load(memory, cr3, &self.model)?;
        Ok(())
    }

    /// The address of the paging structure in which a walk for `addr` begins, if there is one.
    pub(super) fn root(&self, addr: LinearAddr) -> Option<GuestPhys> {
        match self.paging.mode {
            PagingMode::Off => None,
            PagingMode::TwoLevel | PagingMode::FourLevel => Some(GuestPhys::new(self.top())),
            PagingMode::Pae => self.pdptes.directory(addr),
        }
    }

    /// The address of the one top structure of 32-bit and 4-level paging.
    pub(crate) fn top(&self) -> u64 {
        match self.paging.mode {
            PagingMode::FourLevel => self.paging.cr3 & self.model.frame_bits(),
            PagingMode::Off | PagingMode::TwoLevel | PagingMode::Pae => self.paging.cr3 & DIRECTORY,
        }
    }
}
