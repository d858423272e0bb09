//! [`Entry`] and [`EntryPoint`]: where the processor starts, and with which registers.

use std::str::FromStr;

use sbe::{Vcpu, cpu::DescriptorTable};
use thiserror::Error;

use super::LoadError;
use crate::parse;

/// A place to start that the user chooses, where no kernel says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// The reset vector: real-address mode, CS 0xf000 with base 0xffff0000, IP 0xfff0, so guest-physical 0xfffffff0 (SDM Vol. 3A,
    /// 9.1.4 "First Instruction Executed").
    #[default]
    ResetVector,
    /// Real-address mode; the other registers are as after RESET.
    Real {
        /// CS.
        segment: u16,
        /// IP.
        offset: u16,
    },
    /// Flat protected mode, 32-bit code, paging and interrupts off, at this guest-physical address. There is no GDT in memory.
    Flat(u32),
}

/// The error of a text that is no [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "not an address such as 0x100000 or 1M, nor real:SEGMENT:OFFSET in hexadecimal such as real:f000:fff0"
)]
pub struct EntryParseError;

const RESET_VECTOR: u32 = 0xffff_fff0;
/// What a text for real-address mode begins with.
const REAL: &str = "real:";

impl Entry {
    /// Returns the guest-physical address of the first instruction.
    pub fn address(self) -> u32 {
        match self {
            Self::ResetVector => RESET_VECTOR,
            Self::Real { segment, offset } => (u32::from(segment) << 4) + u32::from(offset),
            Self::Flat(address) => address,
        }
    }
}

impl FromStr for Entry {
    type Err = EntryParseError;

    /// Parses an address for flat protected mode (see [`parse::address`]), or `real:SEGMENT:OFFSET` in hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, EntryParseError> {
        let word = |digits| parse::hexadecimal(digits).ok()?.try_into().ok();
        let entry = match text.strip_prefix(REAL) {
            None => parse::address(text).ok().map(Self::Flat),
            Some(pair) => pair.split_once(':').and_then(|(segment, offset)| {
                Some(Self::Real {
                    segment: word(segment)?,
                    offset: word(offset)?,
                })
            }),
        };
        entry.ok_or(EntryParseError)
    }
}

/// The registers with which code that was placed is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol".
    Linux {
        /// Guest-physical address of the first instruction, for EIP.
        entry: u32,
        /// Guest-physical address of boot_params, for ESI.
        boot_params: u32,
        /// The GDT, for GDTR.
        gdt: DescriptorTable,
    },
    /// Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": long mode with paging.
    Linux64 {
        /// Guest-physical address of the first instruction, for RIP.
        entry: u64,
        /// Guest-physical address of boot_params, for RSI.
        boot_params: u64,
        /// Guest-physical address of four-level page tables that map addresses to themselves, for CR3.
        page_tables: u64,
        /// The GDT, for GDTR.
        gdt: DescriptorTable,
    },
    /// Multiboot Specification 0.6.96, 3.2 "Machine state".
    Multiboot {
        /// Guest-physical address of the first instruction, for EIP.
        entry: u32,
        /// Guest-physical address of the Multiboot information, for EBX.
        info: u32,
    },
    /// A place that the user chose.
    Chosen(Entry),
}

impl EntryPoint {
    /// Sets the registers of a processor, which has just been reset.
    ///
    /// # Errors
    /// If the processor cannot do that.
    pub(crate) fn enter(self, vcpu: &mut Vcpu) -> Result<(), LoadError> {
        match self {
            Self::Linux {
                entry,
                boot_params,
                gdt,
            } => {
                vcpu.set_linux_entry(entry, boot_params);
                vcpu.cpu.gdtr = gdt;
            }
            Self::Linux64 {
                entry,
                boot_params,
                page_tables,
                gdt,
            } => {
                if !vcpu.cpu.model.has_long_mode() {
                    return Err(LoadError::LongMode(vcpu.cpu.model));
                }
                vcpu.set_linux_entry64(entry, boot_params, page_tables);
                vcpu.cpu.gdtr = gdt;
            }
            Self::Multiboot { entry, info } => vcpu.set_multiboot_entry(entry, info),
            Self::Chosen(Entry::ResetVector) => {}
            Self::Chosen(Entry::Real { segment, offset }) => vcpu.set_real_entry(segment, offset),
            Self::Chosen(Entry::Flat(address)) => vcpu.set_flat_entry(address),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_addresses_or_real_mode() {
        let real = |segment, offset| Entry::Real { segment, offset };
        for (text, expected, address) in [
            ("0x7c00", Entry::Flat(0x7c00), 0x7c00),
            ("1M", Entry::Flat(1 << 20), 1 << 20),
            ("0", Entry::Flat(0), 0),
            ("real:0:7c00", real(0, 0x7c00), 0x7c00),
            ("real:0x07C0:0", real(0x7c0, 0), 0x7c00),
            ("real:f000:fff0", real(0xf000, 0xfff0), 0xf_fff0),
            ("real:ffff:ffff", real(0xffff, 0xffff), 0x10_ffef),
        ] {
            let entry: Entry = text.parse().unwrap();
            assert_eq!((entry, entry.address()), (expected, address), "{text}");
        }
        assert_eq!(Entry::default().address(), 0xffff_fff0);
        for text in [
            "",
            "real",
            "real:",
            "real:0",
            "real:0:",
            "real::0",
            "real:0:0:0",
            "real:10000:0",
            "real:0:10000",
            "Real:0:0",
            "0:7c00",
            "7c00",
            "4G",
            "-1",
            "real:+0:0",
        ] {
            assert_eq!(text.parse::<Entry>(), Err(EntryParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_entry_or_an_error(text in "(real:)?[0-9a-fx:kM]{0,12}|.*") {
            let _ = text.parse::<Entry>();
        }

        #[test]
        fn real_mode_round_trips(segment: u16, offset: u16) {
            let entry = format!("real:{segment:x}:{offset:x}").parse();
            prop_assert_eq!(entry, Ok(Entry::Real { segment, offset }));
        }
    }
}
