//! The policies of the threads that serve devices.

use nix::libc;

use super::{
    Call, Policy,
    common::{DESCRIPTORS, PROCESS, RESTORE_TERMINAL, SOCKET_REQUESTS},
    has, is, lacks,
};

/// Metadata of files, by descriptor or by name. Landlock does not restrict these either.
const METADATA: &[Call] = &[
    Call::any(libc::SYS_newfstatat),
    Call::any(libc::SYS_statx),
    Call::any(libc::SYS_fstatfs),
    Call::any(libc::SYS_lseek),
];

/// Data of open files, and its way to stable storage.
const DATA: &[Call] = &[
    Call::any(libc::SYS_preadv),
    Call::any(libc::SYS_pwritev),
    Call::any(libc::SYS_preadv2),
    Call::any(libc::SYS_pwritev2),
    Call::any(libc::SYS_fsync),
    Call::any(libc::SYS_fdatasync),
    Call::any(libc::SYS_fallocate),
    Call::any(libc::SYS_ftruncate),
];

/// The terminal, and disks on block devices: BLKGETSIZE64, BLKSSZGET, BLKDISCARD and BLKZEROOUT.
const BLOCK: &[Call] = &[Call::only(
    libc::SYS_ioctl,
    &[
        RESTORE_TERMINAL[0],
        RESTORE_TERMINAL[1],
        RESTORE_TERMINAL[2],
        RESTORE_TERMINAL[3],
        &[is(1, 0x8008_1272)],
        &[is(1, 0x1268)],
        &[is(1, 0x1277)],
        &[is(1, 0x127f)],
    ],
)];

/// Files of shared directories.
const SHARE: &[Call] = &[
    Call::any(libc::SYS_openat),
    Call::any(libc::SYS_openat2),
    Call::any(libc::SYS_getdents64),
    Call::any(libc::SYS_readlinkat),
    Call::any(libc::SYS_mkdirat),
    // No device nodes, even if this process is root's.
    Call::only(
        libc::SYS_mknodat,
        &[
            &[has(2, libc::S_IFMT, libc::S_IFREG)],
            &[has(2, libc::S_IFMT, libc::S_IFIFO)],
            &[has(2, libc::S_IFMT, libc::S_IFSOCK)],
        ],
    ),
    Call::any(libc::SYS_symlinkat),
    Call::any(libc::SYS_linkat),
    Call::any(libc::SYS_unlinkat),
    Call::any(libc::SYS_renameat),
    Call::any(libc::SYS_renameat2),
    Call::any(libc::SYS_fchmod),
    Call::any(libc::SYS_fchmodat),
    Call::any(libc::SYS_fchown),
    Call::any(libc::SYS_fchownat),
    Call::any(libc::SYS_utimensat),
    Call::any(libc::SYS_statfs),
    Call::any(libc::SYS_syncfs),
    Call::any(libc::SYS_copy_file_range),
    // Records of owners and modes. Landlock does not restrict these either.
    Call::any(libc::SYS_getxattr),
    Call::any(libc::SYS_setxattr),
    Call::any(libc::SYS_removexattr),
    Call::only(libc::SYS_ioctl, &RESTORE_TERMINAL),
];

/// The bits of a socket's type that are not flags.
const SOCKET_TYPE: u32 = 0xf;

/// Sockets for TCP and UDP, no raw ones, and what is done with them.
const SOCKETS: &[Call] = &[
    Call::only(
        libc::SYS_socket,
        &[
            &[
                is(0, libc::AF_INET as u32),
                has(1, SOCKET_TYPE, libc::SOCK_STREAM as u32),
            ],
            &[
                is(0, libc::AF_INET as u32),
                has(1, SOCKET_TYPE, libc::SOCK_DGRAM as u32),
            ],
            &[
                is(0, libc::AF_INET6 as u32),
                has(1, SOCKET_TYPE, libc::SOCK_STREAM as u32),
            ],
            &[
                is(0, libc::AF_INET6 as u32),
                has(1, SOCKET_TYPE, libc::SOCK_DGRAM as u32),
            ],
        ],
    ),
    Call::any(libc::SYS_bind),
    Call::any(libc::SYS_connect),
    Call::any(libc::SYS_accept),
    Call::any(libc::SYS_accept4),
    Call::any(libc::SYS_getsockname),
    Call::any(libc::SYS_getpeername),
    Call::any(libc::SYS_getsockopt),
    Call::any(libc::SYS_setsockopt),
    Call::any(libc::SYS_sendto),
    Call::any(libc::SYS_recvfrom),
    Call::any(libc::SYS_sendmsg),
    Call::any(libc::SYS_recvmsg),
    Call::any(libc::SYS_shutdown),
    Call::any(libc::SYS_epoll_wait),
    Call::any(libc::SYS_epoll_pwait),
    Call::any(libc::SYS_epoll_pwait2),
    Call::any(libc::SYS_epoll_ctl),
    SOCKET_REQUESTS,
];

/// The flags of openat(2) by which a file is written, made or emptied.
const CHANGES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32;

/// Reading the file of resolvers again when it has changed.
const RESOLVERS: &[Call] = &[
    Call::only(libc::SYS_openat, &[&[lacks(2, CHANGES)]]),
    Call::only(libc::SYS_open, &[&[lacks(1, CHANGES)]]),
    Call::any(libc::SYS_stat),
    Call::any(libc::SYS_newfstatat),
    Call::any(libc::SYS_statx),
    Call::any(libc::SYS_lseek),
];

impl Policy {
    /// The thread of a disk: it reads and writes files that are open.
    pub const DISK: Self = Self {
        thread: "virtio-blk",
        allowed: &[PROCESS, DESCRIPTORS, METADATA, DATA, BLOCK],
    };

    /// The thread of a shared directory: it finds, opens and changes files. [`crate::restrict_files`] says which.
    pub const FILES: Self = Self {
        thread: "virtio-fs",
        allowed: &[PROCESS, DESCRIPTORS, METADATA, DATA, SHARE],
    };

    /// The thread of a network card: it has sockets for TCP and UDP, and reads files. [`crate::restrict_files`] leaves it the one
    /// of the host's resolvers; where that is not in force it is to have [`Self::NET_FIXED`].
    pub const NET: Self = Self {
        thread: "net",
        allowed: &[PROCESS, DESCRIPTORS, SOCKETS, RESOLVERS],
    };

    /// The thread of a network card that opens no file, and so stays with the resolvers that the host has had at first.
    pub const NET_FIXED: Self = Self {
        thread: "net",
        allowed: &[PROCESS, DESCRIPTORS, SOCKETS],
    };
}
