"""The workloads of workloads.sh, with their sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    """As workloads.sh and --only know it."""
    title: str
    """For the table, with {} for the size."""
    size: int
    """In the workload's own unit."""
    quick: int
    """The size with --quick."""
    devices: bool = False
    """Whether it needs a guest with a disk, a shared directory and a network."""

    def describe(self, quick: bool) -> str:
        return self.title.format(f"{self.size_for(quick):,}".replace(",", " "))

    def size_for(self, quick: bool) -> int:
        return self.quick if quick else self.size


BOOT = "boot"
"""Not a workload of the script: from the start of the program to the shell's prompt."""
RUN = "run"
"""Not a workload of the script: from the start of a program that runs `true` in a guest with a network, to its end."""

WORKLOADS = [
    Workload("sha256", "sha256sum of {} MiB", 64, 16),
    Workload("awk", "awk floating-point loop, {} rounds", 3_000_000, 300_000),
    Workload("gzip", "{} × gzip -9 of 2 MiB", 8, 1),
    Workload("sort", "shell loop and sort of {} lines", 20_000, 5_000),
    Workload("exec", "{} × fork, exec and exit", 500, 100),
    Workload("subshell", "{} × subshell", 1_000, 200),
    Workload("syscalls", "{} × read and write of 1 byte", 1_000_000, 100_000),
    Workload("pipe", "{} × 512 bytes through a pipe", 100_000, 10_000),
    Workload("memory", "memory walk: {} × bunzip2 of 2 MiB", 4, 1),
    Workload("faults", "page faults: {} × process touching 16 MiB", 50, 10),
    Workload("disk-read", "sequential read of {} MiB from a disk", 256, 64, devices=True),
    Workload("disk-write", "sequential write of {} MiB to a disk, and fsync", 256, 64, devices=True),
    Workload("random-read", "{} random reads of 4 KiB from a disk", 10_000, 1_000, devices=True),
    Workload("random-write", "{} random writes of 4 KiB to a disk, and fsync", 10_000, 1_000, devices=True),
    Workload("untar", "untar of 2 000 files into a shared directory", 2_000, 2_000, devices=True),
    Workload("walk", "{} × status of a shared directory with 2 000 files", 10, 2, devices=True),
    Workload("download", "download of {} MiB by TCP", 256, 64, devices=True),
    Workload("upload", "upload of {} MiB by TCP", 256, 64, devices=True),
]
