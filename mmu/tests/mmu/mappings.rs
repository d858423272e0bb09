//! The mappings of this process.

use std::ops::Range;

/// A line of /proc/self/maps.
pub struct Mapping {
    pub range: Range<u64>,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    pub offset: u64,
}

impl Mapping {
    pub fn of_this_process() -> Vec<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("one's own mappings");
        let line = |line: &str| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (start, end) = words[0].split_once('-').expect("a range");
            Self {
                range: number(start)..number(end),
                readable: words[1].starts_with('r'),
                writable: words[1][1..].starts_with('w'),
                executable: words[1][2..].starts_with('x'),
                offset: number(words[2]),
            }
        };
        maps.lines().map(line).collect()
    }
}
