//! A Debian kernel that boots, followed by gdb from the entry point to the shell and on.
//!
//! The kernel has no symbols, so gdb gets those of the functions that the kernel itself tells of in /proc/kallsyms.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use guest_kernels::Guest;

use super::{Gdb, is_installed};
use crate::{
    program::Boot,
    screen::{PROMPT, Screen, start},
};

/// Linear address that Debian's i386 kernels have their text from.
const KERNEL_TEXT: u64 = 0xc100_0000;
/// Interruptions after which a guest that computes in a program was found there at least once.
const INTERRUPTIONS: usize = 20;

/// Creates a file with the symbols of the guest's functions, and nothing else.
fn symbols(folder: &Path, kallsyms: &str) -> PathBuf {
    let mut functions: Vec<(u64, &str)> = kallsyms.lines().filter_map(function).collect();
    functions.sort_unstable();
    // Of functions with the same name, only the first can have a symbol in one file.
    let mut names = HashSet::new();
    functions.retain(|&(_, name)| names.insert(name));
    let mut source = String::from(".section kernel, \"ax\", @nobits\n");
    for (address, name) in functions {
        let offset = address - KERNEL_TEXT;
        writeln!(
            source,
            ".org {offset:#x}\n.globl \"{name}\"\n.type \"{name}\", @function\n\"{name}\":"
        )
        .unwrap();
    }
    let [assembly, object, file] = ["s", "o", "elf"].map(|ext| folder.join(ext));
    fs::write(&assembly, source).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("as")
        .args(["--32", "-o"])
        .args([&object, &assembly]));
    run(Command::new("ld")
        .args(["-m", "elf_i386", "-e", "0"])
        .arg(format!("--section-start=kernel={KERNEL_TEXT:#x}"))
        .arg("-o")
        .args([&file, &object]));
    file
}

/// Address and name of a function of the kernel proper, from a line of kallsyms.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_whitespace();
    let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
    let address = u64::from_str_radix(address, 16).ok()?;
    let counts = kind.eq_ignore_ascii_case("t") && address >= KERNEL_TEXT && words.next().is_none();
    counts.then_some((address, name))
}

/// Operand of the first instruction in `listing` that writes to memory at a constant address.
fn variable(listing: &str) -> &str {
    let operands = listing.lines().filter(|line| line.contains("add "));
    let mut addresses = operands
        .filter_map(|line| line.split_once(",0x"))
        .map(|(_, rest)| rest);
    addresses.next().unwrap_or_else(|| panic!("{listing}"))
}

#[test]
fn gdb_goes_with_a_kernel_from_its_entry_to_the_shell() {
    if !is_installed() {
        return;
    }
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let kallsyms = boot.exec("cat /proc/kallsyms").text();
    let folder = tempfile::tempdir().unwrap();
    let mut gdb = Gdb::start(&symbols(folder.path(), &kallsyms));

    let socket = folder.path().join("socket");
    let address = format!("unix:{}", socket.display());
    let boot = Boot::of(Guest::Debian686).unwrap();
    let (mut screen, terminal) = Screen::open();
    let running = start(&boot.with("--gdb", &address).flag("--gdb-wait"), &terminal);
    screen.expect("gdb: target remote ");

    gdb.command(&format!("target remote {}", socket.display()));
    assert_eq!(gdb.number("$cr0") >> 31, 0, "paging is on at the entry");
    let entry = gdb.number("$eip");
    assert!(gdb.command("stepi").starts_with("0x"));
    assert_ne!(gdb.number("$eip"), entry);

    gdb.command("break *run_init_process");
    let hit = gdb.command("continue");
    assert!(hit.contains("Breakpoint 1, "), "{hit}");
    let frames = gdb.command("backtrace 2");
    assert!(
        frames.contains("in run_init_process ()") && frames.contains("in kernel_init ()"),
        "{frames}"
    );
    assert!(gdb.command("info registers cr3").contains("cr3 "));

    let before = gdb.number("$eip");
    let stepped = gdb.command("stepi 1000");
    assert!(stepped.contains(" in "), "{stepped}");
    assert_ne!(gdb.number("$eip"), before);
    gdb.command("delete");

    // jiffies_64, which this function adds to.
    let listing = gdb.command("x/12i do_timer");
    let jiffies = variable(&listing);
    gdb.command(&format!("watch *(int *)0x{jiffies}"));
    let changed = gdb.command("continue");
    assert!(changed.contains("Hardware watchpoint 2: "), "{changed}");
    let value = |name| {
        let line = changed.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.parse::<i64>().ok())
    };
    let values = (value("Old value = "), value("New value = "));
    assert!(
        matches!(values, (Some(old), Some(new)) if new > old),
        "{changed}"
    );
    let frames = gdb.command("backtrace 1");
    assert!(
        frames.contains(" in ") && frames.contains(" ()"),
        "{frames}"
    );
    gdb.command("delete");

    gdb.command("monitor intercept exception 14");
    let fault = gdb.command("continue");
    assert!(fault.contains("SIGSEGV"), "{fault}");
    let event = gdb.command("monitor info event");
    assert!(
        event.contains("vector 0x0e, exception, error code ") && event.contains("CR2 "),
        "{event}"
    );
    gdb.command("monitor reflect 14");

    gdb.give("continue");
    screen.expect(PROMPT);
    screen.type_keys("echo $((6 * 7)); while :; do :; done\r");
    screen.expect("\r\n42\r\n");
    gdb.ctrl_c();
    let stopped = gdb.answer();
    assert!(stopped.contains("SIGINT"), "{stopped}");
    let found_program = (0..INTERRUPTIONS).any(|_| {
        assert!(gdb.interrupt().contains("SIGINT"));
        gdb.number("$cs & 3") == 3
    });
    assert!(found_program, "ctrl-c never stops in the program");
    assert!(gdb.number("$eip") < 0xc000_0000);
    let irq = gdb.command("monitor info irq");
    assert!(irq.contains("8259A master  IRR "), "{irq}");
    assert!(irq.contains("8254 counter 0  mode "), "{irq}");
    let detached = gdb.command("detach");
    assert!(detached.contains("detached"), "{detached}");
    gdb.quit();

    screen.type_keys("\x03");
    screen.expect(PROMPT);
    assert!(screen.command("echo $((7 * 9))").contains("\r\n63\r\n"));
    screen.type_keys("poweroff -f\r");
    assert_eq!(running.wait().code(), Some(0));
}
