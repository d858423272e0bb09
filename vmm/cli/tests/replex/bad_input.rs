//! Bad usage and bad files: exit status 2, one line on standard error that names what is wrong, nothing on standard output.

use std::{fs, net::TcpListener, os::unix::fs::symlink, path::Path, process::Output};

use crate::support::{Replex, elf, elf64};

/// The one line on standard error.
fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("replex: "), "{stderr}");
    assert!(
        stderr.ends_with('\n') && !stderr.contains("panicked"),
        "{stderr}"
    );
    stderr
}

#[track_caller]
fn refused(replex: &Replex, args: &[&str], named: &[&str]) {
    let line = complaint(&replex.run(args));
    for name in named {
        assert!(
            line.contains(name),
            "{args:?}: {line:?} does not name {name}"
        );
    }
}

/// Each is refused before anything is fetched.
#[test]
fn places_where_no_root_directory_can_be_made() {
    let replex = Replex::new();
    let empty = replex.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    symlink(&empty, replex.dir.path().join("link")).unwrap();
    replex.file("file", b"");
    for (place, named) in [
        (".", ". is a directory whose name is not given"),
        ("..", ".. is a directory whose name is not given"),
        ("../link", "../link is a symbolic link"),
        ("../file", "../file is there already"),
        ("../file/x", "../file/x"),
        ("/dev", "/dev is there already"),
        ("/proc/root", "/proc"),
        ("nowhere/root", "nowhere"),
    ] {
        let mut command = replex.command(&["guest", "debian-i386", "--to", place]);
        let line = complaint(&command.current_dir(&empty).output().unwrap());
        assert!(line.contains(named), "{place}: {line}");
    }
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
}

/// It is refused before anything is fetched.
#[test]
fn a_64_bit_root_on_a_32_bit_kernel() {
    let replex = Replex::new();
    let root = replex.dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    replex.file("root/bin/sh", &elf64(&[]));
    let root = root.to_str().unwrap();
    for args in [
        &["run", "--guest", "debian-686", root, "--", "sh"][..],
        &["boot", "--guest", "debian-686", "--root", root],
    ] {
        let named = "guest debian-686: does not run programs for amd64, which the root has; \
                     guest debian-amd64 does";
        refused(&replex, args, &[named]);
    }
}

#[test]
fn bad_usage() {
    let replex = Replex::new();
    for (args, named) in [
        (&["launch"][..], "launch"),
        (&["guest"], "NAME"),
        (&["run", "debian-i386"], "replex guest debian-i386"),
        (&["guest", "plan9"], "plan9"),
        (&["guest", "debian-i386", "--include", "a b"], "a b"),
        (&["guest", "debian-i386", "--remove"], "not there"),
        (&["guest", "--list", "--remove"], "--list"),
        (&["boot", "--bogus"], "--bogus"),
        (&["boot", "--mem", "1T"], "--mem"),
        (&["boot", "--mem", "none"], "--mem"),
        (&["boot", "--mem"], "--mem"),
        (&["boot", "--cpu", "z80"], "--cpu"),
        (&["boot", "--engine", "steam"], "--engine"),
        (&["boot", "--guest", "plan9"], "plan9"),
        (&["boot", "--windows", "often"], "--windows"),
        (&["boot", "--kmod", "maybe"], "--kmod"),
        (&["boot", "--dump-code", "start_kernel"], "start_kernel"),
        (&["boot", "--dump-code", "c1000000,"], "--dump-code"),
        (&["boot", "--intercept", "256"], "--intercept"),
        (&["boot", "--intercept", "14,80h"], "80h"),
        (&["boot", "--intercept"], "--intercept"),
        (&["boot", "--net", "tap"], "--net"),
        (&["boot", "--net", "user", "-p", "80"], "--publish"),
        (
            &["boot", "--net", "user", "-p", "localhost:80:80"],
            "localhost",
        ),
        (&["boot", "--publish", "8080:80"], "--net user"),
        (&["run", "--net", "none", "-p", "80:80"], "--publish"),
        (&["run", "--cpus", "2", "--", "true"], "--cpus"),
        (&["run", "--timeout", "soon"], "--timeout"),
        (&["run", "dir", "command"], "command"),
        (&["run", "uname"], "replex run -- uname"),
        (&["run", "./uname"], "replex guest"),
        (&["run", "--rw", "--", "true"], "--rw"),
        (&["run", "/nonexistent", "--", "true"], "/nonexistent"),
        (&["run", "--root", "/nonexistent"], "/nonexistent"),
        (&["run", "-w", "src", "--", "true"], "--workdir src"),
        (&["run", "-e", "=x", "--", "true"], "--env =x"),
        (&["run", "-it", "--", "true"], "not a terminal"),
        (&["run", "--pwd", "--", "true"], "--pwd"),
        (&["run", "--rodir", "/nonexistent"], "--rodir /nonexistent"),
        (&["run", "--rwdir", "/=/tmp"], "--rwdir"),
        (
            &["boot", "--net", "passt=x", "--publish", "8080:80"],
            "--net user",
        ),
        (&["boot", "--net", "passt="], "passt=SOCKET"),
        (&["boot", "--trace-irq", "0x100"], "--trace-irq"),
        (&["boot", "--trace-irq="], "--trace-irq"),
        (&["boot", "--trace-only", "port"], "--trace <FILE>"),
        (&["boot", "--trace", "x", "--trace-only", "disk"], "disk"),
        (
            &["boot", "--trace", "x", "--trace-only", "port:3f8,control:1"],
            "control:1",
        ),
        (
            &["boot", "--guest", "debian-686", "--kernel", "x"],
            "--guest",
        ),
        (&["boot", "-p", "0.0.0.0:0:80"], "port 0"),
        (&["run", "--rwdir", "/g=nosuch"], "--rwdir: "),
        (&["run", "-v", ".:/g", "--rodir", "/g=."], "--rodir: /g"),
        (&["boot", "-v", ".:/proc"], "--volume: the guest's /proc"),
        (&["boot", "--disk", "d.raw,readonly"], "\"readonly\""),
        (&["run", "/etc/passwd"], "`docker save`, nor a squashfs"),
        (&["boot", "-v", "."], "HOST:GUEST"),
        (&["boot", "-v", ".:/"], "root"),
        (&["boot", "-v", ".:/src:always"], "always"),
        (
            &["boot", "-v", "/absent:/src"],
            "--volume: cannot share /absent",
        ),
        (&["boot", "-v", "/dev/null:/src"], "/dev/null"),
        (
            &["boot", "--root", "/absent"],
            "--root: cannot share /absent",
        ),
        (&["boot", "--rw"], "--root"),
        (&["boot", "stray"], "stray"),
    ] {
        refused(&replex, args, &[named]);
    }
}

#[test]
fn caches_that_have_no_place() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(&[0xf4]));
    let file = replex.file("file", b"");
    for (args, cache, named) in [
        (
            &["run", "--", "true"][..],
            "rel",
            "REPLEX_CACHE: rel: not an absolute path",
        ),
        (&["boot", "--kernel", &kernel], "rel", "REPLEX_CACHE: rel: "),
        (&["guest", "--list"], "rel", "REPLEX_CACHE: rel: "),
        (&["run", "--", "true"], &file, "(REPLEX_CACHE chooses"),
        (&["run", &file], &file, "(REPLEX_CACHE chooses"),
    ] {
        let mut command = replex.command(args);
        let line = complaint(&command.env("REPLEX_CACHE", cache).output().unwrap());
        assert!(line.contains(named), "{args:?}: {line}");
    }
}

#[test]
fn output_that_nobody_can_have() {
    let replex = Replex::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = replex
        .command(&["guest", "--list"])
        .stdout(full)
        .output()
        .unwrap();
    assert!(complaint(&output).contains("standard output: No space"));
}

#[test]
fn nothing_at_all() {
    let output = Replex::new().run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let help = String::from_utf8(output.stderr).unwrap();
    assert!(
        help.contains("Commands:") && help.contains("doctor"),
        "{help}"
    );
}

#[test]
fn help_and_version_are_no_errors() {
    let replex = Replex::new();
    for args in [&["--help"][..], &["boot", "--help"], &["--version"]] {
        let output = replex.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn missing_files() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(&[0xf4]));
    refused(
        &replex,
        &["boot", "--kernel", "/no/kernel"],
        &["/no/kernel"],
    );
    refused(
        &replex,
        &["boot", "--kernel", &kernel, "--initrd", "/no/initrd"],
        &["/no/initrd"],
    );
    let dir = replex.dir.path().to_str().unwrap();
    refused(&replex, &["boot", "--kernel", dir], &[dir]);
    let args = ["boot", "--kernel", &kernel, "--jitdump", "/no/folder"];
    refused(&replex, &args, &["--jitdump /no/folder"]);
    for file in ["/no/folder/log", dir] {
        let args = ["boot", "--kernel", &kernel, "--trace", file];
        refused(&replex, &args, &[&format!("--trace {file}: ")]);
    }
}

#[test]
fn a_port_that_is_taken() {
    let replex = Replex::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    let args = ["boot", "--net", "user", "-p", &port];
    refused(&replex, &args, &["--publish: cannot publish 127.0.0.1:"]);
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there() {
    let replex = Replex::new();
    let disk = format!("{},snapshot", replex.file("d.raw", &[0; 512]));
    let mut command = replex.command(&["boot", "--disk", &disk]);
    let line = complaint(&command.env("TMPDIR", "/nonexistent").output().unwrap());
    assert!(line.contains("temporary file in /nonexistent: "), "{line}");
}

#[test]
fn a_network_of_nobody() {
    let replex = Replex::new();
    let named = [
        "--net",
        "cannot connect to ",
        "/passt.socket",
        "No such file",
    ];
    refused(
        &replex,
        &["boot", "--net", "passt=/nonexistent/passt.socket"],
        &named,
    );
}

#[test]
fn a_kernel_module_that_is_required() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(&[0xf4]));
    let args = ["boot", "--kernel", &kernel, "--kmod", "require"];
    for others in [["--windows", "never"], ["--engine", "emulator"]] {
        refused(
            &replex,
            &[&args[..], &others].concat(),
            &["--kmod require: "],
        );
    }
    if !Path::new("/dev/replex").exists() {
        refused(
            &replex,
            &args,
            &["--kmod require: /dev/replex: no such device"],
        );
    }
}

#[test]
fn files_that_are_no_kernels() {
    let replex = Replex::new();
    let mut x86_64 = elf(&[0xf4]);
    x86_64[18] = 62;
    let mut arm64 = vec![0; 1024];
    arm64[56..60].copy_from_slice(b"ARM\x64");
    let mut boot_sector = vec![0; 1024];
    boot_sector[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    let mut wild = elf(&[0xf4]);
    wild[52 + 12..][..4].copy_from_slice(&0xf000_0000u32.to_le_bytes());
    wild[24..28].copy_from_slice(&0xf000_0000u32.to_le_bytes());
    for (name, content, named) in [
        ("empty", &[][..], "truncated"),
        ("text", &b"#!/bin/sh\n".repeat(100), "boot_flag"),
        ("elf-cut-in-ident", &elf(&[0xf4])[..10], "truncated"),
        ("elf-cut-in-header", &elf(&[0xf4])[..40], "truncated"),
        ("elf-cut-in-table", &elf(&[0xf4])[..60], "e_phoff"),
        ("elf-cut-in-segment", &elf(&[0xf4])[..84], "p_filesz"),
        ("x86-64", &x86_64, "EI_CLASS is 1, not 2 (64-bit)"),
        ("arm64", &arm64, "another architecture"),
        ("boot-sector", &boot_sector, "header"),
        ("wild", &wild, "p_paddr 0xf0000000"),
    ] {
        let file = replex.file(name, content);
        refused(&replex, &["boot", "--kernel", &file], &[&file, named]);
    }
}

#[test]
fn too_little_memory() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(&[0xf4]));
    refused(
        &replex,
        &["boot", "--kernel", &kernel, "--mem", "1"],
        &["--mem 1M", "p_paddr", "more memory (-m"],
    );
    let initrd = replex.file("initrd", &vec![0; 3 << 20]);
    let args = ["boot", "--kernel", &kernel, "--initrd", &initrd];
    refused(
        &replex,
        &[&args[..], &["--mem", "2"]].concat(),
        &["initrd", "--mem 2M"],
    );
    refused(
        &replex,
        &[&args[..], &["--mem", "4"]].concat(),
        &["initrd", "--mem 4M"],
    );
}

#[test]
fn arguments_that_do_not_fit_the_kernel() {
    let replex = Replex::new();
    let kernel = replex.file("kernel", &elf(&[0xf4]));
    let args = ["boot", "--kernel", &kernel];
    refused(
        &replex,
        &[&args[..], &["--append", &"x".repeat(2048)]].concat(),
        &["command line"],
    );
    refused(
        &replex,
        &[&args[..], &["--exec", "true"]].concat(),
        &["--exec", "--initrd"],
    );
}
