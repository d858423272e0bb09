"""The machines that run the workloads: replex and QEMU TCG boot a guest, the host runs the same busybox itself."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from console import Clock, Console, Failure
from devices import DISK_MIB, SHARE, TAG, Devices

PROMPT = rb"root@replex:~# "
OVER = rb"@@over@@"
BOOT_TIMEOUT = 600.0
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
"""QEMU's server of shared directories, which only root can start."""
CMDLINE = "console=ttyS0,115200 panic=-1 reboot=k acpi=off noisapnp cryptomgr.notests"
"""The kernel command line of QEMU's guest if replex, which knows how fast the time-stamp counter is, does not say another."""


@dataclass(frozen=True)
class Images:
    """The files that a guest boots from."""

    kernel: Path
    initrd: Path
    run: Path
    """An initrd whose init runs `true` and ends the machine, with the drivers of a network."""
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
    def session(self, devices: Devices | None = None) -> Iterator[Session]:
        """A context in which the machine runs."""

    def has_devices(self) -> bool:
        """Whether the machine can have devices."""
        return False


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
    @abstractmethod
    def command_with(self, devices: Devices) -> Iterator[list[str]]:
        """A context in which the program that this returns boots with devices."""

    @abstractmethod
    def run_command(self) -> list[str]:
        """The program that runs `true` in a guest with a network."""

    run_status = 0
    """The exit status of that program if all is well."""

    lacks: str
    """What is missing if it cannot have devices."""

    def run_true(self) -> float:
        """Seconds that the program takes from its start to its end."""
        command = self.run_command()
        started = self._clock.of_ended()
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_TIMEOUT, check=False)
        seconds = self._clock.of_ended() - started
        if ended.returncode != self.run_status:
            tail = (ended.stdout + ended.stderr)[-600:].decode(errors="replace")
            raise Failure(f"status {ended.returncode} of {' '.join(command)}: {tail}")
        return seconds

    @contextmanager
    def session(self, devices: Devices | None = None) -> Iterator[Session]:
        with ExitStack() as stack:
            command = stack.enter_context(self.command_with(devices)) if devices else self.command()
            console = stack.enter_context(Console(self._clock, command))
            at_prompt, _ = console.wait_for(PROMPT, "shell prompt", BOOT_TIMEOUT)
            variables = f"BUSYBOX=/bin/busybox DISK={DISK_MIB} PORT={devices.port if devices else 0}"
            session = Session(console, "/bench/workloads.sh", f"{variables} sh ", self._timeout)
            session.boot_seconds = at_prompt - console.started
            console.type("dmesg -n 1; echo @@'quiet'@@")
            console.wait_for(rb"@@quiet@@", "answer of the shell", self._timeout)
            yield session


OTHER_REPLEX = "other replex"


class Replex(Guest):
    """replex with one of its engines, or its default; or another build of it, to compare with."""

    lacks = "which this build does not have"

    def __init__(
        self,
        program: Path,
        engine: str | None,
        guest: str,
        images: Images,
        clock: Clock,
        timeout: float,
        other: bool = False,
    ):
        name = OTHER_REPLEX if other else "replex"
        super().__init__(f"{name} {engine}" if engine else name, clock, timeout)
        self._program = program
        self._engine = engine
        self._guest = guest
        self._images = images

    def command(self) -> list[str]:
        return self._boot("--kernel", str(self._images.kernel), "--initrd", str(self._images.initrd))

    def _boot(self, *options: str) -> list[str]:
        return [str(self._program), "boot", *self._machine(), "--mem", f"{self._images.memory}M", *options]

    def _machine(self) -> list[str]:
        """The options of each machine."""
        return ["--engine", self._engine] if self._engine else []

    def has_devices(self) -> bool:
        return self._offers("boot", "--volume")

    def _offers(self, command: str, option: str) -> bool:
        """Whether this build has the option."""
        helped = subprocess.run([self._program, command, "--help"], capture_output=True, text=True, check=False)
        return helped.returncode == 0 and option in helped.stdout

    @contextmanager
    def command_with(self, devices: Devices) -> Iterator[list[str]]:
        yield self._boot(
            "--kernel", str(self._images.kernel), "--initrd", str(devices.initrd),
            "--disk", f"{devices.disk},format=raw", "--volume", f"{devices.share}:{SHARE}",
            "--net", "user,host-loopback",
        )  # fmt: skip

    def run_command(self) -> list[str]:
        if self._offers("run", "COMMAND"):
            return [str(self._program), "run", *self._machine(), "--guest", self._guest, "--", "true"]
        return self._boot("--guest", self._guest, "--net", "user", "--exec", "true")


class Qemu(Guest):
    """QEMU's translator, with the command line that replex gave the kernel."""

    lacks = f"which take root and {VIRTIOFSD} (package qemu-system-common)"

    def __init__(self, program: str, cpu: str, images: Images, clock: Clock, timeout: float):
        super().__init__("QEMU TCG", clock, timeout)
        self._program = program
        self._cpu = cpu
        self._images = images
        self.cmdline: str | None = None

    def command(self) -> list[str]:
        return self._boot(self._images.initrd)

    def _boot(self, initrd: Path, *options: str, append: str = "") -> list[str]:
        if self.cmdline is None:
            raise Failure("no kernel command line, because replex did not boot")
        return [
            self._program, "-accel", "tcg", "-cpu", self._cpu, "-m", str(self._images.memory), "-nodefaults", "-no-reboot",
            "-display", "none", "-serial", "stdio",
            "-kernel", str(self._images.kernel), "-initrd", str(initrd), "-append", self.cmdline + append, *options,
        ]  # fmt: skip

    def has_devices(self) -> bool:
        return VIRTIOFSD.exists() and os.geteuid() == 0

    @contextmanager
    def command_with(self, devices: Devices) -> Iterator[list[str]]:
        socket = devices.disk.with_name("virtiofsd")
        server = [VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={devices.share},cache=auto,sandbox=chroot"]
        with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            try:
                deadline = time.monotonic() + BOOT_TIMEOUT
                while not socket.exists():
                    if running.poll() is not None or time.monotonic() > deadline:
                        raise Failure(f"{VIRTIOFSD} does not start")
                    time.sleep(0.01)
                # The guest's memory is the server's, too.
                memory = f"memory-backend-memfd,id=ram,share=on,size={self._images.memory}M"
                yield self._boot(
                    devices.initrd, "-machine", "memory-backend=ram", "-object", memory,
                    "-drive", f"file={devices.disk},if=none,id=disk,format=raw", "-device", "virtio-blk-pci,drive=disk",
                    "-chardev", f"socket,id=share,path={socket}", "-device", f"vhost-user-fs-pci,chardev=share,tag={TAG}",
                    "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
                )  # fmt: skip
            finally:
                running.kill()

    # isa-debug-exit makes 2 * N + 1 of what the guest writes to the port.
    run_status = 1

    def run_command(self) -> list[str]:
        return self._boot(
            self._images.run, "-serial", "null", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
            append=" quiet loglevel=3",
        )  # fmt: skip


class Native(Machine):
    """The guest's busybox on the host, in a temporary folder."""

    name = "native"

    def __init__(self, busybox: Path, files: dict[str, bytes], clock: Clock, timeout: float):
        self._busybox = busybox
        self._clock = clock
        self._files = files
        self._timeout = timeout

    @contextmanager
    def session(self, devices: Devices | None = None) -> Iterator[Session]:
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
    """Whether the host runs such programs. Some kernels are built without those of i386."""
    with tempfile.TemporaryDirectory(prefix="replex-bench-") as folder:
        copy = Path(shutil.copy(busybox, folder))
        copy.chmod(0o755)
        try:
            return subprocess.run([copy, "true"], check=False).returncode == 0
        except OSError:
            return False


def qemu_version(program: str) -> str:
    """The version of QEMU's program, or a request to install it."""
    if shutil.which(program) is None:
        raise Failure(f"{program} is not installed: apt-get install qemu-system-x86, or leave it out with --no-qemu")
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\S+)(?: \(([^)]*)\))?", output)
    if match is None:
        raise Failure(f"{program} does not tell its version")
    return match[2] or match[1]
