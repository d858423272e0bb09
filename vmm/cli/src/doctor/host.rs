//! What the host has, thing by thing.

use std::{env, fs, path::Path};

use guest_kernels::cache_folder;
use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
    unistd::{AccessFlags, access},
};
use sandbox::Support;
use vmm::{
    CpuModel, VcpuConfig,
    mmu::{Kmod, Memory},
};

use super::{Finding, native::runs_32_bit_programs};

/// The memory of a default machine, and what replex needs beside it, in MiB.
const MEMORY: u64 = 256 + 128;

/// The mappings that windows can take (`Limits` in README.md), and those of the rest of the process.
const MAPPINGS: u64 = 24_576 + 1_024;

/// The open files that two shared directories can well use.
const DESCRIPTORS: u64 = 4096;

/// All findings but whether a guest runs.
pub fn findings() -> Vec<Finding> {
    vec![
        bmi2(),
        x86_64_v2(),
        fsgsbase(),
        memory(),
        addresses(),
        overcommit(),
        mappings(),
        descriptors(),
        kmod(),
        seccomp(),
        landlock(),
        proc(),
        cache(),
        tools(),
        programs(),
    ]
}

fn bmi2() -> Finding {
    match is_x86_feature_detected!("bmi2") {
        true => Finding::ok("BMI2", "translated code uses it"),
        false => Finding::missing("BMI2", "only the emulator runs guests, many times slower"),
    }
}

fn x86_64_v2() -> Finding {
    let model = CpuModel::X86_64V2;
    match model.level().missing_on_host() {
        None => Finding::ok(
            model.name(),
            "guests can have SSE3 to SSE4.2 and POPCNT (--cpu)",
        ),
        Some(extension) => Finding::limited(
            model.name(),
            format!("no guest can have this processor model (--cpu), for lack of {extension}"),
        ),
    }
}

fn fsgsbase() -> Finding {
    match VcpuConfig::default().check_windows() {
        Ok(()) => Finding::ok(
            "FSGSBASE",
            "programs that run long reach their memory by the host's MMU",
        ),
        Err(reason) => Finding::missing(
            "FSGSBASE",
            format!("no windows: {reason}; programs that run long are slower"),
        ),
    }
}

fn memory() -> Finding {
    let available = field_kib("/proc/meminfo", "MemAvailable:").map(|kib| kib >> 10);
    let mib = [available, cgroup_limit().map(|bytes| bytes >> 20)];
    let Some(mib) = mib.into_iter().flatten().min() else {
        return Finding::limited("memory", "unknown: /proc is not mounted");
    };
    let text = format!("{mib} MiB for this process; a guest has 256 MiB by default (--mem)");
    match mib >= MEMORY {
        true => Finding::ok("memory", text),
        false => Finding::limited("memory", text),
    }
}

/// The host addresses that a 64-bit machine of up to 3.5 GiB takes, with one set of tables.
const WIDE: &str = "1.1 TiB";

fn addresses() -> Finding {
    let used = field_kib("/proc/self/status", "VmPeak:").unwrap_or(0) >> 20;
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((limit, _)) if limit != RLIM_INFINITY => Finding::limited(
            "address space",
            format!(
                "{} MiB (ulimit -v), of which a machine reserves much, without using it: {used} GiB, 64-bit ones {WIDE}",
                limit >> 20
            ),
        ),
        _ => Finding::ok(
            "address space",
            format!(
                "unlimited; a machine reserves {used} GiB, a 64-bit one {WIDE}, without using them"
            ),
        ),
    }
}

fn overcommit() -> Finding {
    match number("/proc/sys/vm/overcommit_memory") {
        Some(2) => Finding::limited(
            "overcommit",
            "vm.overcommit_memory is 2: reserved addresses count as memory, so machines may not start",
        ),
        _ => Finding::ok("overcommit", "reserved addresses cost nothing"),
    }
}

fn mappings() -> Finding {
    match number("/proc/sys/vm/max_map_count") {
        Some(count) if count < MAPPINGS => Finding::limited(
            "mappings",
            format!(
                "vm.max_map_count is {count}: with less than {MAPPINGS}, programs lose their windows and are slower"
            ),
        ),
        Some(count) => Finding::ok(
            "mappings",
            format!("vm.max_map_count is {count}, enough for windows"),
        ),
        None => Finding::limited("mappings", "vm.max_map_count is unknown"),
    }
}

fn descriptors() -> Finding {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let text = format!("{hard} (ulimit -Hn), half of them for shared directories");
    match hard >= DESCRIPTORS {
        true => Finding::ok("file descriptors", text),
        false => Finding::limited("file descriptors", text),
    }
}

fn kmod() -> Finding {
    let name = "kernel module";
    let version = Kmod::VERSION;
    let opened = Memory::new(1 << 20).map(|memory| Kmod::open(Path::new(Kmod::PATH), &memory));
    match opened {
        Ok(Ok(_)) => Finding::ok(
            name,
            format!(
                "{}, version {version} of its interface, fills windows",
                Kmod::PATH
            ),
        ),
        Ok(Err(error)) if error.is_absent() => Finding::missing(
            name,
            format!(
                "{} is not there; it makes programs with windows faster, and is not needed",
                Kmod::PATH
            ),
        ),
        Ok(Err(error)) => Finding::limited(name, format!("{error}; it is not used")),
        Err(error) => Finding::limited(name, error.to_string()),
    }
}

fn seccomp() -> Finding {
    match Support::of_host().seccomp {
        true => Finding::ok("seccomp", "each thread keeps to its system calls"),
        false => Finding::missing("seccomp", "threads may make every system call"),
    }
}

fn landlock() -> Finding {
    match Support::of_host().landlock {
        None => Finding::missing(
            "Landlock",
            "shared directories are confined by the program alone, not by the kernel, too",
        ),
        Some(1) => Finding::limited(
            "Landlock",
            "version 1, which is not used with writable shared directories: it forbids moving files between directories",
        ),
        Some(version) => Finding::ok(
            "Landlock",
            format!("version {version}: only what is shared can be opened"),
        ),
    }
}

fn proc() -> Finding {
    match Path::new("/proc/self/fd").is_dir() {
        true => Finding::ok("/proc", "shared directories need it"),
        false => Finding::missing("/proc", "directories cannot be shared (--volume, --root)"),
    }
}

fn cache() -> Finding {
    let folder = match cache_folder() {
        Ok(folder) => folder,
        Err(error) => return Finding::missing("cache", error.to_string()),
    };
    // It is made where its next ancestor lets it be made.
    let existing = folder.ancestors().find(|ancestor| ancestor.exists());
    let may = AccessFlags::W_OK | AccessFlags::X_OK;
    match existing.map(|ancestor| access(ancestor, may)) {
        Some(Ok(())) => Finding::ok("cache", folder.display().to_string()),
        Some(Err(error)) => Finding::limited(
            "cache",
            format!(
                "{}: {error}; guests that are in it boot, others cannot be fetched (REPLEX_CACHE names another folder)",
                folder.display()
            ),
        ),
        None => Finding::missing("cache", format!("{}: no such place", folder.display())),
    }
}

/// The programs that fetch guests.
const TOOLS: [&str; 3] = ["apt-get", "apt-cache", "dpkg-deb"];

/// The keys of Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn tools() -> Finding {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| {
        let mut folders = env::split_paths(&path);
        folders.any(|folder| access(&folder.join(name), AccessFlags::X_OK).is_ok())
    };
    let mut missing: Vec<_> = TOOLS.into_iter().filter(|name| !is_there(name)).collect();
    if !Path::new(KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    match missing.is_empty() {
        true => Finding::ok("apt", "fetches guests from Debian's archive"),
        false => Finding::missing(
            "apt",
            format!(
                "no {}; guests cannot be fetched, those in the cache boot, as do kernels given by --kernel",
                missing.join(", ")
            ),
        ),
    }
}

fn programs() -> Finding {
    let name = "32-bit programs";
    match runs_32_bit_programs() {
        Ok(true) => Finding::ok(name, "run; replex's own tests need that, guests do not"),
        Ok(false) => Finding::missing(
            name,
            "do not run as they should; only replex's own tests need that",
        ),
        Err(error) => Finding::missing(name, format!("{error}; only replex's own tests need them")),
    }
}

/// The number in a file.
fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number of KiB behind `name` in a file of fields.
fn field_kib(path: &str, name: &str) -> Option<u64> {
    field(&fs::read_to_string(path).ok()?, name)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The smallest limit of memory, in bytes, of the control groups that this process is in; none if there is no limit.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = unified_group(&groups)?;
    let folder = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let limits = folder
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with("/sys/fs/cgroup"))
        .filter_map(|ancestor| number(ancestor.join("memory.max").to_str()?));
    // A container's own view of the hierarchy may begin at its group.
    limits
        .chain(number("/sys/fs/cgroup/memory.max"))
        .chain(number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .min()
}

/// The path of this process's group in the unified hierarchy (cgroups(7), /proc/pid/cgroup).
fn unified_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn fields_and_groups_are_read_as_the_kernel_writes_them() {
        let text = "MemTotal:       1000 kB\nMemAvailable:    567 kB\nVmPeak:\t  12 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(567));
        assert_eq!(field(text, "VmPeak:"), Some(12));
        assert_eq!(field(text, "Swap:"), None);
        let groups = "2:memory:/old\n0::/user.slice/a b\n";
        assert_eq!(unified_group(groups), Some("/user.slice/a b"));
        assert_eq!(unified_group("1:name=systemd:/\n"), None);
    }

    #[test]
    fn what_the_tests_rely_on_is_found() {
        for finding in [proc(), programs()] {
            assert_eq!(finding.state, State::Ok, "{finding}");
        }
        assert_eq!(bmi2().state == State::Ok, is_x86_feature_detected!("bmi2"));
    }
}
