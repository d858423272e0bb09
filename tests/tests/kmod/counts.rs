//! The instructions that a page costs, and the most that it may.

use std::collections::BTreeMap;

use guest_kernels::HostKernel;

/// What is counted: its name in `kmod/test/count.c`, in words, and the limits by kernel, if there are any.
const ROWS: [(&str, &str, Option<[u64; 2]>); 9] = [
    (
        "memfd",
        "minor write fault on a memfd, for comparison",
        None,
    ),
    ("segv_mmap", "SIGSEGV, mmap of one page, fault", None),
    (
        "empty",
        "SIGSEGV, slot filled by the handler, fault",
        Some([8500, 8500]),
    ),
    ("filled", "slot filled", Some([2800, 3000])),
    (
        "around",
        "slots filled, 16 at a time: one of them",
        Some([1400, 1400]),
    ),
    ("mprotect", "read-only to writable: mprotect", None),
    ("upgrade", "read-only to writable: fault", None),
    ("unmap", "unmap a page: mmap", None),
    ("zap", "unmap a page: zap", Some([3200, 3200])),
];

/// The least ratios of a page by SIGSEGV and mmap to one whose slot is filled, by kernel.
const RATIOS: [u64; 2] = [15, 7];

/// Instructions by name.
pub type Counts = BTreeMap<String, u64>;

/// Reads the lines "count NAME NUMBER".
pub fn parse(printed: &str) -> Counts {
    let count = |line: &str| {
        let (name, number) = line.strip_prefix("count ")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    printed.lines().filter_map(count).collect()
}

/// The counts as a table for people.
pub fn table(counts: &Counts) -> String {
    let row = |(name, words, _): &(&str, &str, _)| match counts.get(*name) {
        Some(count) => format!("{count:>7}  {words}\n"),
        None => format!("      ?  {words}\n"),
    };
    let rows: String = ROWS.iter().map(row).collect();
    format!(
        "instructions\n{rows}{:>7.1}  times fewer than by mmap",
        ratio(counts)
    )
}

fn ratio(counts: &Counts) -> f64 {
    let [mmap, filled] =
        ["segv_mmap", "filled"].map(|name| counts.get(name).copied().unwrap_or_default());
    mmap as f64 / filled.max(1) as f64
}

/// What exceeds its limit or is missing, in words.
pub fn exceeded(counts: &Counts, kernel: HostKernel) -> Vec<String> {
    let index = match kernel {
        HostKernel::Linux6_1 => 0,
        HostKernel::Linux6_12 => 1,
    };
    let mut exceeded: Vec<_> = ROWS
        .iter()
        .filter_map(|(name, words, limits)| {
            let limit = limits.map_or(u64::MAX, |limits| limits[index]);
            let count = counts.get(*name).copied();
            let fits = count.is_some_and(|count| count > 0 && count <= limit);
            (!fits).then(|| format!("{words}: {count:?} of at most {limit}"))
        })
        .collect();
    if ratio(counts) < RATIOS[index] as f64 {
        exceeded.push(format!("only {} times fewer than by mmap", ratio(counts)));
    }
    exceeded
}
