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

    def describe(self, quick: bool) -> str:
        return self.title.format(f"{self.size_for(quick):,}".replace(",", " "))

    def size_for(self, quick: bool) -> int:
        return self.quick if quick else self.size


BOOT = "boot"
"""Not a workload of the script: from the start of the program to the shell's prompt."""

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
]
