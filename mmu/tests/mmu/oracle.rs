//! An independent prediction of one access, written from SDM Vol. 3A, chapter 4 (Paging), with literal bits. It shares no code
//! with the crate, as the walker is checked against it.

/// The control registers that matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    pub pg: bool,
    pub pae: bool,
    pub pse: bool,
    pub wp: bool,
    pub pge: bool,
    pub nxe: bool,
    pub cr3: u32,
    /// The pointer registers as loaded from memory.
    pub pdpte: [u64; 4],
}

/// An access to predict.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub linear: u32,
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

/// Predicts the access: success, or the page-fault error code. `load(address, bytes)` reads an entry, all ones where
/// there is no memory. On a fault no entry changes.
pub fn predict(
    regs: &Registers,
    load: impl Fn(u64, u32) -> u64,
    request: Request,
) -> Result<Success, u32> {
    let la = u64::from(request.linear);
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

    let (width, directory, pde_index, pte_index, large_bytes) = if regs.pae {
        let pointer = regs.pdpte[(la >> 30) as usize];
        if pointer & 1 == 0 {
            return not_present;
        }
        (
            8,
            pointer & 0xf_ffff_f000,
            la >> 21 & 0x1ff,
            la >> 12 & 0x1ff,
            0x20_0000,
        )
    } else {
        (
            4,
            u64::from(regs.cr3 & 0xffff_f000),
            la >> 22,
            la >> 12 & 0x3ff,
            0x40_0000,
        )
    };
    // Bits that are reserved in any present entry, and in one that maps a large page.
    let always = match (regs.pae, regs.nxe) {
        (false, _) => 0,
        (true, true) => 0x7fff_fff0_0000_0000,
        (true, false) => 0xffff_fff0_0000_0000,
    };
    let when_large = if regs.pae { 0x1f_e000 } else { 0x3e_0000 };

    let pde_at = directory + pde_index * width;
    let pde = load(pde_at, width as u32);
    if pde & 1 == 0 {
        return not_present;
    }
    let large = pde & 0x80 != 0 && (regs.pae || regs.pse);
    if pde & always != 0 || (large && pde & when_large != 0) {
        return reserved;
    }
    let mut entries = vec![(pde_at, pde | 0x20)];
    let (leaf, page_bytes, frame) = if large {
        let base = if regs.pae {
            pde & 0xf_ffe0_0000
        } else {
            pde & 0xffc0_0000 | (pde >> 13 & 0xf) << 32
        };
        (pde, large_bytes, base)
    } else {
        let pte_at = (pde & 0xf_ffff_f000) + pte_index * width;
        // A recursive mapping may use one entry twice: it is read before A is set, and A is sticky.
        let pte = load(pte_at, width as u32);
        if pte & 1 == 0 {
            return not_present;
        }
        if pte & always != 0 {
            return reserved;
        }
        entries.push((pte_at, pte | 0x20));
        (pte, 4096, pte & 0xf_ffff_f000)
    };
    if request.write {
        entries.last_mut().unwrap().1 |= 0x40;
    }
    // A recursive mapping ends with D set whichever update is applied last.
    if entries.len() == 2 && entries[0].0 == entries[1].0 {
        entries.remove(0);
    }

    let all = pde & leaf;
    let denied = (request.user && all & 4 == 0)
        || (request.write && all & 2 == 0 && (request.user || regs.wp))
        || (request.fetch && (pde | leaf) >> 63 != 0);
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
