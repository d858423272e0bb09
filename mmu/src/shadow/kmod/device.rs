//! [`Kmod`]: the open device of a machine, and [`Area`]s, its windows.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::libc::O_NONBLOCK;
use parking_lot::Mutex;

use super::super::{SHADOW_BYTES, SHADOW_PAGES};
use super::abi::{self, AROUND_MAX, Device, KmodStats, OFFSET_BITS, WINDOWS};
use super::error::{KmodError, Reason};
use crate::addr::PAGE_SHIFT;
use crate::mapping::{Mapping, Protection};
use crate::memory::Memory;

/// The device of the host's kernel module (`kmod/`), opened for one machine. It shows guest memory in windows, each of which takes
/// one mapping of the host, and makes their pages accessible in the host's page-fault handler.
///
/// A child by `fork` has neither the device's windows nor any right to it, so the machine cannot run there.
pub struct Kmod {
    path: PathBuf,
    device: Device,
    windows: Mutex<Windows>,
    /// Whether the user was told that the module has failed.
    has_failed: AtomicBool,
}

/// The windows that nobody uses.
struct Windows {
    /// The windows that have an area. A later user takes it over, since mapping and unmapping one costs more than to hide its pages.
    idle: Vec<Area>,
    /// The numbers of the windows that have none.
    numbers: Vec<u32>,
}

/// The area of a window: host addresses for all linear pages and a guard page, of which those below [`SHADOW_PAGES`] are the
/// device's and the others inaccessible.
#[derive(Debug)]
pub(super) struct Area {
    number: u32,
    mapping: Mapping,
}

/// The tables of a window: the host addresses of the user's read slot and write slot of linear page 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserTables {
    pub(crate) read: u64,
    pub(crate) write: u64,
}

impl Kmod {
    /// The path of the device.
    pub const PATH: &str = "/dev/replex";
    /// The version of the interface that the module is to have.
    pub const VERSION: u32 = abi::VERSION;

    /// Opens the device at `path` for a machine with this memory.
    ///
    /// # Errors
    /// See [`KmodError`]. Nothing is then left of the attempt.
    pub fn open(path: &Path, memory: &Memory) -> Result<Arc<Self>, KmodError> {
        Self::attempt(path, memory).map_err(|reason| KmodError::new(path, reason))
    }

    fn attempt(path: &Path, memory: &Memory) -> Result<Arc<Self>, Reason> {
        let mut options = OpenOptions::new();
        // A path that leads to something else must not block.
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        let device = Device(options.open(path).map_err(Reason::of_open)?);
        match device.version().map_err(Reason::Foreign)? {
            abi::VERSION => {}
            other => return Err(Reason::Version(other)),
        }
        let base = memory.host_base().expose_provenance() as u64;
        device.set_ram(memory.file(), base).map_err(Reason::Ram)?;
        let kmod = Arc::new(Self::new(path, device));
        // What the first window would be refused for is better known now.
        let first = kmod.area().map_err(Reason::Window)?;
        kmod.put_back(first);
        Ok(kmod)
    }

    pub(super) fn new(path: &Path, device: Device) -> Self {
        Self {
            path: path.into(),
            device,
            windows: Mutex::new(Windows {
                idle: Vec::new(),
                numbers: (0..WINDOWS).rev().collect(),
            }),
            has_failed: AtomicBool::new(false),
        }
    }

    /// The counts of what the module has done for the machine.
    ///
    /// # Errors
    /// The host's error, such as in a child by `fork`.
    pub fn stats(&self) -> io::Result<KmodStats> {
        self.device.stats()
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Takes a window in which nothing is accessible, for the tables of an address space.
    ///
    /// # Errors
    /// The host's error, or `QuotaExceeded` when all windows are in use.
    pub(super) fn window(&self, tables: UserTables) -> io::Result<Area> {
        let area = self.area()?;
        let set = self.device.set_tables(&abi::Tables {
            window: area.number,
            around: AROUND_MAX,
            read_slots: tables.read,
            write_slots: tables.write,
        });
        match set {
            Ok(()) => Ok(area),
            Err(error) => {
                self.put_back(area);
                Err(error)
            }
        }
    }

    /// Takes a window in which nothing is accessible, for tables that are set later.
    pub(super) fn area(&self) -> io::Result<Area> {
        if let Some(area) = self.take_idle() {
            match area.hide_all(&self.device) {
                Ok(()) => return Ok(area),
                // Nobody must see what it may show.
                Err(_) => drop(self.discard(area)),
            }
        }
        let number = self.windows.lock().numbers.pop();
        let number = number.ok_or(io::ErrorKind::QuotaExceeded)?;
        Area::new(&self.device.0, number).inspect_err(|_| self.windows.lock().numbers.push(number))
    }

    fn take_idle(&self) -> Option<Area> {
        self.windows.lock().idle.pop()
    }

    /// Keeps an area for its next user. It may show pages.
    pub(super) fn put_back(&self, area: Area) {
        self.windows.lock().idle.push(area);
    }

    /// Makes the whole area inaccessible, no longer the device's, and gives back the window. Returns the addresses.
    pub(super) fn discard(&self, area: Area) -> Mapping {
        let Area {
            number,
            mut mapping,
        } = area;
        reserve(&mut mapping);
        self.windows.lock().numbers.push(number);
        mapping
    }

    /// Tells the user, once for each machine, that the module has failed, and why.
    pub(crate) fn report_failure(&self, reason: &dyn fmt::Display) {
        if !self.has_failed.swap(true, Relaxed) {
            log::warn!(target: "kmod", "{}: {reason}; pages are mapped without it", self.path.display());
        }
    }
}

/// Makes all addresses of an area inaccessible, and nobody's but the owner's.
fn reserve(mapping: &mut Mapping) {
    mapping
        .map_anonymous(0..SHADOW_BYTES, Protection::None)
        .expect("the host replaces a whole mapping by another");
}

impl fmt::Debug for Kmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kmod")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Area {
    fn new(device: &File, number: u32) -> io::Result<Self> {
        let mut mapping = Mapping::anonymous(SHADOW_BYTES, Protection::None)?;
        let offset = u64::from(number) << OFFSET_BITS;
        let pages = 0..(SHADOW_PAGES as usize) << PAGE_SHIFT;
        let mapped = mapping.map_file(pages, device, offset, Protection::ReadWrite, false);
        if let Err(error) = mapped {
            // Part of the addresses may belong to nobody now.
            reserve(&mut mapping);
            return Err(error);
        }
        Ok(Self { number, mapping })
    }

    /// Host address that stands for linear address 0.
    pub(super) fn base(&self) -> u64 {
        self.mapping.start().as_ptr().expose_provenance() as u64
    }

    /// Makes all pages inaccessible until they are touched.
    fn hide_all(&self, device: &Device) -> io::Result<()> {
        device.zap(self.base(), &[(0..SHADOW_PAGES).into()])
    }
}
