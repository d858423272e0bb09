//! [`Requests`]: a filter for the bytes that gdb sends, which cuts requests to read memory to what one answer holds.
//!
//! gdbstub reads a range longer than its buffer piece by piece, each as if the one before had been read in full, at addresses
//! that may overflow, and puts together an answer of any length. A stub may answer with fewer bytes than were asked for
//! (Debugging with GDB, E.2 "Packets", m), and gdb asks for no more than fits into a packet.

/// The size of a packet in bytes, `$` and checksum included.
pub const PACKET: usize = 4096;
/// The most bytes of memory that an answer holds, at two digits each.
const MOST_READ: usize = PACKET / 2;
/// The bytes after the contents of a packet: `#` and two digits.
const TAIL: usize = 3;

/// The filter, and the packet that is passing through it.
#[derive(Debug, Default)]
pub struct Requests {
    /// The received part of the packet, from its `$` on.
    packet: Vec<u8>,
}

impl Requests {
    /// Takes the next byte. Returns the bytes to pass to gdbstub now: whole packets, and what lies between them.
    pub fn take(&mut self, byte: u8) -> Vec<u8> {
        if self.packet.is_empty() && byte != b'$' {
            return vec![byte];
        }
        self.packet.push(byte);
        let tail = self.packet.len().saturating_sub(TAIL);
        match self.packet[tail] {
            b'#' if tail > 0 => cut(std::mem::take(&mut self.packet)),
            // Too long: gdbstub refuses it.
            _ if self.packet.len() > PACKET => std::mem::take(&mut self.packet),
            _ => Vec::new(),
        }
    }
}

/// Cuts a whole packet if it is a request to read too much. One with bad arguments becomes one without arguments.
fn cut(packet: Vec<u8>) -> Vec<u8> {
    let (contents, tail) = packet.split_at(packet.len() - TAIL);
    let Some(arguments) = contents.strip_prefix(b"$m") else {
        return packet;
    };
    // gdbstub answers a wrong checksum.
    let sum = format!("#{:02x}", checksum(&contents[1..]));
    if !tail.eq_ignore_ascii_case(sum.as_bytes()) {
        return packet;
    }
    match range(arguments) {
        Some((address, len)) => framed(&format!("m{address:x},{:x}", len.min(MOST_READ))),
        None => framed("m"),
    }
}

/// Parses the first address and the length.
fn range(arguments: &[u8]) -> Option<(u64, usize)> {
    let (address, len) = str::from_utf8(arguments).ok()?.split_once(',')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let len = u64::from_str_radix(len, 16).ok()?;
    Some((address, usize::try_from(len).unwrap_or(MOST_READ)))
}

fn framed(contents: &str) -> Vec<u8> {
    let sum = checksum(contents.as_bytes());
    format!("${contents}#{sum:02x}").into_bytes()
}

fn checksum(contents: &[u8]) -> u8 {
    contents.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(sent: &[u8]) -> Vec<u8> {
        let mut requests = Requests::default();
        sent.iter().flat_map(|&byte| requests.take(byte)).collect()
    }

    #[test]
    fn what_reads_little_or_nothing_passes_as_it_is() {
        for contents in ["g", "", "M0,ffffff:00", "m0,800", "qXfer:x,ffffff", "m"] {
            let packet = framed(contents);
            assert_eq!(passed(&packet), packet, "{contents}");
        }
        for sent in [&b"+"[..], b"\x03-+", b"x#y$##23", b"$#00", b"+$?#3f\x03"] {
            assert_eq!(passed(sent), sent);
        }
    }

    #[test]
    fn requests_to_read_are_cut() {
        for (contents, cut) in [
            ("m0,801", "m0,800"),
            ("mffffff00,2000", "mffffff00,800"),
            ("m1000,ffffffffffffffff", "m1000,800"),
            ("m0001,0004", "m1,4"),
            // gdbstub would take all of these as something else.
            ("m0,fffffffffffffffff", "m"),
            ("m0,x10000", "m"),
            ("m0,10000,1", "m"),
            ("m,10000", "m"),
            ("mx,1", "m"),
        ] {
            assert_eq!(passed(&framed(contents)), framed(cut), "{contents}");
        }
    }

    #[test]
    fn packets_with_a_wrong_checksum_are_not_mended() {
        assert_eq!(passed(b"$m0,ffff#00"), b"$m0,ffff#00");
    }

    #[test]
    fn a_packet_that_does_not_end_is_passed_on_when_it_is_too_long() {
        let mut sent = vec![b'$'];
        sent.resize(PACKET, b'm');
        assert_eq!(passed(&sent), b"");
        sent.push(b'm');
        assert_eq!(passed(&sent), sent);
    }
}
