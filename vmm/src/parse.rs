//! Numbers as users write them.

use mmu::LinearAddr;

/// Parses a number in base `radix`, or in base 16 behind 0x.
pub(crate) fn number(text: &str, radix: u32) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, radix),
    };
    // A leading sign would be parsed, too.
    let unsigned = !digits.starts_with('+');
    u64::from_str_radix(digits, radix).ok().filter(|_| unsigned)
}

/// Parses an interrupt vector, decimal or hexadecimal with 0x.
///
/// # Errors
/// A message for the user.
pub fn vector(text: &str) -> Result<u8, String> {
    let vector = number(text, 10).and_then(|number| number.try_into().ok());
    vector.ok_or_else(|| format!("{text}: not a vector: 0 to 255, or 0x0 to 0xff"))
}

/// Parses 32 bits in hexadecimal digits, with or without 0x.
///
/// # Errors
/// A message for the user.
pub fn hexadecimal(text: &str) -> Result<u32, String> {
    let number = number(text, 16).and_then(|number| number.try_into().ok());
    number.ok_or_else(|| format!("{text}: not a hexadecimal number of at most 32 bits"))
}

/// Parses a linear address in hexadecimal digits, with or without 0x.
///
/// # Errors
/// A message for the user.
pub fn linear(text: &str) -> Result<LinearAddr, String> {
    let address = number(text, 16).map(LinearAddr::new);
    address.ok_or_else(|| format!("{text}: not a hexadecimal number of at most 64 bits"))
}

/// Parses a guest-physical address: hexadecimal with 0x, or decimal, also with suffix K, M or G.
///
/// # Errors
/// A message for the user.
pub fn address(text: &str) -> Result<u32, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = number(digits, 10)
        .filter(|_| shift == 0 || !digits.starts_with("0x"))
        .and_then(|number| number.checked_mul(1 << shift)?.try_into().ok());
    bytes.ok_or_else(|| {
        format!("{text}: not an address below 4 GiB: 0x and hexadecimal digits, or decimal ones, also with suffix K, M or G")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        for (text, expected) in [
            ("0", 0),
            ("14", 14),
            ("255", 255),
            ("0x80", 0x80),
            ("0xFf", 255),
        ] {
            assert_eq!(vector(text), Ok(expected));
        }
        for text in [
            "", "0x", "256", "0x100", "-1", "+1", "0x+1", "80h", " 1", "0X1",
        ] {
            assert!(vector(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hexadecimal_numbers() {
        for (text, expected) in [
            ("0x0", 0),
            ("FfffFFFF", u32::MAX),
            ("0xc1001234", 0xC100_1234),
        ] {
            assert_eq!(hexadecimal(text), Ok(expected));
        }
        for text in ["", "0x", "+1", "-1", "0x-1", "1g", "100000000", " 1", "0X1"] {
            assert!(hexadecimal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn linear_addresses() {
        for (text, expected) in [
            ("0", 0),
            ("c1001234", 0xc100_1234),
            ("0xffffffff81000000", 0xffff_ffff_8100_0000),
            ("FFFFFFFFFFFFFFFF", u64::MAX),
        ] {
            assert_eq!(linear(text), Ok(LinearAddr::new(expected)));
        }
        for text in ["", "0x", "+1", "-1", "1g", "10000000000000000"] {
            assert!(linear(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("0", 0),
            ("0x7c00", 0x7c00),
            ("0xFFFE0000", 0xfffe_0000),
            ("31744", 31744),
            ("64K", 0x1_0000),
            ("1m", 0x10_0000),
            ("3G", 0xc000_0000),
            ("4194303k", 0xffff_fc00),
        ] {
            assert_eq!(address(text), Ok(expected));
        }
        for text in [
            "",
            "K",
            "4G",
            "0x",
            "0x1K",
            "0x100000000",
            "4294967296",
            "18446744073709551615G",
            "7c00",
            "-1",
            "+1",
            " 1",
            "1KB",
            "ü",
            "1ü",
        ] {
            let error = address(text).unwrap_err();
            assert!(error.starts_with(&format!("{text}: ")), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "(0x)?[0-9a-f]{0,12}[KMGkmg]?|.*") {
            let _ = address(&text);
        }
    }
}
