//! Numbers as users write them.

/// An interrupt vector, decimal or hexadecimal with 0x.
pub(crate) fn vector(text: &str) -> Result<u8, String> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A leading sign would be parsed, too.
    let unsigned = !digits.starts_with('+');
    let number = u8::from_str_radix(digits, radix).ok().filter(|_| unsigned);
    number.ok_or_else(|| format!("{text}: not a vector: 0 to 255, or 0x0 to 0xff"))
}

/// 32 bits in hexadecimal digits, with or without 0x.
pub(crate) fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| all_hex);
    number.ok_or_else(|| format!("{text}: not a hexadecimal number of at most 32 bits"))
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
