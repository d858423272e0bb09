"""Medians and ratios as a Markdown table, below the machine and the versions."""

import os
import platform
import random
import subprocess
from datetime import date
from pathlib import Path
from statistics import median

from console import Clock
from machines import OTHER_REPLEX


class Results:
    """The measurements: a list of figures, one a round, for each row and machine; failures beside them."""

    def __init__(self):
        self._figures: dict[tuple[str, str], list[float]] = {}
        self._failed: set[tuple[str, str]] = set()
        self._checks: dict[str, tuple[str, str]] = {}
        self.failures: list[str] = []

    def add(self, row: str, machine: str, figure: float) -> None:
        self._figures.setdefault((row, machine), []).append(figure)

    def fail(self, row: str, machine: str, message: str) -> None:
        self._failed.add((row, machine))
        self.failures.append(f"{machine}, {row}: {message}")

    def check(self, row: str, machine: str, result: str) -> bool:
        """Whether a workload's result is that of all machines so far."""
        first, expected = self._checks.setdefault(row, (machine, result))
        if result != expected:
            # Nobody can say which of the two is wrong.
            self.fail(row, machine, f"result {result!r}, but {expected!r} on {first}")
            self._failed.add((row, first))
        return result == expected

    def median(self, row: str, machine: str) -> float | None:
        """None if there is no figure or if any round failed."""
        figures = self._figures.get((row, machine))
        return median(figures) if figures and (row, machine) not in self._failed else None

    def interval(self, row: str, machine: str, other: str) -> tuple[float, float]:
        """The 95 % interval of the ratio of the other's median to the machine's, by the bootstrap over rounds."""
        mine, theirs = self._figures[row, machine], self._figures[row, other]
        generator = random.Random(0)  # The same table for the same figures.

        def resampled(figures: list[float]) -> float:
            return median(generator.choices(figures, k=len(figures)))

        ratios = sorted(resampled(theirs) / resampled(mine) for _ in range(2000))
        return ratios[50], ratios[-51]

    def failed(self, row: str, machine: str) -> bool:
        return (row, machine) in self._failed


def table(results: Results, rows: list[tuple[str, str]], machines: list[str], replexes: list[str]) -> str:
    """The table of all rows, given by name and title. `replexes` are the machines to compare with the others."""
    baselines = [name for name in machines if name not in replexes]
    heads = ["work"] + machines + [_ratio_head(ours, other, replexes) for ours in replexes for other in baselines]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for row, title in rows:
        cells = [_cell(results, row, machine) for machine in machines]
        ratios = [_ratio(results, row, ours, other) for ours in replexes for other in baselines]
        lines.append([title] + cells + ratios)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _ratio_head(ours: str, other: str, replexes: list[str]) -> str:
    subject = f"{ours}: " if len(replexes) > 1 else ""
    heads = {"native": "× native's time", OTHER_REPLEX: "× the other replex's speed"}
    return subject + heads.get(other, "× QEMU's speed")


def _cell(results: Results, row: str, machine: str) -> str:
    figure = results.median(row, machine)
    if figure is None:
        return "failed" if results.failed(row, machine) else "–"
    return f"{figure:.1f} MiB" if row.startswith("resident") else f"{figure:.3f} s"


def _ratio(results: Results, row: str, ours: str, other: str) -> str:
    mine, theirs = results.median(row, ours), results.median(row, other)
    if not mine or not theirs or row.startswith("resident"):
        return "–"
    if other == "native":
        return f"{mine / theirs:.1f}"
    ratio = f"{theirs / mine:.2f}"
    if other != OTHER_REPLEX:
        return ratio
    low, high = results.interval(row, ours, other)
    return f"{ratio} ({low:.2f} to {high:.2f})"


def head(quick: bool, rounds: int, clock: Clock, versions: dict[str, str]) -> str:
    """Returns the head of the report: host, date, versions and options."""
    what = "time" if clock is Clock.WALL else "**processor time**"
    lines = [
        f"Medians of the {what} of {rounds} round{'s' if rounds > 1 else ''}, {date.today().isoformat()}"
        + (", **quick sizes: not the real workloads**" if quick else "")
        + ".",
        "",
        f"* host: {_processor()}, {os.cpu_count()} cores, {_memory_gib()} GiB, Linux {platform.release()},"
        f" load average {os.getloadavg()[0]:.1f} at the start",
    ]
    return "\n".join(lines + [f"* {name}: {version}" for name, version in versions.items()])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    return f"{values.get('model name', '?')} (family {values.get('cpu family', '?')}, model {values.get('model', '?')})"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))


def replex_version(program: Path, top: Path | None) -> str:
    """The program's version, and the commit of the tree if it was built from that."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if top is None:
        return version
    git = ["git", "-C", str(top), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{version}, commit {commit}" if commit else version
