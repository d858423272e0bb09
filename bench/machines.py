"""The machines that run the workloads: replex and QEMU TCG boot a guest, the host runs the same busybox itself."""

import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from console import Clock, Console, Failure

PROMPT = rb"root@replex:~# "
OVER = rb"@@over@@"
BOOT_TIMEOUT = 600.0
QEMU_PROGRAM = "qemu-system-i386"
QEMU_CPU = "n270,+pse"
"""The nearest to replex's default processor, an Atom of the Bonnell family with 4 MiB pages: Linux does the same on it."""


@dataclass(frozen=True)
class Images:
    """The files that a guest boots from."""

    kernel: Path
    initrd: Path
    memory: int
    """Guest RAM, in MiB."""


class WorkloadFailure(Failure):
    """A workload failed by itself: the machine goes on."""


class Session:
    """A machine that is ready for workloads."""

    def __init__(self, console: Console, script: str, prefix: str, timeout: float):
        self._console = console
        self._command = f"{prefix}{script}"
        self._timeout = timeout
        self.boot_seconds: float | None = None

    def run(self, name: str, size: int) -> tuple[float, str]:
        """Seconds from the first marker of a workload to its shell's answer behind the last, and its result."""
        marker = name.encode()
        # The quotes keep the echo of this line from looking like the marker.
        self._console.type(f"{self._command} {name} {size}; echo @@'over'@@")
        begin, _ = self._wait_for(rb"@@begin %s@@" % marker, f"begin of {name}")
        _, match = self._wait_for(rb"@@end %s (\d+) (.*?)@@" % marker, f"end of {name}")
        # Only now has the shell waited for the script, and the host knows what its processes have used.
        end, _ = self._wait_for(OVER, f"answer of the shell after {name}")
        status, result = int(match[1]), match[2].decode(errors="replace").strip()
        if status:
            raise WorkloadFailure(self._console.with_tail(f"status {status}"))
        return end - begin, result

    def _wait_for(self, marker: bytes, what: str) -> tuple[float, re.Match]:
        """As the console does it, but the end of the script ends the wait too."""
        when, match = self._console.wait_for(rb"%s|%s" % (marker, OVER), what, self._timeout)
        if marker != OVER and match[0] == OVER:
            raise Failure(self._console.with_tail(f"no {what}"))
        return when, match

    def resident_beyond_ram(self, ram: int) -> float:
        """MiB of memory of the program that are resident and not the guest's RAM of `ram` MiB.

        Proportional set sizes of all mappings but those as large as the RAM, which hold it. What is mapped twice counts
        once.
        """
        total = 0
        size = 0
        for line in Path(f"/proc/{self._console.pid}/smaps").read_text().splitlines():
            field = line.split()
            if field[0] == "Size:":
                size = int(field[1])
            elif field[0] == "Pss:" and size < ram << 10:
                total += int(field[1])
        return total / 1024


class Machine(ABC):
    """A machine that runs workloads.sh."""

    name: str

    @abstractmethod
    def session(self) -> Iterator[Session]:
        """A context in which the machine runs."""


class Guest(Machine):
    """A machine that boots the guest."""

    def __init__(self, name: str, clock: Clock, timeout: float):
        self.name = name
        self._clock = clock
        self._timeout = timeout

    @abstractmethod
    def command(self) -> list[str]:
        """The program that boots."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Console(self._clock, self.command()) as console:
            at_prompt, _ = console.wait_for(PROMPT, "shell prompt", BOOT_TIMEOUT)
            session = Session(console, "/bench/workloads.sh", "BUSYBOX=/bin/busybox sh ", self._timeout)
            session.boot_seconds = at_prompt - console.started
            console.type("dmesg -n 1; echo @@'quiet'@@")
            console.wait_for(rb"@@quiet@@", "answer of the shell", self._timeout)
            yield session


OTHER_REPLEX = "other replex"


class Replex(Guest):
    """replex with one of its engines, or its default; or another build of it, to compare with."""

    def __init__(
        self, program: Path, engine: str | None, images: Images, clock: Clock, timeout: float, other: bool = False
    ):
        name = OTHER_REPLEX if other else "replex"
        super().__init__(f"{name} {engine}" if engine else name, clock, timeout)
        self._program = program
        self._engine = engine
        self._images = images

    def command(self) -> list[str]:
        engine = ["--engine", self._engine] if self._engine else []
        images = self._images
        return [
            str(self._program), "boot", *engine, "--mem", f"{images.memory}M",
            "--kernel", str(images.kernel), "--initrd", str(images.initrd),
        ]  # fmt: skip


class Qemu(Guest):
    """QEMU's translator, with the command line that replex gave the kernel."""

    def __init__(self, cpu: str, images: Images, clock: Clock, timeout: float):
        super().__init__("QEMU TCG", clock, timeout)
        self._cpu = cpu
        self._images = images
        self.cmdline: str | None = None

    def command(self) -> list[str]:
        if self.cmdline is None:
            raise Failure("no kernel command line, because replex did not boot")
        images = self._images
        return [
            QEMU_PROGRAM, "-accel", "tcg", "-cpu", self._cpu, "-m", str(images.memory), "-nodefaults", "-no-reboot",
            "-display", "none", "-serial", "stdio",
            "-kernel", str(images.kernel), "-initrd", str(images.initrd), "-append", self.cmdline,
        ]  # fmt: skip


class Native(Machine):
    """The guest's busybox on the host, in a temporary folder."""

    name = "native"

    def __init__(self, busybox: Path, files: dict[str, bytes], clock: Clock, timeout: float):
        self._busybox = busybox
        self._clock = clock
        self._files = files
        self._timeout = timeout

    @contextmanager
    def session(self) -> Iterator[Session]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replex-bench-")))
            busybox = folder / "busybox"
            shutil.copy(self._busybox, busybox)
            busybox.chmod(0o755)
            (folder / "true").symlink_to("busybox")
            for name, content in self._files.items():
                (folder / name).write_bytes(content)
            environment = {"PATH": str(folder), "BUSYBOX": str(busybox), "HOME": str(folder)}
            console = stack.enter_context(Console(self._clock, [str(busybox), "sh"], environment))
            yield Session(console, str(folder / "workloads.sh"), f"{busybox} sh ", self._timeout)


def runs_natively(busybox: Path) -> bool:
    """Whether the host runs i386 programs. Some kernels are built without."""
    with tempfile.TemporaryDirectory(prefix="replex-bench-") as folder:
        copy = Path(shutil.copy(busybox, folder))
        copy.chmod(0o755)
        try:
            return subprocess.run([copy, "true"], check=False).returncode == 0
        except OSError:
            return False


def qemu_version() -> str:
    """QEMU's version, or a request to install it."""
    if shutil.which(QEMU_PROGRAM) is None:
        raise Failure(f"{QEMU_PROGRAM} is not installed: apt-get install qemu-system-x86, or leave it out with --no-qemu")
    output = subprocess.run([QEMU_PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\S+)(?: \(([^)]*)\))?", output)
    if match is None:
        raise Failure(f"{QEMU_PROGRAM} does not tell its version")
    return match[2] or match[1]
