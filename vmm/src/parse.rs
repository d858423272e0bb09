//! Numbers as users write them.

/// Parses a number in base `radix`, or in base 16 behind 0x.
pub(crate) fn number(text: &str, radix: u32) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, radix),
    };
    // A leading sign would be parsed, too.
    let unsigned = !digits.starts_with('+');
    u32::from_str_radix(digits, radix).ok().filter(|_| unsigned)
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
    number(text, 16).ok_or_else(|| format!("{text}: not a hexadecimal number of at most 32 bits"))
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
}
