//! Control registers and translation flushes (SDM Vol. 3A, 2.5 "Control Registers", 4.10.4 "Invalidation of TLBs and
//! Paging-Structure Caches"; Vol. 2B, "MOV—Move to/from Control Registers").

use crate::cpu::Pending;
use crate::cpu::canonical::is_canonical;
use crate::cpu::control::{
    CR0_EM, CR0_ET, CR0_MP, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR0_WRITABLE, CR4_PAE, CR4_PGE,
    CR4_PSE, CR4_WRITABLE, CR8_WRITABLE, ControlRegister, EFER_LMA, EFER_LME, is_valid_cr0,
};
use crate::cpu::segment::SegReg;
use crate::decode::{Insn, Operand};
use crate::emulate::descriptors::{Kind, Size};
use crate::emulate::exec::Exec;
use crate::emulate::word::Word;
use crate::fault::Fault;

/// Bits of CR0 on which translations depend.
const CR0_TRANSLATION: u32 = CR0_PE | CR0_PG | CR0_WP;
/// Bits of CR4 on which translations depend.
const CR4_TRANSLATION: u32 = CR4_PSE | CR4_PAE | CR4_PGE;
/// The machine-status word that LMSW writes.
const MSW: u32 = CR0_PE | CR0_MP | CR0_EM | CR0_TS;

/// MOV r32, CRn and MOV r64, CRn.
pub fn mov_from_cr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = control_register(insn, 1)?;
    cx.require_cpl0()?;
    let value = cx.cpu.control_register(register);
    cx.set_register(insn.ops[0], W::cut(value));
    Ok(())
}

/// MOV CRn, r32 and MOV CRn, r64. Reserved bits raise #GP(0).
pub fn mov_to_cr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = control_register(insn, 0)?;
    cx.require_cpl0()?;
    let value = cx.read_operand::<W>(insn, 1)?.zero_extend();
    let low = u32::try_from(value).map_err(|_| Fault::gp(0));
    let old = cx.cpu.control_register(register);
    match register {
        ControlRegister::Cr0 => cx.write_cr0(low?)?,
        ControlRegister::Cr2 => cx.cpu.cr2 = value,
        ControlRegister::Cr3 => cx.write_cr3(value)?,
        ControlRegister::Cr4 => cx.write_cr4(low?)?,
        ControlRegister::Cr8 if value & !CR8_WRITABLE != 0 => return Err(Fault::gp(0)),
        ControlRegister::Cr8 => cx.cpu.cr8 = value as u8,
    }
    cx.observe_control(register, old, insn.len);
    Ok(())
}

/// The control register that is operand `index`; #UD if it does not exist.
fn control_register(insn: &Insn, index: usize) -> Result<ControlRegister, Fault> {
    let number = Exec::register_number(insn, index);
    ControlRegister::from_number(number).ok_or(Fault::ud())
}

impl Exec<'_> {
    /// Writes CR0.
    pub fn write_cr0(&mut self, value: u32) -> Result<(), Fault> {
        let value = value & CR0_WRITABLE | CR0_ET;
        if !is_valid_cr0(value) {
            return Err(Fault::gp(0));
        }
        let changed = self.cpu.cr0 ^ value;
        let efer = match (changed & CR0_PG != 0, value & CR0_PG != 0) {
            (false, _) => self.cpu.efer,
            (true, true) => self.start_paging()?,
            (true, false) => self.stop_paging()?,
        };
        self.cpu.cr0 = value;
        self.cpu.efer = efer;
        if changed & CR0_TRANSLATION != 0 {
            self.update_paging();
            self.mmu.flush_all();
        }
        self.update_access_checks();
        Ok(())
    }

    /// Checks whether paging may start, and activates IA-32e mode with it if EFER.LME is set: returns EFER (SDM Vol. 3A, 9.8.5
    /// "Initializing IA-32e Mode").
    fn start_paging(&mut self) -> Result<u64, Fault> {
        let is_pae = self.cpu.cr4 & CR4_PAE != 0;
        if self.cpu.efer & EFER_LME == 0 {
            if is_pae {
                self.load_pdptes(self.cpu.cr3)?;
            }
            return Ok(self.cpu.efer);
        }
        let cpu = &*self.cpu;
        let has_tss16 = matches!(
            Kind::of(cpu.tr.attributes, false),
            Kind::AvailableTss(Size::Bits16) | Kind::BusyTss(Size::Bits16)
        );
        if !is_pae || has_tss16 || cpu.seg(SegReg::Cs).attributes.is_long() {
            return Err(Fault::gp(0));
        }
        Ok(cpu.efer | EFER_LMA)
    }

    /// Checks whether paging may stop, which 64-bit mode does not allow, and leaves IA-32e mode with it: returns EFER.
    fn stop_paging(&self) -> Result<u64, Fault> {
        match self.cpu.is_code64() {
            true => Err(Fault::gp(0)),
            false => Ok(self.cpu.efer & !EFER_LMA),
        }
    }

    /// Whether PAE paging is on, with its pointer registers.
    fn is_pae_paging(&self) -> bool {
        self.cpu.is_paging() && self.cpu.cr4 & CR4_PAE != 0 && !self.cpu.is_long()
    }

    /// Writes CR3: translations that are not global go. #GP(0) on bits beyond the physical address.
    pub fn write_cr3(&mut self, value: u64) -> Result<(), Fault> {
        if value >> self.cpu.model.physical_bits() != 0 {
            return Err(Fault::gp(0));
        }
        if self.is_pae_paging() {
            self.load_pdptes(value)?;
        }
        self.cpu.cr3 = value;
        self.update_paging();
        self.mmu.flush_non_global();
        Ok(())
    }

    fn write_cr4(&mut self, value: u32) -> Result<(), Fault> {
        if value & !CR4_WRITABLE != 0 {
            return Err(Fault::gp(0));
        }
        let changed = self.cpu.cr4 ^ value;
        if self.cpu.is_long() && value & CR4_PAE == 0 {
            return Err(Fault::gp(0));
        }
        // Toggling PAE, PGE or PSE under paging reloads the PDPTEs (SDM Vol. 3A, 4.4.1 "PDPTE Registers").
        let is_pae_paging = value & CR4_PAE != 0 && self.cpu.is_paging() && !self.cpu.is_long();
        if changed & CR4_TRANSLATION != 0 && is_pae_paging {
            self.load_pdptes(self.cpu.cr3)?;
        }
        self.cpu.cr4 = value;
        if changed & CR4_TRANSLATION != 0 {
            self.update_paging();
            self.mmu.flush_all();
        }
        Ok(())
    }

    /// Loads the PDPTE registers from the table at `cr3`; #GP(0) on reserved bits.
    pub fn load_pdptes(&mut self, cr3: u64) -> Result<(), Fault> {
        self.mmu.load_pdptes(cr3 as u32).map_err(|_| Fault::gp(0))
    }
}

/// CLTS.
pub fn clts(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    let old = cx.cpu.cr0;
    cx.cpu.cr0 &= !CR0_TS;
    cx.observe_control(ControlRegister::Cr0, old.into(), insn.len);
    Ok(())
}

/// LMSW: PE can be set but not cleared.
pub fn lmsw(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    let word = u32::from(cx.read_operand::<u16>(insn, 0)?);
    let old = cx.cpu.cr0;
    cx.write_cr0(old & (!MSW | CR0_PE) | word & MSW)?;
    cx.observe_control(ControlRegister::Cr0, old.into(), insn.len);
    Ok(())
}

/// SMSW: memory receives 16 bits, a 32- or 64-bit register all of CR0.
pub fn smsw<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.cpu.cr0;
    if insn.ops[0] == Operand::Mem {
        cx.write_operand(insn, 0, value as u16)
    } else {
        cx.write_operand(insn, 0, W::cut(value.into()))
    }
}

/// INVLPG: the address is not checked against the segment's limit; one that is not canonical has no translation.
pub fn invlpg(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    let linear = cx
        .cpu
        .linear(insn.mem.segment, insn.effective_address(cx.cpu));
    if is_canonical(linear.get()) {
        cx.mmu.invlpg(linear);
        cx.cpu.pending.set(Pending::REFETCH);
    }
    Ok(())
}

/// INVD and WBINVD: there is no cache that memory could differ from.
pub fn invd(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()
}
