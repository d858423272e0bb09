//! Debian's kernel for x86-64: how it is placed, and programs of 64 and of 32 bits on it.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use guest_kernels::{Guest, fetch};
use tests::fetched::fetched;
use vmm::{
    Kernel,
    loader::{BootSource, EntryPoint, Mode, place},
    mmu::{GuestPhys, Memory},
    stop::status,
};

use crate::{
    busy, kernel_log,
    program::{Boot, Ended},
};

const MIB: u64 = 1 << 20;
/// Where Linux for x86-64 is linked to run (`CONFIG_PHYSICAL_START`).
const START: u64 = 16 * MIB;
/// Offset of `payload_length` in a bzImage (boot.rst, "The Real-Mode Kernel Header").
const PAYLOAD_LENGTH: usize = 0x24c;

/// The kernel's file, and the guest's initrd.
fn files() -> Option<(Vec<u8>, Vec<u8>)> {
    let images = fetched(Guest::DebianAmd64, |progress| {
        fetch(Guest::DebianAmd64, progress)
    })?;
    let read = |path| fs::read(path).unwrap();
    Some((read(images.kernel), read(images.initrd)))
}

fn read(file: Vec<u8>) -> Kernel {
    Kernel::read(file, None, &mut |_| ()).unwrap()
}

#[test]
fn the_kernel_is_placed_by_the_64_bit_protocol() {
    let Some((file, initrd)) = files() else {
        return;
    };
    let kernel = read(file);
    let image = kernel.image();
    assert_eq!((image.mode, image.entry), (Mode::Long, START));
    assert!(kernel.initrd_above_4g());
    assert_eq!(kernel.cmdline_size(), 2047);
    let memory = Memory::new(256 * MIB).unwrap();
    let ram = memory.guest_ram();
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: "console=ttyS0",
    };
    let EntryPoint::Linux64 { entry, .. } = place(&ram, &[], &source).unwrap() else {
        panic!("not entered in long mode");
    };
    assert_eq!(entry, START);
    for segment in &image.segments {
        let mut placed = vec![0; segment.file.len()];
        memory
            .read(GuestPhys::new(segment.paddr), &mut placed)
            .unwrap();
        assert!(placed == kernel.file()[segment.file.clone()], "{segment}");
    }
    let mut placed = vec![0; initrd.len()];
    let start = (256 * MIB - initrd.len() as u64) / 4096 * 4096;
    memory.read(GuestPhys::new(start), &mut placed).unwrap();
    assert!(placed == initrd);
}

#[test]
fn the_bzimage_is_entered_in_long_mode_if_it_unpacks_itself() {
    let Some((mut file, _)) = files() else {
        return;
    };
    file[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0);
    let kernel = read(file);
    let image = kernel.image();
    assert_eq!((image.mode, image.entry), (Mode::Long, START + 0x200));
    // CLD and CLI, with which startup_64 of the unpacker begins.
    let code = &kernel.file()[image.segments[0].file.clone()];
    assert_eq!(code[0x200..0x202], [0xfc, 0xfa]);
}

#[test]
fn the_kernel_runs_a_command_on_both_engines() {
    for engine in ["translator", "emulator"] {
        let Some(boot) = Boot::of(Guest::DebianAmd64) else {
            return;
        };
        let ended = boot
            .with("--engine", engine)
            .exec("uname -m; dmesg; exit 3");
        assert_eq!(ended.code(), Some(3), "{engine}: {}", ended.stderr);
        assert_eq!(ended.stderr, "");
        let text = ended.text();
        kernel_log::assert_healthy(text.strip_prefix("x86_64\n").unwrap());
    }
}

/// Flags of /proc/cpuinfo that x86-64-v2 adds to the baseline, and some that it does not.
const V2_FLAGS: [&str; 5] = ["pni", "ssse3", "sse4_1", "sse4_2", "popcnt"];
const OTHER_FLAGS: [&str; 6] = ["aes", "avx", "monitor", "movbe", "pclmulqdq", "xsave"];

#[test]
fn the_kernel_finds_the_extensions_of_x86_64_v2() {
    let Some(boot) = Boot::of(Guest::DebianAmd64) else {
        return;
    };
    let boot = boot.with("--cpu", "x86-64-v2");
    let ended = boot.exec("grep flags /proc/cpuinfo");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let text = ended.text();
    let flags: BTreeSet<_> = text.split_whitespace().collect();
    assert!(V2_FLAGS.iter().all(|flag| flags.contains(flag)), "{text}");
    assert!(
        !OTHER_FLAGS.iter().any(|flag| flags.contains(flag)),
        "{text}"
    );
}

#[test]
fn a_processor_without_64_bit_mode_is_an_error() {
    let Some(boot) = Boot::of(Guest::DebianAmd64) else {
        return;
    };
    let ended = boot.with("--cpu", "bonnell").exec("true");
    assert_eq!(ended.code(), Some(status::USAGE.into()));
    assert!(
        ended
            .stderr
            .contains(": 64-bit kernel on processor model bonnell, "),
        "{}",
        ended.stderr
    );
}

/// Applets of a 32-bit busybox: they call the kernel by SYSENTER, return from handlers of signals by INT 0x80, and their memory
/// ends at 4 GiB.
const APPLETS: &str = r#"b=/opt/busybox
$b linux32 $b uname -m
$b sh -c 'trap "echo caught" USR1; kill -USR1 $$; x=$( (echo inner; exit 3) ); echo $x $?'
$b sh -c 'kill -9 $$'; echo $?
$b awk 'BEGIN { for (i = 0; i < 500; i++) { x = (x * 69069 + 1) % 65536; print x, x / 7 } }' > /tmp/numbers
$b md5sum < /tmp/numbers; $b sort -n /tmp/numbers | $b md5sum; $b gzip < /tmp/numbers | $b gunzip | $b md5sum
$b sh -c 'sleep 0.01 & wait $!; echo $?'
$b awk '/stack/ { print length($1), $2 }' /proc/self/maps
busy 2 1 | sed 's/: .* failures/: failures/'
exit 4"#;

/// Runs [`APPLETS`] in the guest.
fn applets(boot: Boot) -> Option<Ended> {
    let guest = Guest::Debian686;
    let images = fetched(guest, |progress| fetch(guest, progress))?;
    let folder = tempfile::tempdir().unwrap();
    let busybox = folder.path().join("busybox");
    fs::copy(images.kernel.with_file_name("busybox"), &busybox).unwrap();
    fs::set_permissions(&busybox, Permissions::from_mode(0o755)).unwrap();
    let busy = busy::program();
    let add = |path: &Path, folder: &str| format!("{}:{folder}", path.display());
    let boot = boot
        .with("--add", &add(&busybox, "/opt/"))
        .with("--add", &add(&busy.path().join("busy"), "/bin/"));
    Some(boot.exec(APPLETS))
}

#[test]
fn programs_of_32_bits_do_what_they_do_on_a_32_bit_kernel() {
    let boots = [Guest::DebianAmd64, Guest::Debian686].map(Boot::of);
    let [Some(wide), Some(narrow)] = boots else {
        return;
    };
    let [wide, narrow] = [wide, narrow].map(|boot| applets(boot).unwrap());
    assert_eq!(wide.code(), Some(4), "{}", wide.stderr);
    assert!(
        wide.text().starts_with("i686\ncaught\ninner 3\n137\n"),
        "{}",
        wide.text()
    );
    assert_eq!(wide.text(), narrow.text());
    assert_eq!(wide.stderr, narrow.stderr);
}
