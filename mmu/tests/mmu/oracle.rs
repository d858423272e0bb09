//! An independent prediction of one access, written from SDM Vol. 3A, chapter 4 (Paging), with literal bits. It shares no code
//! with the crate, as the walker is checked against it.

/// The control registers that matter, and what the processor has.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    pub pg: bool,
    pub pae: bool,
    /// EFER.LMA: with paging and PAE, 4-level paging.
    pub lma: bool,
    pub pse: bool,
    pub wp: bool,
    pub pge: bool,
    pub nxe: bool,
    pub cr3: u64,
    /// The pointer registers as loaded from memory.
    pub pdpte: [u64; 4],
    /// MAXPHYADDR.
    pub max_phys: u32,
    /// CPUID's Page1GB.
    pub gib_pages: bool,
    /// Whether linear addresses have 48 bits in 4-level paging, which there is then.
    pub linear_48: bool,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            pg: false,
            pae: false,
            lma: false,
            pse: false,
            wp: false,
            pge: false,
            nxe: false,
            cr3: 0,
            pdpte: [0; 4],
            max_phys: 36,
            gib_pages: false,
            linear_48: false,
        }
    }
}

impl Registers {
    /// Bytes of an entry.
    pub fn width(&self) -> usize {
        if self.pae { 8 } else { 4 }
    }

    /// The linear address `bytes` behind `linear`.
    pub fn add(&self, linear: u64, bytes: u64) -> u64 {
        let sum = linear.wrapping_add(bytes);
        if self.lma { sum } else { sum & 0xffff_ffff }
    }

    /// Whether the address is canonical, or has 32 bits.
    pub fn is_canonical(&self, linear: u64) -> bool {
        match self.lma {
            true => matches!(linear >> 47, 0 | 0x1_ffff),
            false => linear >> 32 == 0,
        }
    }
}

/// An access to predict.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub linear: u64,
    pub write: bool,
    pub fetch: bool,
    pub user: bool,
}

/// The expected result of an access that does not fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Success {
    pub phys: u64,
    pub page_bytes: u64,
    pub global: bool,
    /// Entries used, with their address and new value.
    pub entries: Vec<(u64, u64)>,
}

/// A level of paging structures: the index's lowest bit in the linear address, its mask, and the bits that are reserved in an
/// entry that maps a page there; all are if none can.
struct Level {
    shift: u32,
    mask: u64,
    large_reserved: u64,
}

fn levels(regs: &Registers) -> Vec<Level> {
    let level = |shift, mask, large_reserved| Level {
        shift,
        mask,
        large_reserved,
    };
    let gib = if regs.gib_pages {
        0x3fff_e000
    } else {
        u64::MAX
    };
    match (regs.pae, regs.lma) {
        (true, true) => vec![
            level(39, 0x1ff, u64::MAX),
            level(30, 0x1ff, gib),
            level(21, 0x1ff, 0x1f_e000),
            level(12, 0x1ff, 0),
        ],
        (true, false) => vec![level(21, 0x1ff, 0x1f_e000), level(12, 0x1ff, 0)],
        // Bits 13 and up hold address bits 32 and up: four on a processor with 36, at most eight.
        (false, _) => vec![
            level(
                22,
                0x3ff,
                0x3f_e000 & u64::MAX << (regs.max_phys.min(40) - 19),
            ),
            level(12, 0x3ff, 0),
        ],
    }
}

/// Predicts the access: success, or the page-fault error code. `load(address, bytes)` reads an entry, all ones where
/// there is no memory. On a fault no entry changes. The address is canonical.
pub fn predict(
    regs: &Registers,
    load: impl Fn(u64, u32) -> u64,
    request: Request,
) -> Result<Success, u32> {
    let la = request.linear;
    if !regs.pg {
        return Ok(Success {
            phys: la,
            page_bytes: 4096,
            global: false,
            entries: vec![],
        });
    }
    let access_bits = u32::from(request.write) << 1
        | u32::from(request.user) << 2
        | u32::from(request.fetch && regs.pae && regs.nxe) << 4;
    let not_present = Err(access_bits);
    let reserved = Err(access_bits | 0x9);

    let frame_bits = (1 << regs.max_phys) - 0x1000;
    let mut structure = match (regs.pae, regs.lma) {
        (true, true) => regs.cr3 & frame_bits,
        (true, false) => {
            let pointer = regs.pdpte[(la >> 30) as usize];
            if pointer & 1 == 0 {
                return not_present;
            }
            pointer & frame_bits
        }
        (false, _) => regs.cr3 & 0xffff_f000,
    };
    // Bits that are reserved in any present entry.
    let high = match (regs.pae, regs.lma) {
        (false, _) => 0,
        (true, false) => 0x7fff_ffff_ffff_ffff,
        (true, true) => 0x000f_ffff_ffff_ffff,
    } & !((1 << regs.max_phys) - 1);
    let always = high | u64::from(regs.pae && !regs.nxe) << 63;

    let (mut entries, mut all, mut no_execute) = (vec![], u64::MAX, false);
    let (leaf, page_bytes, frame) = 'walk: {
        for level in levels(regs) {
            let at = structure + (la >> level.shift & level.mask) * regs.width() as u64;
            // A recursive mapping may use one entry several times: it is read before A is set, and A is sticky.
            let entry = load(at, regs.width() as u32);
            if entry & 1 == 0 {
                return not_present;
            }
            let large = level.shift > 12 && entry & 0x80 != 0 && (regs.pae || regs.pse);
            if entry & always != 0 || large && entry & level.large_reserved != 0 {
                return reserved;
            }
            entries.push((at, entry | 0x20));
            all &= entry;
            no_execute |= entry >> 63 != 0;
            if large || level.shift == 12 {
                let bytes = 1u64 << level.shift;
                let base = match regs.pae {
                    true => entry & frame_bits & !(bytes - 1),
                    false if large => {
                        let pse_36 = entry >> 13 & ((1 << (regs.max_phys.min(40) - 32)) - 1);
                        entry & 0xffc0_0000 | pse_36 << 32
                    }
                    false => entry & 0xffff_f000,
                };
                break 'walk (entry, bytes, base);
            }
            structure = match regs.pae {
                true => entry & frame_bits,
                false => entry & 0xffff_f000,
            };
        }
        unreachable!("the last level maps pages")
    };
    let (last, value) = entries.pop().unwrap();
    // A recursive mapping ends with D set whichever update is applied last.
    entries.retain(|(at, _)| *at != last);
    entries.push((last, value | u64::from(request.write) << 6));

    let denied = (request.user && all & 4 == 0)
        || (request.write && all & 2 == 0 && (request.user || regs.wp))
        || (request.fetch && no_execute);
    if denied {
        return Err(access_bits | 1);
    }
    Ok(Success {
        phys: frame | la & (page_bytes - 1),
        page_bytes,
        global: regs.pge && leaf & 0x100 != 0,
        entries,
    })
}
