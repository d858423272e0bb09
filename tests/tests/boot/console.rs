//! The virtio console, driven by the kernels' own module.

use std::{
    env, fs,
    io::{self, PipeReader, PipeWriter, Read, Write},
    thread,
    time::{Duration, Instant},
};

use guest_kernels::{ALIGNMENT, Guest, exec_archive, fetch, modules_archive};
use tests::{fetched::fetched, hang::PATIENCE, report::report};
use vmm::{
    BootSource, Kernel, Machine, StopReason, Vm, VmConfig,
    console::{ReadError, pipe},
    devices::{
        pci::PciHost,
        virtio::{ConsolePort, VirtioConsole, VirtioPci},
    },
    loader::{Cache, linux_cmdline},
    tsc::TscMeter,
};

/// Commands that find a port by its name, once it is there.
const FIND: &str = r#"
port() {
    until name=$(grep -lx "$1" /sys/class/virtio-ports/*/name 2> /dev/null); do
        sleep 0.1
    done
    name=${name%/name}
    echo /dev/${name##*/}
}
"#;

/// Boots `guest` with the device to the end of `command`, or not at all if the guest cannot be had and that is known. Returns the
/// command's exit status.
fn exec(guest: Guest, device: VirtioConsole, command: &str) -> Option<u8> {
    let images = fetched(guest, |progress| fetch(guest, progress))?;
    let modules = fetched(guest, |progress| {
        modules_archive(guest, &["virtio_pci", "virtio_console"], progress)
    })?;
    let mut initrd = fs::read(&images.initrd).unwrap();
    for archive in [exec_archive(&format!("{FIND}{command}"), None), modules] {
        initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
        initrd.extend(archive);
    }
    let tsc = TscMeter::start();
    let kernel = fs::read(&images.kernel).unwrap();
    let kernel = Kernel::read(kernel, Cache::of_user().as_ref(), &mut |_| ()).unwrap();
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &format!("{} quiet", linux_cmdline(tsc.khz())),
    };
    let mut vm = Vm::boot(&VmConfig::default(), &source).unwrap();
    let mut pci = PciHost::new().unwrap();
    let handle = device.handle();
    let function = VirtioPci::new(Box::new(device), pci.doorbell()).unwrap();
    pci.add(function).unwrap();
    vm.attach(PciHost::resources(), pci).unwrap();
    let (line, mut terminal) = pipe().unwrap();
    let (machine, _events) = Machine::start(vm, line).unwrap();
    // Nobody prints this, so it is the end that is waited for.
    let ended = terminal.read_until("\0", PATIENCE).unwrap_err();
    if let ReadError::TimedOut { shown, .. } = &ended {
        machine.stop();
        panic!("the guest hangs: {shown}");
    }
    let (_vm, stop) = machine.join().unwrap();
    let StopReason::DebugExit(status) = stop else {
        panic!("{stop}: {ended}");
    };
    assert!(handle.drain(PATIENCE));
    Some(status)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 3 + at / 509 + at / 65_521) as u8)
        .collect()
}

/// Reads all that the guest sends, and how long that takes from the first byte on.
fn collect(mut reader: PipeReader) -> thread::JoinHandle<(Vec<u8>, Duration)> {
    thread::spawn(move || {
        let mut bytes = vec![0];
        let first = reader.read(&mut bytes).unwrap();
        let start = Instant::now();
        bytes.truncate(first);
        reader.read_to_end(&mut bytes).unwrap();
        (bytes, start.elapsed())
    })
}

/// Writes all of `bytes` for the guest.
fn supply(mut writer: PipeWriter, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || writer.write_all(&bytes).unwrap())
}

#[test]
fn debian_686_passes_bytes_both_ways() {
    bytes_both_ways(Guest::Debian686);
}

#[test]
fn debian_686_pae_passes_bytes_both_ways() {
    bytes_both_ways(Guest::Debian686Pae);
}

/// The environment variable with the number of MiB each way. A run with it prints how fast they were.
const MIB: &str = "REPLEX_CONSOLE_MIB";
/// The number without that variable.
const DEFAULT: usize = 10;

fn bytes_both_ways(guest: Guest) {
    let (input, writer) = io::pipe().unwrap();
    let (reader, output) = io::pipe().unwrap();
    let (mut record, status) = io::pipe().unwrap();
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("replex.stdin").input(input),
        ConsolePort::generic("replex.stdout").output(output),
        ConsolePort::generic("replex.status").output(status),
    ]);
    let mib = env::var(MIB).map(|mib| mib.parse().unwrap());
    let bytes = pattern(mib.clone().unwrap_or(DEFAULT) << 20);
    let host = supply(writer, bytes.clone());
    let received = collect(reader);
    let ended = exec(
        guest,
        device,
        r#"cat < $(port replex.stdin) > $(port replex.stdout)
           echo "cat: $?" > $(port replex.status)
           exit 3"#,
    );
    let Some(ended) = ended else { return };
    host.join().unwrap();
    let (received, time) = received.join().unwrap();
    assert!(received == bytes);
    if let Ok(mib) = mib {
        report(&format!(
            "{guest}: {mib} MiB to the guest and back in {time:.3?}"
        ));
    }
    let mut text = String::new();
    record.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), ended), ("cat: 0\n", 3));
}

#[test]
fn a_writer_in_the_guest_ends_when_the_reader_is_gone() {
    let (mut reader, output) = io::pipe().unwrap();
    let device = VirtioConsole::new(vec![ConsolePort::generic("out").output(output)]);
    let host = thread::spawn(move || {
        let mut bytes = [0; 100_000];
        reader.read_exact(&mut bytes).unwrap();
        bytes
    });
    let ended = exec(
        Guest::Debian686,
        device,
        r#"cat /dev/zero > $(port out) 2> /tmp/error
           grep -q "No such device" /tmp/error && exit 7"#,
    );
    let Some(ended) = ended else { return };
    assert_eq!(ended, 7);
    assert_eq!(host.join().unwrap(), [0; 100_000]);
}

#[test]
fn a_driver_that_was_away_finds_its_ports_again() {
    let (input, writer) = io::pipe().unwrap();
    let (reader, output) = io::pipe().unwrap();
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("in").input(input),
        ConsolePort::generic("out").output(output),
    ]);
    let received = collect(reader);
    let host = supply(writer, b"what the host has\n".to_vec());
    let ended = exec(
        Guest::Debian686,
        device,
        r#"driver=/sys/bus/virtio/drivers/virtio_console
           for round in 1 2 3; do
               exec 3> $(port out)
               echo "round $round" >&3
               echo virtio0 > $driver/unbind
               exec 3>&-
               echo virtio0 > $driver/bind
           done
           exec 3> $(port out)
           cat < $(port in) >&3"#,
    );
    if ended.is_none() {
        return;
    }
    host.join().unwrap();
    let (received, _) = received.join().unwrap();
    let received = String::from_utf8(received).unwrap();
    assert_eq!(received, "round 1\nround 2\nround 3\nwhat the host has\n");
}

#[test]
fn a_terminal_has_the_size_that_it_is_told() {
    let (input, mut writer) = io::pipe().unwrap();
    let (mut reader, output) = io::pipe().unwrap();
    let device = VirtioConsole::new(vec![
        ConsolePort::console("tty").input(input).output(output),
    ]);
    let handle = device.handle();
    handle.resize(132, 50);
    const KEYS: usize = 200_000;
    let host = thread::spawn(move || {
        let mut line = |expected: &str| {
            let mut bytes = vec![0; expected.len()];
            reader.read_exact(&mut bytes).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes), expected);
        };
        line("50 132\n");
        handle.resize(100, 40);
        line("40 100\n");
        let keys = pattern(KEYS);
        writer.write_all(&keys).unwrap();
        let mut bytes = vec![0; KEYS];
        reader.read_exact(&mut bytes).unwrap();
        assert!(bytes == keys);
    });
    let ended = exec(
        Guest::Debian686,
        device,
        &format!(
            r#"exec < /dev/hvc0 > /dev/hvc0
               stty raw -echo
               stty size
               until [ "$(stty size)" = "40 100" ]; do
                   sleep 0.1
               done
               stty size
               head -c {KEYS}
               exit 5"#
        ),
    );
    let Some(ended) = ended else { return };
    assert_eq!(ended, 5);
    host.join().unwrap();
}
