//! A naive model of the guest, made of flat bytes and the oracle without a TLB, and a machine kept in step with it.

use mmu::{
    Access, Attribute, Frame, GuestPhys, LinearAddr, LinearWidth, MemFault, Memory, Mmu, Paging,
    PagingMode, PagingModel, Privilege,
};
use proptest::prelude::*;

use crate::oracle::{Registers, Request, predict};

pub const RAM: usize = 1 << 20;
pub const PAGE: usize = 4096;

/// The simplest model of the guest.
pub struct Model {
    pub bytes: Vec<u8>,
    pub regs: Registers,
}

impl Model {
    pub fn is_memory(addr: u64) -> bool {
        matches!(addr, 0..0xa_0000 | 0xc_0000..0x10_0000)
    }

    pub fn load(&self, addr: u64, len: u32) -> u64 {
        let byte = |i| {
            if Self::is_memory(addr + i) {
                self.bytes[(addr + i) as usize]
            } else {
                0xff
            }
        };
        (0..u64::from(len))
            .rev()
            .fold(0, |sum, i| sum << 8 | u64::from(byte(i)))
    }

    fn store(&mut self, addr: u64, byte: u8) {
        if matches!(addr, 0..0xa_0000) {
            self.bytes[addr as usize] = byte;
        }
    }

    /// Guest-physical address of each byte of an access, or the fault. Sets A and D.
    fn translate(&mut self, step: &AccessStep) -> Result<Vec<u64>, Fault> {
        let request = |linear| Request {
            linear,
            write: step.access == Access::Write,
            fetch: step.access == Access::Fetch,
            user: step.privilege == Privilege::User,
        };
        let mut found = vec![];
        let mut addrs = vec![];
        let bytes = (0..u64::from(step.len())).map(|i| self.regs.add(step.linear, i));
        let bytes: Vec<u64> = bytes.collect();
        if !bytes.iter().all(|linear| self.regs.is_canonical(*linear)) {
            return Err(NON_CANONICAL);
        }
        for linear in bytes {
            let load = |addr, len| self.load(addr, len);
            let success =
                predict(&self.regs, load, request(linear)).map_err(|code| (linear, code))?;
            addrs.push(success.phys);
            found.push(success);
        }
        for (addr, value) in found.into_iter().flat_map(|success| success.entries) {
            let width = self.regs.width() as u64;
            let bits = value & 0x60 | self.load(addr, width as u32);
            (0..width).for_each(|i| self.store(addr + i, (bits >> (8 * i)) as u8));
        }
        Ok(addrs)
    }
}

#[derive(Clone, Debug)]
pub struct AccessStep {
    pub linear: u64,
    pub access: Access,
    pub privilege: Privilege,
    /// log2 of the length in bytes, 0..=4.
    pub size: u32,
    pub value: u128,
}

impl AccessStep {
    pub fn len(&self) -> u32 {
        if self.access == Access::Fetch {
            1
        } else {
            1 << self.size
        }
    }
}

/// A page fault: address and error code.
type Fault = (u64, u32);

/// Stands for the fault of an address that is not canonical.
const NON_CANONICAL: Fault = (0, u32::MAX);

/// The outcome of an access for the guest: bytes read, or the fault; `None` if it goes to the bus.
type Outcome = Result<Option<u128>, Fault>;

fn on_model(model: &mut Model, step: &AccessStep) -> Outcome {
    let addrs = model.translate(step)?;
    if !addrs.iter().all(|addr| Model::is_memory(*addr)) {
        return Ok(None);
    }
    Ok(Some(match step.access {
        Access::Read => addrs
            .iter()
            .rev()
            .fold(0, |sum, addr| sum << 8 | u128::from(model.load(*addr, 1))),
        Access::Fetch => u128::from(addrs[0] >> 12),
        Access::Write => {
            addrs
                .iter()
                .zip(step.value.to_le_bytes())
                .for_each(|(addr, byte)| model.store(*addr, byte));
            0
        }
    }))
}

fn on_mmu(mmu: &mut Mmu, step: &AccessStep) -> Outcome {
    let (addr, who, value) = (LinearAddr::new(step.linear), step.privilege, step.value);
    let result = match (step.access, step.size) {
        (Access::Fetch, _) => mmu.fetch_page(addr, who).map(|frame| frame.get().into()),
        (Access::Read, 0) => mmu.read::<u8>(addr, who).map(u128::from),
        (Access::Read, 1) => mmu.read::<u16>(addr, who).map(u128::from),
        (Access::Read, 2) => mmu.read::<u32>(addr, who).map(u128::from),
        (Access::Read, 3) => mmu.read::<u64>(addr, who).map(u128::from),
        (Access::Read, _) => mmu.read::<u128>(addr, who),
        (Access::Write, 0) => mmu.write(addr, who, value as u8).map(|()| 0),
        (Access::Write, 1) => mmu.write(addr, who, value as u16).map(|()| 0),
        (Access::Write, 2) => mmu.write(addr, who, value as u32).map(|()| 0),
        (Access::Write, 3) => mmu.write(addr, who, value as u64).map(|()| 0),
        (Access::Write, _) => mmu.write(addr, who, value).map(|()| 0),
    };
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MemFault::Device) => Ok(None),
        Err(MemFault::NonCanonical) => Err(NON_CANONICAL),
        Err(MemFault::Page(fault)) => Err((fault.addr.get(), fault.code.bits())),
    }
}

/// The MMU of the processor that has such registers, with so many bytes of RAM.
pub fn mmu(ram: u64, regs: &Registers) -> Mmu {
    let linear_width = match regs.linear_48 {
        true => LinearWidth::Bits48,
        false => LinearWidth::Bits32,
    };
    let model = PagingModel {
        max_phys_addr: regs.max_phys,
        linear_width,
        gib_pages: regs.gib_pages,
    };
    let memory = Memory::for_width(ram, linear_width).unwrap();
    Mmu::with_model(memory, model).unwrap()
}

/// The paging registers.
pub fn paging(regs: &Registers) -> Paging {
    let mode = match (regs.pg, regs.pae, regs.lma) {
        (false, ..) => PagingMode::Off,
        (true, false, _) => PagingMode::TwoLevel,
        (true, true, false) => PagingMode::Pae,
        (true, true, true) => PagingMode::FourLevel,
    };
    let Registers {
        pse,
        wp,
        pge,
        nxe,
        cr3,
        ..
    } = *regs;
    Paging {
        mode,
        pse,
        wp,
        pge,
        nxe,
        cr3,
    }
}

/// Both machines, kept in step.
pub struct Pair {
    pub mmu: Mmu,
    pub model: Model,
}

impl Pair {
    pub fn new(regs: Registers) -> Self {
        let mmu = mmu(RAM as u64, &regs);
        Self {
            mmu,
            model: Model {
                bytes: vec![0; RAM],
                regs,
            },
        }
    }

    pub fn poke(&mut self, addr: usize, data: &[u8]) {
        self.mmu
            .memory()
            .write(GuestPhys::new(addr as u64), data)
            .unwrap();
        self.mmu.snoop();
        self.model.bytes[addr..addr + data.len()].copy_from_slice(data);
    }

    /// Loads the control registers. Pointer registers with reserved bits are refused, so those before stay. Returns whether they were
    /// loaded.
    pub fn enable_paging(&mut self) -> bool {
        let regs = &self.model.regs;
        self.mmu.set_paging(paging(regs));
        if regs.lma {
            return true;
        }
        let loaded = self.mmu.load_pdptes(regs.cr3 as u32).is_ok();
        if loaded {
            let table = regs.cr3 & !0x1f;
            let pdpte = std::array::from_fn(|i| self.model.load(table + 8 * i as u64, 8));
            self.model.regs.pdpte = pdpte;
        }
        loaded
    }

    pub fn step(&mut self, step: &AccessStep) -> Result<(), TestCaseError> {
        prop_assert_eq!(on_mmu(&mut self.mmu, step), on_model(&mut self.model, step));
        Ok(())
    }

    pub fn frame(&self, number: usize) -> &[u8] {
        &self.model.bytes[number * PAGE..][..PAGE]
    }

    /// The frames marked Code, and their bytes.
    pub fn code(&self) -> Vec<(usize, Vec<u8>)> {
        (0..RAM / PAGE)
            .filter(|frame| {
                self.mmu
                    .memory()
                    .has(Frame::new(*frame as u64), Attribute::Code)
            })
            .map(|frame| (frame, self.frame(frame).to_vec()))
            .collect()
    }

    pub fn compare_memory(&self) -> Result<(), TestCaseError> {
        for (from, to) in [(0, 0xa_0000), (0xc_0000, RAM)] {
            let mut bytes = vec![0; to - from];
            self.mmu
                .memory()
                .read(GuestPhys::new(from as u64), &mut bytes)
                .unwrap();
            let differs = bytes
                .iter()
                .zip(&self.model.bytes[from..to])
                .position(|(a, b)| a != b);
            prop_assert_eq!(differs.map(|at| from + at), None);
        }
        Ok(())
    }
}
