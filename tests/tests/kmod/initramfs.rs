//! [`Initramfs`]: the archive with all that runs in the virtual machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_kernels::{Archive, DeviceNumber, HostFiles};

const INIT: &str = include_str!("init.sh");

/// The folders that nothing below is in.
const FOLDERS: [&str; 4] = ["dev/", "proc/", "sys/", "tmp/"];

/// The programs of busybox that the scripts run.
const APPLETS: [&str; 19] = [
    "[", "cat", "chmod", "dmesg", "echo", "grep", "insmod", "mkswap", "mount", "reboot", "rm",
    "rmmod", "sed", "sh", "sleep", "su", "swapon", "time", "true",
];

/// The users, for `su`.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";

const EXECUTABLE: u32 = 0o755;
const DATA: u32 = 0o644;

/// An archive under construction, with busybox and the scripts' needs in it.
pub struct Initramfs {
    archive: Archive,
    /// What the archive has already.
    names: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Makes an archive with the modules of `kernel`.
    pub fn new(kernel: &HostFiles) -> Self {
        let mut initramfs = Self {
            archive: Archive::default(),
            names: BTreeSet::new(),
        };
        for folder in FOLDERS {
            initramfs.folders_of(Path::new(folder).join("x").as_path());
        }
        let console = DeviceNumber { major: 5, minor: 1 };
        initramfs.archive.device("dev/console", 0o600, console);
        initramfs.program("bin/busybox", &kernel.busybox);
        for applet in APPLETS {
            initramfs.archive.link(&format!("bin/{applet}"), "busybox");
        }
        for module in &kernel.modules {
            let name = module.file_name().unwrap().to_string_lossy();
            initramfs.file(&format!("lib/modules/{name}"), module);
        }
        initramfs.text("etc/passwd", PASSWD);
        initramfs.script("init", INIT);
        initramfs
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, file: &Path) {
        self.add(name, DATA, &fs::read(file).unwrap());
    }

    /// Adds a file that is not one here.
    pub fn text(&mut self, name: &str, content: impl AsRef<[u8]>) {
        self.add(name, DATA, content.as_ref());
    }

    /// Adds a script.
    pub fn script(&mut self, name: &str, content: &str) {
        self.add(name, EXECUTABLE, content.as_bytes());
    }

    /// Adds a program, and the shared libraries that it needs at the places where they are here.
    pub fn program(&mut self, name: &str, file: &Path) {
        self.add(name, EXECUTABLE, &fs::read(file).unwrap());
        for library in shared_libraries(file) {
            let name = library.strip_prefix("/").unwrap().to_str().unwrap();
            self.add(name, EXECUTABLE, &fs::read(&library).unwrap());
        }
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }

    /// Adds a member once, and the folders that it is in.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.folders_of(Path::new(name));
        if self.names.insert(name.into()) {
            self.archive.file(name, mode, content);
        }
    }

    /// Adds the folders above `path` that are not there yet.
    fn folders_of(&mut self, path: &Path) {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.pop();
        for folder in above.into_iter().rev() {
            if self.names.insert(folder.into()) {
                self.archive.folder(folder.to_str().unwrap(), EXECUTABLE);
            }
        }
    }
}

/// The shared libraries, the dynamic loader among them, of a program: those that the loader finds here.
fn shared_libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    // A static program is an error.
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| {
        let words = line.split_whitespace();
        words.map(PathBuf::from).find(|word| word.is_absolute())
    };
    printed.lines().filter_map(path).collect()
}
