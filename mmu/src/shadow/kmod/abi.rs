//! The interface of `/dev/replex`: constants, layouts and requests of `kmod/replex.h`, with which a test compares them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The version of the interface.
pub(super) const VERSION: u32 = 1;
/// The low 12 bits of a filled slot.
pub(crate) const SLOT_PRESENT: u64 = 1;
/// The windows of a machine.
pub(super) const WINDOWS: u32 = 128;
/// log2 of the linear pages of a window.
const WINDOW_BITS: u32 = 20;
/// log2 of the distance of the windows in the file, in bytes.
pub(super) const OFFSET_BITS: u32 = 33;
/// The most pages that one fault makes accessible.
pub(super) const AROUND_MAX: u32 = 16;
/// The most ranges of one request.
pub(super) const RANGES_MAX: usize = 512;

const _: () = assert!(1 << WINDOW_BITS == super::super::LINEAR_PAGES);

/// `struct replex_ram`.
#[repr(C)]
struct Ram {
    fd: RawFd,
    flags: u32,
    base: u64,
}

/// `struct replex_tables`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) window: u32,
    pub(super) around: u32,
    pub(super) read_slots: u64,
    pub(super) write_slots: u64,
}

/// `struct replex_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) pages: u32,
}

impl From<std::ops::Range<u32>> for Range {
    fn from(pages: std::ops::Range<u32>) -> Self {
        Self {
            first: pages.start,
            pages: pages.end - pages.start,
        }
    }
}

/// `struct replex_zap`.
#[repr(C)]
struct Zap {
    window_base: u64,
    ranges: u64,
    count: u32,
    flags: u32,
}

/// The counts of what the host's kernel module has done for a machine (`struct replex_stats`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmodStats {
    /// Faults that made a page accessible.
    pub faults: u64,
    /// Pages with slots around those, which were made accessible or were so before.
    pub around: u64,
    /// Pages that became writable by a store.
    pub upgrades: u64,
    /// Faults without a slot for the access, which became SIGSEGV.
    pub empty: u64,
    /// Faults whose slots were not resident, which became SIGSEGV.
    pub absent: u64,
    /// Faults that became SIGSEGV because the page could not be held.
    pub refused: u64,
    /// Ranges of pages that were made inaccessible.
    pub zaps: u64,
    /// Pages of RAM that are held at present.
    pub held: u64,
}

/// The requests as `nix` makes them: unsafe functions of a descriptor.
mod request {
    use super::{KmodStats, Ram, Tables, Zap};

    nix::ioctl_none!(get_version, b'R', 0x40);
    nix::ioctl_write_ptr!(set_ram, b'R', 0x41, Ram);
    nix::ioctl_write_ptr!(set_tables, b'R', 0x42, Tables);
    nix::ioctl_write_ptr!(zap, b'R', 0x43, Zap);
    nix::ioctl_none!(release, b'R', 0x44);
    nix::ioctl_read!(get_stats, b'R', 0x45, KmodStats);
}

/// An open file that is the device, or is about to be asked whether it is. The requests fail with `ENOTTY` if it is not.
#[derive(Debug)]
pub(super) struct Device(pub(super) File);

impl Device {
    /// `REPLEX_GET_VERSION`.
    pub(super) fn version(&self) -> io::Result<u32> {
        // SAFETY: the request has no argument.
        let version = unsafe { request::get_version(self.0.as_raw_fd()) }?;
        Ok(version as u32)
    }

    /// `REPLEX_SET_RAM`, with the host address of the first byte of the RAM.
    pub(super) fn set_ram(&self, ram: &File, base: u64) -> io::Result<()> {
        let ram = Ram {
            fd: ram.as_raw_fd(),
            flags: 0,
            base,
        };
        // SAFETY: the request reads the argument, which lives during the call.
        unsafe { request::set_ram(self.0.as_raw_fd(), &raw const ram) }?;
        Ok(())
    }

    /// `REPLEX_SET_TABLES`. The device only reads the tables, and looks first whether there is memory.
    pub(super) fn set_tables(&self, tables: &Tables) -> io::Result<()> {
        // SAFETY: the request reads the argument, which lives during the call.
        unsafe { request::set_tables(self.0.as_raw_fd(), tables) }?;
        Ok(())
    }

    /// `REPLEX_ZAP` of at most [`RANGES_MAX`] ranges of the window whose area begins at `window_base`.
    pub(super) fn zap(&self, window_base: u64, ranges: &[Range]) -> io::Result<()> {
        let zap = Zap {
            window_base,
            ranges: ranges.as_ptr().expose_provenance() as u64,
            count: ranges.len() as u32,
            flags: 0,
        };
        // SAFETY: the request reads the argument and `count` ranges, which live during the call. It changes no memory: pages of a
        // window become inaccessible, to which there are no references.
        unsafe { request::zap(self.0.as_raw_fd(), &raw const zap) }?;
        Ok(())
    }

    /// `REPLEX_RELEASE`.
    pub(super) fn release(&self) -> io::Result<()> {
        // SAFETY: the request has no argument. It changes no memory, as `zap`.
        unsafe { request::release(self.0.as_raw_fd()) }?;
        Ok(())
    }

    /// `REPLEX_GET_STATS`.
    pub(super) fn stats(&self) -> io::Result<KmodStats> {
        let mut stats = KmodStats::default();
        // SAFETY: the request writes the argument, which may hold any bytes.
        unsafe { request::get_stats(self.0.as_raw_fd(), &raw mut stats) }?;
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::ErrorKind;
    use std::mem::{offset_of, size_of};
    use std::path::Path;
    use std::process::Command;

    use nix::{request_code_none, request_code_read, request_code_write};

    use super::*;

    /// The size of a structure and the offsets of its fields, each by the expression that says the same in C.
    macro_rules! layout {
        ($in_c:literal, $structure:ident { $($field:ident),* }) => {
            [
                (concat!("sizeof(struct ", $in_c, ")"), size_of::<$structure>()),
                $((
                    concat!("offsetof(struct ", $in_c, ", ", stringify!($field), ")"),
                    offset_of!($structure, $field),
                )),*
            ]
        };
    }

    /// What this file says, by the expression that says the same in C.
    fn expected() -> Vec<(&'static str, u64)> {
        let mut sizes = vec![("REPLEX_RANGES_MAX", RANGES_MAX)];
        sizes.extend(layout!("replex_ram", Ram { fd, flags, base }));
        sizes.extend(layout!(
            "replex_tables",
            Tables {
                window,
                around,
                read_slots,
                write_slots
            }
        ));
        sizes.extend(layout!("replex_range", Range { first, pages }));
        sizes.extend(layout!(
            "replex_zap",
            Zap {
                window_base,
                ranges,
                count,
                flags
            }
        ));
        sizes.extend(layout!(
            "replex_stats",
            KmodStats {
                faults,
                around,
                upgrades,
                empty,
                absent,
                refused,
                zaps,
                held
            }
        ));
        let numbers = [
            ("REPLEX_VERSION", VERSION.into()),
            ("REPLEX_SLOT_PRESENT", SLOT_PRESENT),
            ("REPLEX_WINDOWS", WINDOWS.into()),
            ("REPLEX_WINDOW_BITS", WINDOW_BITS.into()),
            ("REPLEX_OFFSET_BITS", OFFSET_BITS.into()),
            ("REPLEX_AROUND_MAX", AROUND_MAX.into()),
            ("REPLEX_GET_VERSION", request_code_none!(b'R', 0x40)),
            (
                "REPLEX_SET_RAM",
                request_code_write!(b'R', 0x41, size_of::<Ram>()),
            ),
            (
                "REPLEX_SET_TABLES",
                request_code_write!(b'R', 0x42, size_of::<Tables>()),
            ),
            (
                "REPLEX_ZAP",
                request_code_write!(b'R', 0x43, size_of::<Zap>()),
            ),
            ("REPLEX_RELEASE", request_code_none!(b'R', 0x44)),
            (
                "REPLEX_GET_STATS",
                request_code_read!(b'R', 0x45, size_of::<KmodStats>()),
            ),
        ];
        let sizes = sizes.into_iter();
        let sizes = sizes.map(|(expression, value)| (expression, value as u64));
        sizes.chain(numbers).collect()
    }

    /// The header's values of `expressions`; `None`, with the reason printed, where there is no C compiler.
    fn values_in_c(expressions: &[&str]) -> Option<Vec<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("values.c"), folder.path().join("values"));
        let mut text = String::from(
            "#include <stddef.h>\n#include <stdio.h>\n#include \"replex.h\"\nint main(void)\n{\n",
        );
        for expression in expressions {
            writeln!(
                text,
                "\tprintf(\"%llu\\n\", (unsigned long long)({expression}));"
            )
            .unwrap();
        }
        text.push_str("\treturn 0;\n}\n");
        std::fs::write(&source, text).unwrap();
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmod");
        let compiler = Command::new("cc")
            .args(["-Wall", "-Werror", "-I"])
            .args([&header, &source])
            .arg("-o")
            .arg(&program)
            .output();
        let compiled = match compiler {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: cc is not installed");
                return None;
            }
            result => result.unwrap(),
        };
        let errors = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{errors}");
        let printed = Command::new(&program).output().unwrap().stdout;
        let printed = String::from_utf8(printed).unwrap();
        Some(printed.lines().map(|line| line.parse().unwrap()).collect())
    }

    #[test]
    fn the_header_says_the_same() {
        let expected = expected();
        let expressions: Vec<_> = expected.iter().map(|(expression, _)| *expression).collect();
        let Some(values) = values_in_c(&expressions) else {
            return;
        };
        let found: Vec<_> = expressions.into_iter().zip(values).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn another_file_answers_no_request() {
        let file = File::open("/dev/null").unwrap();
        let null = Device(file);
        let not_a_device = Some(nix::libc::ENOTTY);
        assert_eq!(null.version().unwrap_err().raw_os_error(), not_a_device);
        assert_eq!(null.release().unwrap_err().raw_os_error(), not_a_device);
        assert_eq!(null.stats().unwrap_err().raw_os_error(), not_a_device);
        assert_eq!(null.zap(0, &[]).unwrap_err().raw_os_error(), not_a_device);
    }
}
