//! Code whose linear address is not EIP: segments with a base, of 32 and of 16 bits, real-address and virtual-8086 mode.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use guest_kernels::test_kernel;

use super::{Gdb, is_installed};
use tests::{built::replex, hang::Guarded};

/// The commands by which gdb follows the guest from code of 32 bits to code of 16 bits and back. A description is read when gdb
/// connects, and again at `unset tdesc filename`; of it and the symbols' architecture gdb takes the wider, unless one is set.
const FOLLOW: &str = "\
set osabi none
define hook-stop
unset tdesc filename
if $cs_bits == 16
set architecture i8086
else
set architecture i386
end
end";
/// The linear address of the kernel's counter.
const COUNTER: u32 = 0xa000;

/// A place of the kernel `stops`, at whose labels gdb stops.
struct Place {
    name: &'static str,
    cs_base: u32,
    cs_bits: u32,
    /// The linear address of the top of the stack; `None` if it is the kernel's own.
    stack: Option<u32>,
}

const PLACES: [Place; 5] = [
    Place {
        name: "flat",
        cs_base: 0,
        cs_bits: 32,
        stack: None,
    },
    Place {
        name: "based",
        cs_base: 0x1_0000,
        cs_bits: 32,
        stack: Some(0xa000),
    },
    Place {
        name: "local",
        cs_base: 0x10_0000,
        cs_bits: 16,
        stack: Some(0xa000),
    },
    Place {
        name: "real",
        cs_base: 0xf_fff0,
        cs_bits: 16,
        stack: Some(0xa000),
    },
    Place {
        name: "virtual",
        cs_base: 0xf_fff0,
        cs_bits: 16,
        stack: Some(0xa000),
    },
];

impl Place {
    fn label(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.name)
    }

    /// The type that a near call's return address has in gdb's language.
    fn return_type(&self) -> &'static str {
        match self.cs_bits {
            16 => "unsigned short",
            _ => "unsigned int",
        }
    }
}

/// Fails unless `answer` says that the guest stopped at `label` for a breakpoint.
#[track_caller]
fn assert_stopped(answer: &str, label: &str) {
    let place = format!(" in {label} ()");
    let is_told = answer.contains("reakpoint ") && answer.contains(&place);
    assert!(is_told, "{label}: {answer}");
}

/// Stops, steps, returns, jumps and watches at `place`, to which the guest is on its way.
fn visit(gdb: &mut Gdb, place: &Place) {
    let [stop, function, back] = ["stop", "function", "back"].map(|suffix| place.label(suffix));
    gdb.command(&format!("break *{stop}"));
    assert_stopped(&gdb.command("continue"), &stop);
    let eip = gdb.number(&format!("(unsigned int)&{stop}"));
    assert_eq!(gdb.number("$eip"), eip);
    assert_eq!(gdb.number("$pc"), eip);
    assert_eq!(gdb.number("$eip_offset"), eip - place.cs_base);
    assert_eq!(gdb.number("$cs_base"), place.cs_base);
    assert_eq!(gdb.number("$cs_bits"), place.cs_bits);
    if let Some(stack) = place.stack {
        assert_eq!(gdb.number("$esp_linear"), stack);
    }
    let listing = gdb.command("x/2i $pc");
    let is_right = listing.contains("incl   0x0") && listing.contains(&format!("<{function}>"));
    assert!(is_right, "{listing}");

    gdb.command("stepi");
    let behind = gdb.number("$eip");
    gdb.command("stepi");
    let listing = gdb.command("x/i $pc");
    assert!(
        listing.contains(&format!("<{function}>")) && listing.contains("$0x5a5a,%bx"),
        "{listing}"
    );
    let target = format!("$cs_base + *({} *)$esp_linear", place.return_type());
    gdb.command(&format!("tbreak *({target})"));
    assert_stopped(&gdb.command("continue"), &back);

    let counter = format!("*(int *){COUNTER:#x}");
    assert_eq!(gdb.number(&counter), 1);
    assert_stopped(&gdb.command(&format!("jump *{stop}")), &stop);
    gdb.command(&format!("watch {counter}"));
    let changed = gdb.command("continue");
    for part in ["Hardware watchpoint ", "Old value = 1", "New value = 2"] {
        assert!(changed.contains(part), "{changed}");
    }
    assert_eq!(gdb.number("$eip"), behind);
    gdb.command("delete");
}

#[test]
fn gdb_stops_in_every_kind_of_code_segment() {
    if !is_installed() {
        return;
    }
    let kernel = test_kernel::all()
        .iter()
        .find(|kernel| kernel.name == "stops");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stops.elf");
    fs::write(&file, kernel.unwrap().elf).unwrap();
    let follow = folder.path().join("follow.gdb");
    fs::write(&follow, FOLLOW).unwrap();
    let socket = folder.path().join("socket");
    for engine in ["translator", "emulator"] {
        let mut command = Command::new(replex());
        command
            .args(["boot", "--engine", engine, "--kernel"])
            .arg(&file)
            .arg(format!("--gdb=unix:{}", socket.display()))
            .arg("--gdb-wait")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut program = Guarded::new(command.spawn().unwrap());
        let mut messages = BufReader::new(program.child.stderr.take().unwrap());
        let mut invitation = String::new();
        messages.read_line(&mut invitation).unwrap();
        assert!(invitation.contains("target remote "), "{invitation}");
        let mut gdb = Gdb::start(&file);
        gdb.command(&format!("source {}", follow.display()));
        gdb.command(&format!("target remote {}", socket.display()));
        for place in &PLACES {
            visit(&mut gdb, place);
        }
        let end = gdb.command("continue");
        assert!(end.contains("exited normally"), "{end}");
        gdb.quit();
        assert_eq!(program.wait().code(), Some(0), "{engine}");
    }
}
