"""A cpio archive in the format the kernel unpacks, "newc" (Linux documentation, "initramfs buffer format")."""

ALIGNMENT = 4


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive of files, each a mode and a content, owned by root; parents must be among them, before their members."""
    members = [_member(number, *item) for number, item in enumerate(files.items(), start=1)]
    return b"".join(members) + _member(0, "TRAILER!!!", (0, b""))


def pad(data: bytes) -> bytes:
    """Data up to where another archive may follow."""
    return data + bytes(-len(data) % ALIGNMENT)


def _member(inode: int, name: str, entry: tuple[int, bytes]) -> bytes:
    mode, content = entry
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return pad(header + path) + pad(content)
