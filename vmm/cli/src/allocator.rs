//! How the allocator of the C library is set up.

#[cfg(target_env = "gnu")]
use nix::libc;

/// The size in bytes from which an allocation is a mapping of its own, which goes back to the host as soon as it is freed.
///
/// Without a fixed size, glibc takes the largest block freed so far, such as an unpacked kernel; then what a growing table leaves
/// behind stays in the heap, some megabytes of each machine.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 1 << 20;

/// Has large blocks given back to the host. To be called before there are other threads.
#[cfg(target_env = "gnu")]
pub fn set_up() {
    // SAFETY: mallopt(3) takes any values, and changes only where blocks are allocated from now on.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
}

/// Other C libraries have nothing to set up.
#[cfg(not(target_env = "gnu"))]
pub fn set_up() {}
