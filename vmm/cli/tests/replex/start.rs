//! What a machine starts with: kernels of all kinds, ROMs, and files added to an initramfs.

use std::process::Output;

use crate::support::{Replex, bzimage, elf, elf64, multiboot};

const ENGINES: [&str; 2] = ["translator", "emulator"];

/// mov al, 'h'; out 0xe9, al; mov al, 5; out 0xf4, al: the same in 16-bit code and in 32-bit code.
const HELLO: &[u8] = &[0xb0, b'h', 0xe6, 0xe9, 0xb0, 5, 0xe6, 0xf4];

/// Runs the program on each engine, and requires that the guest prints `h` and ends with status 5.
fn says_hello(replex: &Replex, args: &[&str]) {
    for engine in ENGINES {
        let output = replex.run(&[&["boot", "--engine", engine], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(5),
            "{args:?}, {engine}: {stderr}"
        );
        assert_eq!(output.stdout, b"h");
        assert!(stderr.is_empty(), "{stderr}");
    }
}

#[test]
fn a_bzimage_without_payload_is_entered_at_code32_start() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &bzimage(HELLO, &[]));
    says_hello(&replex, &["--kernel", &kernel]);
    let mut later = bzimage(&[&[0xf4; 16], HELLO].concat(), &[]);
    later[0x214..0x218].copy_from_slice(&0x10_0010u32.to_le_bytes());
    let kernel = replex.file("later", &later);
    says_hello(&replex, &["--kernel", &kernel]);
    let mut relocatable = bzimage(HELLO, &[]);
    relocatable[0x234] = 1;
    relocatable[0x258..0x25c].copy_from_slice(&0x20_0000u32.to_le_bytes());
    let kernel = replex.file("relocatable", &relocatable);
    says_hello(&replex, &["--kernel", &kernel]);
    let mut old = bzimage(HELLO, &[9]);
    old[0x206] = 3;
    let kernel = replex.file("old", &old);
    says_hello(&replex, &["--kernel", &kernel]);
}

#[test]
fn the_boot_protocol_gives_a_gdt() {
    // mov eax, 0x18; mov ds, ax; ljmp 0x10:behind; mov al, 5; out 0xf4, al
    #[rustfmt::skip]
    let code = [
        0xb8, 0x18, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xd0,
        0xea, 16, 0, 0x10, 0, 0x10, 0,
        0xb0, b'h', 0xe6, 0xe9, 0xb0, 5, 0xe6, 0xf4,
    ];
    let replex = Replex::new();
    let kernel = replex.file("kernel", &bzimage(&code, &[]));
    says_hello(&replex, &["--kernel", &kernel]);
}

#[test]
fn a_64_bit_kernel_has_a_64_bit_processor() {
    // xor eax, eax; mov rax, rsp; js behind. In 32-bit code REX.W is DEC EAX, which makes the jump go past the end.
    let code = [&[0x31, 0xc0, 0x48, 0x89, 0xe0, 0x78, 0x08], HELLO].concat();
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf64(&code));
    for options in [
        &["--engine", "emulator"][..],
        &["--engine", "translator", "--cpu", "x86-64"],
    ] {
        let args = [&["boot", "--kernel", &kernel], options].concat();
        let output = replex.run(&args);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert_eq!(output.stdout, b"h");
        assert!(output.stderr.is_empty());
    }
    let output = replex.run(&["boot", "--kernel", &kernel, "--cpu", "bonnell"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let expected = format!(
        "replex: kernel {kernel} with --mem 256M: 64-bit kernel on processor model bonnell, which has no 64-bit mode; x86-64 has\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn an_elf_may_lie_at_address_0_and_over_the_usual_place_of_the_parameters() {
    let replex = Replex::new();
    for address in [0u32, 0x500, 0x1_0000, 0x9_ff00] {
        let mut file = elf(HELLO);
        for at in [24, 52 + 8, 52 + 12] {
            file[at..at + 4].copy_from_slice(&address.to_le_bytes());
        }
        let kernel = replex.file("kernel", &file);
        says_hello(&replex, &["--kernel", &kernel]);
    }
}

/// A Multiboot kernel that prints the command line and the module's first byte, and ends with status 5.
#[rustfmt::skip]
const TOLD: &[u8] = &[
    0x3d, 0x02, 0xb0, 0xad, 0x2b, // cmp eax, 0x2badb002
    0x75, 0x1a,                   // jne end
    0x8b, 0x73, 0x10,             // mov esi, [ebx + 16]  ; cmdline
    0xac,                         // next: lodsb
    0x84, 0xc0,                   // test al, al
    0x74, 0x04,                   // jz module
    0xe6, 0xe9,                   // out 0xe9, al
    0xeb, 0xf7,                   // jmp next
    0x8b, 0x73, 0x18,             // module: mov esi, [ebx + 24]  ; mods_addr
    0x8b, 0x36,                   // mov esi, [esi]  ; mod_start
    0xac,                         // lodsb
    0xe6, 0xe9,                   // out 0xe9, al
    0xb0, 5,                      // mov al, 5
    0xe6, 0xf4,                   // out 0xf4, al
    0xf4,                         // end: hlt
];

#[test]
fn a_multiboot_kernel_gets_command_line_and_module() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &multiboot(TOLD));
    let module = replex.file("module", b"MODULE");
    for engine in ENGINES {
        let output = replex.run(&[
            "boot", "--engine", engine, "--kernel", &kernel, "--initrd", &module, "--append",
            "-v x=1 ",
        ]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert_eq!(output.stdout, b"-v x=1 M");
    }
}

#[test]
fn a_multiboot_elf_may_be_entered_by_the_address_it_is_linked_for() {
    let header = [0x1bad_b002u32, 0, 0u32.wrapping_sub(0x1bad_b002)].map(u32::to_le_bytes);
    let mut file = elf(&[header.as_flattened(), HELLO].concat());
    for (at, value) in [(24, 0xc010_000cu32), (52 + 8, 0xc010_0000)] {
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let replex = Replex::new();
    let kernel = replex.file("kernel", &file);
    says_hello(&replex, &["--kernel", &kernel]);
}

/// A ROM of 64 KiB whose reset vector jumps to `code` at its beginning.
fn bios(code: &[u8]) -> Vec<u8> {
    let mut rom = vec![0xff; 0x1_0000];
    rom[..code.len()].copy_from_slice(code);
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]); // jmp 0, modulo 64 KiB
    rom
}

#[test]
fn a_rom_starts_at_the_reset_vector() {
    let replex = Replex::new();
    let rom = replex.file("r@m", &bios(HELLO));
    says_hello(&replex, &["--rom", &format!("{rom}@0xffff0000")]);
    // jmp 0xf000:0, into the alias below 1 MiB.
    let far = replex.file("far", &bios(&[0xea, 4, 0, 0, 0xf0]));
    let alias = replex.file("alias", &[&[0xf4; 4], HELLO].concat());
    says_hello(
        &replex,
        &[
            "--rom",
            &format!("{far}@0xffff0000"),
            "--rom",
            &format!("{alias}@960K"),
        ],
    );
}

#[test]
fn an_image_starts_where_the_user_says() {
    let replex = Replex::new();
    let image = replex.file("image", HELLO);
    for (address, entry) in [
        ("0x7c00", "real:0:7c00"),
        ("31744", "real:7c0:0"),
        ("0xf0000", "real:f000:0"),
        ("0", "0"),
        ("64K", "0x10000"),
        ("1M", "1M"),
        ("0xfee00000", "0xfee00000"),
    ] {
        let rom = format!("{image}@{address}");
        says_hello(&replex, &["--rom", &rom, "--entry", entry]);
    }
}

#[test]
fn a_kernel_runs_beside_roms() {
    let replex = Replex::new();
    // mov al, [0xc0000]; out 0xe9, al; mov al, 5; out 0xf4, al
    let code = [0xa0, 0, 0, 0xc, 0, 0xe6, 0xe9, 0xb0, 5, 0xe6, 0xf4];
    let kernel = replex.file("kernel", &elf(&code));
    let rom = replex.file("rom", b"h");
    says_hello(
        &replex,
        &["--kernel", &kernel, "--rom", &format!("{rom}@0xc0000")],
    );
}

/// A kernel that prints its initrd, from the setup header in boot_params (ramdisk_image, ramdisk_size).
#[rustfmt::skip]
const PRINT_INITRD: &[u8] = &[
    0x8b, 0x8e, 0x1c, 2, 0, 0, // mov ecx, [esi + 0x21c]
    0x8b, 0xb6, 0x18, 2, 0, 0, // mov esi, [esi + 0x218]
    0xac,                      // next: lodsb
    0xe6, 0xe9,                // out 0xe9, al
    0xe2, 0xfb,                // loop next
    0xb0, 5,                   // mov al, 5
    0xe6, 0xf4,                // out 0xf4, al
];

#[test]
fn added_files_surround_the_initrd() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(PRINT_INITRD));
    let initrd = replex.file("initrd", b"INITRD");
    let file = replex.file("a:b", b"CONTENT");
    let add = format!("{file}:/opt/");
    let archives = |args: &[&str]| {
        let args = [&["boot", "--kernel", &kernel, "--add", &add], args].concat();
        let output = replex.run(&args);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        output.stdout
    };
    let found = |text: &[u8], what: &str| {
        let at = text
            .windows(what.len())
            .position(|part| part == what.as_bytes());
        at.unwrap_or_else(|| panic!("no {what} in {text:?}"))
    };
    let text = archives(&["--initrd", &initrd]);
    let parts = ["opt\0", "TRAILER!!!", "INITRD", "opt/a:b\0", "CONTENT"];
    let places = parts.map(|part| found(&text, part));
    assert!(places.is_sorted(), "{places:?}");
    assert!(places[2] % 4 == 0 && text[places[2] + 6..][..8] == *b"\0\x00070701");
    let without = archives(&[]);
    assert_eq!(
        without.len(),
        text.len() - 8,
        "there may be no other initrd"
    );
}

/// The one line on standard error of a run that was refused.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

#[test]
fn each_error_says_once_what_is_wrong_and_what_would_help() {
    let replex = Replex::new();
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let damaged = [&[0x1f, 0x8b, 8][..], &[0; 40]].concat();
    for (name, content, expected) in [
        (
            "short",
            bzimage(HELLO, &[1, 2, 3]),
            "bzImage payload: payload of 3 bytes is too short",
        ),
        (
            "unknown",
            bzimage(HELLO, b"garbage!"),
            "bzImage payload: payload starts with [67, 61, 72, 62], the magic of no known compression",
        ),
        (
            "damaged",
            bzimage(HELLO, &damaged),
            "bzImage payload: damaged Gzip stream: ",
        ),
        (
            "sector",
            [&sector[..], &[0; 512]].concat(),
            "not a Linux kernel: setup header field header is 0x00000000, not \"HdrS\"; a boot sector starts by \
             --rom FILE@0x7c00 --entry real:0:7c00",
        ),
        (
            "tiny",
            HELLO.to_vec(),
            "truncated: 8 bytes end before the setup header's boot_flag; code without a header starts by --rom FILE@ADDR \
             --entry ADDR",
        ),
        (
            "xz",
            b"\xfd7zXZ\0 and so on".to_vec(),
            "a file compressed by Xz, not a kernel: unpack it first",
        ),
        (
            "cpio",
            b"070701 and so on".to_vec(),
            "a cpio archive, not a kernel: an initrd?; initrds are given by --initrd",
        ),
        (
            "multiboot2",
            [0xe852_50d6u32, 0, 16, 0x17ad_af1a]
                .map(u32::to_le_bytes)
                .concat(),
            "kernel for Multiboot2 (header at offset 0x0), which replex does not boot: build it with a Multiboot header of \
             version 1, magic 0x1badb002",
        ),
    ] {
        let file = replex.file(name, &content);
        let line = refusal(&replex.run(&["boot", "--kernel", &file]));
        let expected = format!("replex: kernel {file}: {expected}");
        match expected.strip_suffix(": ") {
            None => assert_eq!(line, expected),
            Some(start) => assert!(line.starts_with(start), "{line}"),
        }
        // Parts of a few characters may be numbers.
        for part in line.split([':', ';']).filter(|part| part.len() > 8) {
            assert_eq!(line.matches(part).count(), 1, "{part} twice: {line}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let replex = Replex::new();
    let rom = format!("{}@1M", replex.file("rom", HELLO));
    let top = format!("{}@0xfffffff9", replex.file("top", HELLO));
    let empty = format!("{}@1M", replex.file("empty", b""));
    let kernel = replex.file("kernel", &elf(HELLO));
    let module_kernel = replex.file("multiboot", &multiboot(TOLD));
    let add = format!("{kernel}:/bin/x");
    for (args, named) in [
        (
            &["--rom", &rom][..],
            "no ROM holds the first instruction, at 0xfffffff0; the reset vector is",
        ),
        (&["--rom", &rom, "--entry", "2M"], "at 0x200000"),
        (
            &["--rom", &rom, "--rom", &rom, "--entry", "1M"],
            "overlaps the ROM at 0x100000",
        ),
        (
            &["--rom", &rom, "--kernel", &kernel],
            "overlap the ROM from 0x100000",
        ),
        (&["--rom", &top], "--rom "),
        (&["--rom", &empty, "--entry", "1M"], "empty"),
        (&["--rom", "/no/file@0", "--entry", "0"], "--rom /no/file: "),
        (
            &["--rom", "/dev/zero@0xffffff00", "--entry", "0"],
            "--rom /dev/zero: more than the 256 bytes from 0xffffff00 to 4 GiB",
        ),
        (
            &["--kernel", &kernel, "--mem", "2M", "--initrd", "/dev/zero"],
            "initrd /dev/zero: does not fit in --mem 2M",
        ),
        (&["--rom", "x"], "FILE@ADDR"),
        (&["--rom", "x@y"], "y: not an address"),
        (&["--rom", "x@4G"], "4G: not an address"),
        (&["--entry", "1M"], "--rom"),
        (&["--entry", "real:0", "--rom", &rom], "real:f000:fff0"),
        (
            &["--entry", "1M", "--rom", &rom, "--kernel", &kernel],
            "--entry",
        ),
        (&["--rom", &rom, "--guest", "debian-686"], "--guest"),
        (
            &["--rom", &rom, "--entry", "1M", "--initrd", &kernel],
            "--initrd: needs a kernel",
        ),
        (
            &["--rom", &rom, "--entry", "1M", "--append", "x"],
            "--append: needs a kernel",
        ),
        (
            &["--rom", &rom, "--entry", "1M", "--exec", "x"],
            "--exec: needs a kernel",
        ),
        (
            &["--rom", &rom, "--entry", "1M", "--add", &add],
            "--add: needs a kernel",
        ),
        (&["--kernel", &kernel, "--add", "x"], "FILE:PATH"),
        (&["--kernel", &kernel, "--add", "x:y"], "FILE:PATH"),
        (
            &["--kernel", &kernel, "--add", "/no/file:/x"],
            "--add: /no/file: ",
        ),
        (
            &["--kernel", &kernel, "--add", &add, "--add", &add],
            "--add: /bin/x is added twice",
        ),
        (
            &["--kernel", &module_kernel, "--add", &add],
            "--add: the kernel is one for Multiboot",
        ),
        (
            &["--kernel", &module_kernel, "--exec", "x"],
            "--exec: the kernel is one for Multiboot",
        ),
    ] {
        let line = refusal(&replex.run(&[&["boot"], args].concat()));
        assert!(
            line.contains(named),
            "{args:?}: {line} does not name {named}"
        );
    }
}
