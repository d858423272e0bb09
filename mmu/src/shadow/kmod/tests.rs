//! Tests without the device: files that are none, and one that is mapped as the device is but answers no request.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, geteuid, mkfifo, setfsuid};

use super::abi::Device;
use super::*;
use crate::addr::{Frame, PAGE_SHIFT};
use crate::memfd;

/// The error of opening `path` as the device.
fn refusal(path: &std::path::Path) -> KmodError {
    let memory = Memory::new(1 << 20).unwrap();
    Kmod::open(path, &memory).unwrap_err()
}

#[test]
fn files_that_are_no_device_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "replex").unwrap();
    mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
    for (path, reason) in [
        (path("file"), "is not the device of replex's kernel module"),
        (path("fifo"), "is not the device of replex's kernel module"),
        (
            "/dev/null".into(),
            "is not the device of replex's kernel module",
        ),
        (
            path(""),
            "cannot be opened for reading and writing: Is a directory",
        ),
    ] {
        let error = refusal(&path);
        let line = error.to_string();
        assert!(
            line.starts_with(&format!("{}: {reason}", path.display())),
            "{line}"
        );
        assert!(!error.is_absent() && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_device_that_is_not_there_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replex");
    let error = refusal(&path);
    assert!(error.is_absent());
    assert_eq!(
        error.to_string(),
        format!(
            "{}: no such device; is the kernel module loaded?",
            path.display()
        )
    );
    let below_a_file = refusal("/dev/null/replex".as_ref());
    assert!(below_a_file.is_absent(), "{below_a_file}");
}

#[test]
fn a_device_of_others_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("replex");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    // Root may open everything; a thread of it that accesses files as another user may not.
    let error = thread::spawn(move || {
        if geteuid().is_root() {
            setfsuid(Uid::from_raw(65534));
        }
        refusal(&path)
    });
    let error = error.join().unwrap();
    assert!(!error.is_absent());
    let line = error.to_string();
    assert!(
        line.contains("replex: cannot be opened for reading and writing: Permission denied"),
        "{line}"
    );
}

/// A file that is mapped as the device is, but answers no request.
fn deaf() -> Arc<Kmod> {
    let file: File = memfd::create(c"deaf", u64::from(abi::WINDOWS) << abi::OFFSET_BITS).unwrap();
    Arc::new(Kmod::new("deaf".as_ref(), Device(file)))
}

/// A window of the deaf device.
fn window(kmod: &Arc<Kmod>) -> KmodWindow {
    KmodWindow {
        kmod: Arc::clone(kmod),
        memory: Memory::new(1 << 20).unwrap(),
        state: State::Served {
            area: kmod.area().unwrap(),
            retries: Retries::default(),
        },
    }
}

/// The name of what is mapped at a page of the window, and whether it can be read and written, as the host's kernel says.
fn mapped(window: &KmodWindow, page: u32) -> (String, bool, bool) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let address = window.base() as usize + ((page as usize) << PAGE_SHIFT);
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    });
    let fields: Vec<_> = line.unwrap().split_whitespace().collect();
    let name = fields.get(5).copied().unwrap_or_default().to_owned();
    (
        name,
        fields[1].starts_with('r'),
        fields[1][1..].starts_with('w'),
    )
}

const EXTENT: Extent = Extent {
    page: 100,
    frame: Frame::new(2),
    pages: 1,
    writable: true,
};

#[test]
fn the_area_is_the_devices_below_the_shared_pages() {
    let window = window(&deaf());
    for page in [0, 100, SHADOW_PAGES - 1] {
        assert_eq!(mapped(&window, page), ("/memfd:deaf".into(), true, true));
    }
    for page in [SHADOW_PAGES, (1 << 20) - 1, 1 << 20] {
        assert_eq!(mapped(&window, page), (String::new(), false, false));
    }
    assert_eq!(window.count(), 0);
}

#[test]
fn pages_that_cannot_be_hidden_do_not_stay() {
    let mut window = window(&deaf());
    let base = window.base();
    assert_eq!(window.hide(&[]), 0);
    assert_eq!(mapped(&window, 100).0, "/memfd:deaf");
    let pages = [3..4, 100..102];
    assert_eq!(
        window.hide(&pages),
        2,
        "a call that failed and one that did not"
    );
    assert_eq!(window.base(), base);
    for page in [0, 100, 1000, SHADOW_PAGES - 1] {
        assert_eq!(mapped(&window, page), (String::new(), false, false));
    }
    assert_eq!(window.show(EXTENT).unwrap(), 1);
    assert_eq!(
        mapped(&window, 100),
        ("/memfd:guest-ram".into(), true, true)
    );
    assert_eq!(window.count(), 2, "it and the gap after it");
    assert_eq!(window.hide(&pages), 1);
    assert_eq!(mapped(&window, 100), (String::new(), false, false));
}

#[test]
fn a_page_that_the_module_does_not_show_is_mapped() {
    let mut window = window(&deaf());
    assert_eq!(window.show(EXTENT).unwrap(), 0);
    assert_eq!(mapped(&window, 100).0, "/memfd:deaf");
    assert_eq!(window.show(EXTENT).unwrap(), 1);
    assert_eq!(
        mapped(&window, 100),
        ("/memfd:guest-ram".into(), true, true)
    );
    assert_eq!(mapped(&window, 101), (String::new(), false, false));
}

#[test]
fn a_window_shows_slots_until_it_goes_on_without_the_module() {
    let mut window = window(&deaf());
    assert!(window.shows_slots());
    window.hide(std::slice::from_ref(&(0..1)));
    assert!(!window.shows_slots());
}

#[test]
fn windows_are_used_again() {
    let kmod = deaf();
    let all: Vec<_> = (0..abi::WINDOWS).map(|_| kmod.area().unwrap()).collect();
    let error = kmod.area().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    for (count, area) in all.into_iter().enumerate() {
        match count % 2 {
            0 => drop(kmod.discard(area)),
            _ => kmod.put_back(area),
        }
    }
    for _ in 0..3 {
        // What was put back cannot be emptied, and is replaced.
        let all: Vec<_> = (0..abi::WINDOWS).map(|_| kmod.area().unwrap()).collect();
        assert!(kmod.area().is_err());
        all.into_iter().for_each(|area| kmod.put_back(area));
    }
}

#[test]
fn a_window_is_put_back_when_it_is_closed() {
    let kmod = deaf();
    for _ in 0..2 * abi::WINDOWS {
        drop(window(&kmod));
        let mut failed = window(&kmod);
        failed.hide(std::slice::from_ref(&(0..1)));
    }
}

#[test]
fn tables_that_are_refused_cost_no_window() {
    let kmod = deaf();
    let memory = Memory::new(1 << 20).unwrap();
    let tables = UserTables { read: 0, write: 0 };
    for _ in 0..2 * abi::WINDOWS {
        let error = KmodWindow::new(&kmod, &memory, tables).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    }
}
