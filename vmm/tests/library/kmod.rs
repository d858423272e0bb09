//! Machines on hosts whose kernel module cannot be used.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use vmm::{
    BootSource, Engine, Kernel, KmodConfig, KmodRefusal, KmodUse, StopReason, VcpuConfig, Vm,
    VmConfig, VmError, Windows,
    kmod::{LOG_TARGET, ShadowStats},
};

use crate::support::Typed;

/// A guest that ends with status 9.
const NINE: &[u8] = &[
    0xb0, 0x09, // mov al, 9
    0xe6, 0xf4, // out 0xf4, al
];

/// What was logged about the module, by any test.
static LOGGED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == LOG_TARGET
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            LOGGED.lock().unwrap().push((record.level(), line));
        }
    }

    fn flush(&self) {}
}

/// What was logged about the device at `path`.
fn logged(path: &Path) -> Vec<(Level, String)> {
    let logged = LOGGED.lock().unwrap();
    let names = |line: &str| line.contains(&path.display().to_string());
    logged
        .iter()
        .filter(|(_, line)| names(line))
        .cloned()
        .collect()
}

fn config(usage: KmodUse, device: &Path) -> VmConfig {
    VmConfig {
        memory: 16 << 20,
        kmod: KmodConfig {
            usage,
            device: device.into(),
        },
        ..VmConfig::default()
    }
}

fn boot(config: &VmConfig) -> Result<Vm, VmError> {
    // Whoever comes second has it, too.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Debug);
    let source = BootSource {
        kernel: &Kernel::flat(NINE.to_vec()),
        initrd: &[],
        cmdline: "",
    };
    Vm::boot(config, &source)
}

/// Paths that lead to no device of the module: in `folder`, what is there, and whether something is.
fn no_devices(folder: &Path) -> [(PathBuf, bool); 3] {
    let file = folder.join("file");
    fs::write(&file, "").unwrap();
    [
        (folder.join("missing"), false),
        (file, true),
        (folder.to_owned(), true),
    ]
}

#[test]
fn a_module_that_cannot_be_used_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    for (path, exists) in no_devices(folder.path()) {
        let mut vm = boot(&config(KmodUse::Auto, &path)).unwrap();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(9)), "{stop}");
        assert_eq!(vm.stats().shadow, ShadowStats::Mmap);
        let lines: Vec<_> = logged(&path)
            .into_iter()
            .filter(|(_, line)| line.starts_with(&format!("{}: ", path.display())))
            .collect();
        let expected = if exists { Level::Warn } else { Level::Debug };
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].0, expected, "{lines:?}");
    }
}

#[test]
fn a_module_that_is_required_must_be_usable() {
    let folder = tempfile::tempdir().unwrap();
    for (path, _) in no_devices(folder.path()) {
        let error = boot(&config(KmodUse::Require, &path))
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(error, VmError::Kmod(KmodRefusal::Unusable(_))),
            "{error}"
        );
        let line = error.to_string();
        assert!(line.starts_with(&format!("{}: ", path.display())), "{line}");
    }
}

#[test]
fn a_module_that_is_not_used_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (path, _) in no_devices(folder.path()) {
        boot(&config(KmodUse::Off, &path)).unwrap();
        assert_eq!(logged(&path), []);
    }
}

#[test]
fn a_module_is_not_required_of_a_processor_without_windows() {
    let path = Path::new("/dev/null");
    for (engine, windows, reason) in [
        (
            Engine::Emulator,
            Windows::Auto,
            "the emulator runs the guest",
        ),
        (
            Engine::Translator,
            Windows::Never,
            "windows are never to be used",
        ),
    ] {
        let vcpu = VcpuConfig {
            engine,
            windows,
            ..VcpuConfig::default()
        };
        let of = |usage| VmConfig {
            vcpu: vcpu.clone(),
            ..config(usage, path)
        };
        let error = boot(&of(KmodUse::Require)).map(drop).unwrap_err();
        assert!(
            matches!(error, VmError::Kmod(KmodRefusal::NoWindows(_))),
            "{error}"
        );
        assert!(error.to_string().ends_with(reason), "{error}");
        boot(&of(KmodUse::Auto)).unwrap();
        assert_eq!(logged(path), []);
    }
}

#[test]
fn choices_have_names() {
    for choice in KmodUse::ALL {
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    let error = "maybe".parse::<KmodUse>().unwrap_err();
    assert_eq!(error.to_string(), "is one of auto, off and require");
}
