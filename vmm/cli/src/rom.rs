//! The images of `--rom`.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, Result, bail};
use vmm::{Rom, parse};

use crate::file::{self, TooLong};

/// A file and the guest-physical address of its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RomFile {
    /// The file.
    pub file: PathBuf,
    /// The address.
    pub address: u32,
}

impl FromStr for RomFile {
    type Err = String;

    /// Parses `FILE@ADDR`. The address begins behind the last @, so FILE may have others.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('@') {
            None | Some(("", _)) => Err("not FILE@ADDR, such as bios@0xffff0000".into()),
            Some((file, address)) => Ok(Self {
                file: file.into(),
                address: parse::address(address)?,
            }),
        }
    }
}

impl RomFile {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, or is too large for the guest-physical addresses behind its own.
    pub fn read(&self) -> Result<Vec<u8>> {
        let name = || format!("--rom {}", self.file.display());
        let room = (1 << 32) - u64::from(self.address);
        match file::read(&self.file, room).with_context(name)? {
            Ok(bytes) => Ok(bytes),
            Err(TooLong) => bail!(
                "{}: more than the {room} bytes from {:#x} to 4 GiB",
                name(),
                self.address
            ),
        }
    }

    /// The ROM that has these contents.
    pub fn rom<'a>(&self, bytes: &'a [u8]) -> Rom<'a> {
        Rom {
            address: self.address,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_at_sign_separates() {
        for (text, file, address) in [
            ("bios@0xfffe0000", "bios", 0xfffe_0000),
            ("a@b@64K", "a@b", 0x1_0000),
            ("/x/boot sector@31744", "/x/boot sector", 0x7c00),
        ] {
            let expected = RomFile {
                file: file.into(),
                address,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "bios",
            "@0",
            "bios@",
            "bios@fffe0000",
            "bios@4G",
            "bios@-1",
            "@",
        ] {
            assert!(text.parse::<RomFile>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parted_or_refused(text in "[a@0xfKM]{0,12}|.*") {
            if let Ok(rom) = text.parse::<RomFile>() {
                let start = format!("{}@", rom.file.display());
                prop_assert!(text.starts_with(&start));
            }
        }

        #[test]
        fn addresses_round_trip(file in "[a-z@.]{1,9}", address: u32) {
            let rom: RomFile = format!("{file}@{address:#x}").parse().unwrap();
            prop_assert_eq!(rom, RomFile { file: file.into(), address });
        }
    }
}
