"""The host's side of a guest's devices: an image for the disk, a directory to share, a server for the network."""

import io
import random
import shutil
import socket
import socketserver
import subprocess
import tarfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator

from arch import Arch
from console import Failure

HERE = Path(__file__).resolve().parent
DISK_MIB = 256
"""The part of the disk that is read; as much behind it is written."""
TREE_FOLDERS, TREE_FILES = 100, 2000
DRIVERS = ["virtio_pci", "virtio_blk", "virtio_net", "virtiofs"]
TAG = "volume0"
"""By which the guest mounts the directory: replex's name for the first one."""
SHARE = "/share"
"""Where the guest has it."""
MEMORY = "/dev/shm"
"""Where the directory is on the host: in memory, as ext4 takes up to 1 ms to make a file soon after others were deleted."""
MOUNT = f"mkdir -p {SHARE} && mount -t virtiofs {TAG} {SHARE}"
PIECE = 1 << 20


@dataclass(frozen=True)
class Devices:
    """The host's ends of one guest's devices."""

    initrd: Path
    """That of a guest without devices, with drivers and tools."""
    disk: Path
    """A raw image."""
    share: Path
    """A directory, empty at the start."""
    port: int
    """Of this host's loopback, where the server listens."""


class Fixture:
    """Makes devices, alike for each guest."""

    def __init__(self, initrd: Path, scratch: Path):
        self._initrd = initrd
        self._scratch = scratch
        self._master = scratch / "disk.master"
        content = random.Random(13)
        with self._master.open("wb") as file:
            for _ in range(DISK_MIB):
                file.write(content.randbytes(1 << 20))
            file.truncate(2 * DISK_MIB << 20)

    @contextmanager
    def devices(self) -> Iterator[Devices]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=self._scratch)))
            disk = Path(shutil.copy(self._master, folder / "disk"))
            share = Path(stack.enter_context(TemporaryDirectory(dir=MEMORY)))
            server = stack.enter_context(_Server(("127.0.0.1", 0), _Connection))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            yield Devices(self._initrd, disk, share, server.server_address[1])


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _Connection(socketserver.BaseRequestHandler):
    """Answers a line with the number of MiB that it asks for; after a 0, with the number of bytes that follow."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        buffer = bytearray(PIECE)
        received = connection.recv(64)
        while b"\n" not in received:
            received += connection.recv(64)
        line, _, rest = received.partition(b"\n")
        for _ in range(int(line)):
            connection.sendall(buffer)
        if int(line) == 0:
            total = len(rest)
            while count := connection.recv_into(buffer):
                total += count
            connection.sendall(b"%d\n" % total)


def probe(arch: Arch, folder: Path) -> bytes:
    """The program of probe.c."""
    program = folder / "probe"
    options = "-O2 -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector".split()
    try:
        subprocess.run(["cc", *arch.compiler, *options, "-o", program, HERE / "probe.c"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"probe.c does not compile, which the workloads of devices need: {error}") from None
    return program.read_bytes()


def tree() -> tuple[bytes, bytes]:
    """A list of many small files in some folders, and a tar archive with them."""
    content = random.Random(13)
    names = [f"tree/{number % TREE_FOLDERS:02}/file{number}" for number in range(TREE_FILES)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ["tree", *(f"tree/{folder:02}" for folder in range(TREE_FOLDERS))]:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in names:
            file = tarfile.TarInfo(name)
            file.size = content.randrange(1, 8192)
            tar.addfile(file, io.BytesIO(content.randbytes(file.size)))
    return "".join(f"{name}\n" for name in sorted(names)).encode(), archive.getvalue()


def modules(archive: Path) -> dict[str, bytes]:
    """The drivers and what they need, out of a guest's archive in replex's cache, by file name as init inserts them."""
    with tarfile.open(archive) as tar:
        files = {Path(member.name).stem: tar.extractfile(member).read() for member in tar}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        module = files.get(name)
        if module is None or name in ordered:
            return
        # Each says in its section .modinfo what it needs.
        _, _, value = module.partition(b"\0depends=")
        for needed in value.split(b"\0", 1)[0].decode().split(","):
            add(needed)
        ordered[name] = module

    for driver in DRIVERS:
        add(driver)
    return {f"{number:04}-{name}.ko": module for number, (name, module) in enumerate(ordered.items())}
