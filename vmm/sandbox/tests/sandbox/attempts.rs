//! System calls to attempt, each of which anybody may make without a sandbox.

use std::{
    ffi::{CStr, CString},
    io::{self, Write as _},
    panic, ptr, thread,
};

use nix::{
    errno::Errno,
    libc::{self, c_int, c_long, c_ulong},
};

type Attempt = fn() -> Result<(), Errno>;

/// All attempts, by name.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("socket", || socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("socket-udp6", || socket(libc::AF_INET6, libc::SOCK_DGRAM)),
    ("socket-unix", || socket(libc::AF_UNIX, libc::SOCK_STREAM)),
    ("socket-netlink", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW)
    }),
    ("open", || open(c"/proc/self/status", libc::O_RDONLY)),
    ("open-to-write", || open(c"/dev/null", libc::O_WRONLY)),
    ("execve", execve),
    ("fork", fork),
    ("thread", start_thread),
    ("kill", || {
        call(libc::SYS_kill, [own_process(), 0, 0, 0, 0, 0])
    }),
    ("tgkill", || {
        let thread = nix::unistd::gettid().as_raw() as c_ulong;
        call(libc::SYS_tgkill, [own_process(), thread, 0, 0, 0, 0])
    }),
    ("ptrace", ptrace),
    ("memfd", || {
        call(
            libc::SYS_memfd_create,
            [c"x".as_ptr().expose_provenance() as c_ulong, 0, 0, 0, 0, 0],
        )
    }),
    ("map", || map(libc::PROT_READ | libc::PROT_WRITE)),
    ("map-executable", || map(libc::PROT_READ | libc::PROT_EXEC)),
    ("protect-executable", protect_executable),
    ("make-pipe-node", || mknod(libc::S_IFIFO)),
    ("type-on-terminal", || ioctl(libc::TIOCSTI)),
    ("allocate", allocate),
    ("panic", panic_with_backtrace),
    ("sleep", sleep),
];

/// Finds an attempt.
pub fn find(name: &str) -> Attempt {
    let found = ATTEMPTS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no attempt {name}")).1
}

fn call(number: c_long, arguments: [c_ulong; 6]) -> Result<(), Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass arguments by which the kernel changes no memory that is in use.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Errno::result(result).map(drop)
}

fn own_process() -> c_ulong {
    std::process::id().into()
}

fn socket(domain: c_int, kind: c_int) -> Result<(), Errno> {
    call(
        libc::SYS_socket,
        [domain as c_ulong, kind as c_ulong, 0, 0, 0, 0],
    )
}

fn open(path: &CStr, flags: c_int) -> Result<(), Errno> {
    let path = path.as_ptr().expose_provenance() as c_ulong;
    call(
        libc::SYS_openat,
        [libc::AT_FDCWD as c_ulong, path, flags as c_ulong, 0, 0, 0],
    )
}

fn execve() -> Result<(), Errno> {
    // The sandbox decides before the kernel looks for the program; without one, this says that it was asked.
    match call(libc::SYS_execve, [0, 0, 0, 0, 0, 0]) {
        Err(Errno::EFAULT) => Ok(()),
        result => result,
    }
}

fn ptrace() -> Result<(), Errno> {
    // There is no process 0 to attach to.
    match call(
        libc::SYS_ptrace,
        [c_ulong::from(libc::PTRACE_ATTACH), 0, 0, 0, 0, 0],
    ) {
        Err(Errno::ESRCH) => Ok(()),
        result => result,
    }
}

fn fork() -> Result<(), Errno> {
    // SAFETY: the child ends at once, by a call that runs nothing of this process.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            child => Errno::result(child).map(drop),
        }
    }
}

fn start_thread() -> Result<(), Errno> {
    let thread = thread::Builder::new().spawn(|| ());
    let error = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    thread.map(|thread| drop(thread.join())).map_err(error)
}

fn map(protection: c_int) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    call(
        libc::SYS_mmap,
        [
            0,
            4096,
            protection as c_ulong,
            flags as c_ulong,
            c_ulong::MAX,
            0,
        ],
    )
}

fn protect_executable() -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the host's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0) };
    let page = page.expose_provenance() as c_ulong;
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    call(
        libc::SYS_mprotect,
        [page, 4096, protection as c_ulong, 0, 0, 0],
    )
}

fn mknod(kind: libc::mode_t) -> Result<(), Errno> {
    let dir = std::env::temp_dir().join(format!("replex-sandbox-{}", std::process::id()));
    let path = CString::new(dir.to_str().unwrap()).unwrap();
    let address = path.as_ptr().expose_provenance() as c_ulong;
    let mode = c_ulong::from(kind | 0o600);
    let result = call(
        libc::SYS_mknodat,
        [libc::AT_FDCWD as c_ulong, address, mode, 0, 0, 0],
    );
    if result.is_ok() {
        call(
            libc::SYS_unlinkat,
            [libc::AT_FDCWD as c_ulong, address, 0, 0, 0, 0],
        )?;
    }
    result
}

/// The request on a descriptor that is not open: the sandbox decides before the kernel looks.
fn ioctl(request: c_ulong) -> Result<(), Errno> {
    match call(libc::SYS_ioctl, [99_999, request, 0, 0, 0, 0]) {
        Err(Errno::EBADF) => Ok(()),
        result => result,
    }
}

/// More than the allocator has ready, in pieces of all sizes, grown and given back.
fn allocate() -> Result<(), Errno> {
    let mut pieces: Vec<Vec<u8>> = (0..22).map(|shift| vec![1; 1 << shift]).collect();
    for piece in &mut pieces {
        piece.resize(3 * piece.len(), 2);
    }
    drop(pieces);
    io::stderr().flush().map_err(|_| Errno::EIO)
}

/// A panic whose hook names the functions of the stack, for which it would open files.
fn panic_with_backtrace() -> Result<(), Errno> {
    let panicked = panic::catch_unwind(|| panic!("a panic of the test's"));
    assert!(panicked.is_err());
    Ok(())
}

fn sleep() -> Result<(), Errno> {
    thread::sleep(std::time::Duration::from_millis(1));
    Ok(())
}
