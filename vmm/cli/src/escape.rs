//! The escape key of the terminal: ctrl-a and what follows it are for the monitor, not for the guest.

/// The meaning of a typed byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Send this byte to the guest.
    Send(u8),
    /// Send and do nothing: more is expected, or the key is unknown.
    Swallowed,
    /// Show [`HELP`].
    Help,
    /// Send a break to the guest.
    Break,
    /// Show statistics.
    Stats,
    /// Quit.
    Quit,
}

/// The state of the escape key: whether it was typed last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Escape {
    pending: bool,
}

/// The help text: what ctrl-a does.
pub const HELP: &str = "
ctrl-a x       quit
ctrl-a b       send a break to the guest (Linux: SysRq)
ctrl-a s       show statistics
ctrl-a ctrl-a  send ctrl-a to the guest
ctrl-a h       this help
";

const CTRL_A: u8 = 0x01;

impl Escape {
    /// Takes the next byte typed.
    pub fn key(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.pending) {
            self.pending = byte == CTRL_A;
            return if self.pending {
                Key::Swallowed
            } else {
                Key::Send(byte)
            };
        }
        match byte {
            CTRL_A => Key::Send(CTRL_A),
            b'x' | b'X' => Key::Quit,
            b'b' | b'B' => Key::Break,
            b's' | b'S' => Key::Stats,
            b'h' | b'H' | b'?' => Key::Help,
            _ => Key::Swallowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(typed: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        typed.iter().map(|&byte| escape.key(byte)).collect()
    }

    #[test]
    fn everything_but_ctrl_a_goes_to_the_guest() {
        for byte in (0..=255).filter(|&byte| byte != CTRL_A) {
            assert_eq!(keys(&[byte]), [Key::Send(byte)]);
        }
    }

    #[test]
    fn ctrl_a_takes_one_byte() {
        use Key::*;
        assert_eq!(keys(b"\x01xx"), [Swallowed, Quit, Send(b'x')]);
        assert_eq!(keys(b"\x01hs"), [Swallowed, Help, Send(b's')]);
        assert_eq!(keys(b"\x01s"), [Swallowed, Stats]);
        assert_eq!(keys(b"\x01bh"), [Swallowed, Break, Send(b'h')]);
        assert_eq!(keys(b"\x01\x01x"), [Swallowed, Send(1), Send(b'x')]);
        assert_eq!(keys(b"\x01qq"), [Swallowed, Swallowed, Send(b'q')]);
    }
}
