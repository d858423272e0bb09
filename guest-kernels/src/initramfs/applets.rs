//! The names of the applets in a busybox binary.
//!
//! busybox finds an applet by binary search in a table of NUL-terminated names in byte order, which an empty name ends.
//! The table is recognized by its order and its first two names, `[` and `[[`:
//!
//! ```text
//! … 00 '[' 00 '[' '[' 00 'a' 'c' 'p' 'i' 'd' 00 … 'z' 'c' 'a' 't' 00 00 …
//! ```
//!
//! Links that are made from it in advance cost the guest less than `busybox --install` in every boot.

/// The beginning of the table, with the NUL before it.
const BEGIN: &[u8] = b"\0[\0[[\0";
/// The name of the program itself, which is in the table but needs no link.
const PROGRAM: &str = "busybox";
/// The applets that /init depends on. A table without them is not the right one.
const REQUIRED: [&str; 6] = ["cttyhack", "mount", "poweroff", "setsid", "sh", "stty"];

/// The applets of `busybox` in byte order, without the program itself, or `None` if there is no valid table.
pub(super) fn names(busybox: &[u8]) -> Option<Vec<&str>> {
    let begin = busybox
        .windows(BEGIN.len())
        .position(|window| window == BEGIN)?
        + 1;
    let names: Vec<&str> = busybox[begin..]
        .split(|byte| *byte == 0)
        .take_while(|name| !name.is_empty())
        .map(|name| std::str::from_utf8(name).ok().filter(|name| is_name(name)))
        .collect::<Option<_>>()?;
    let sound = names.is_sorted() && REQUIRED.iter().all(|required| names.contains(required));
    sound.then(|| names.into_iter().filter(|name| *name != PROGRAM).collect())
}

/// Whether `name` consists only of characters of applet names.
fn is_name(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || "[._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_found_between_other_bytes() {
        let binary =
            b"\xffcode\0[\0[[\0ash\0busybox\0cttyhack\0mount\0poweroff\0setsid\0sh\0stty\0\0more\0";
        assert_eq!(
            names(binary).unwrap(),
            [
                "[", "[[", "ash", "cttyhack", "mount", "poweroff", "setsid", "sh", "stty"
            ]
        );
    }

    #[test]
    fn no_table() {
        assert_eq!(names(b""), None);
        assert_eq!(names(b"\x7fELF sh mount"), None);
    }

    #[test]
    fn an_unsorted_table_is_refused() {
        assert_eq!(
            names(b"\0[\0[[\0sh\0cttyhack\0mount\0poweroff\0setsid\0stty\0\0"),
            None
        );
    }

    #[test]
    fn a_table_without_what_init_needs_is_refused() {
        assert_eq!(names(b"\0[\0[[\0mount\0sh\0\0"), None);
    }

    #[test]
    fn a_table_with_paths_is_refused() {
        assert_eq!(
            names(b"\0[\0[[\0../x\0cttyhack\0mount\0poweroff\0setsid\0sh\0stty\0\0"),
            None
        );
    }
}
