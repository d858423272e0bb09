"""A program's standard streams as a console: waits for markers and knows when they came, by a clock of the host."""

import os
import re
import resource
import selectors
import subprocess
import time
from enum import Enum
from pathlib import Path

TAIL = 600
"""Bytes of console shown with a failure."""


class Clock(Enum):
    """A measurement of the time between two markers."""

    WALL = "wall"
    """The duration by the host's monotonic clock."""
    CPU = "cpu"
    """The host's processor time used by the program, all its threads, and those of its children that have ended."""

    def seconds(self, pid: int) -> float:
        """Since some moment for WALL, since the start of the program for CPU."""
        if self is Clock.WALL:
            return time.monotonic()
        # proc(5), /proc/pid/stat: the fields behind the name in parentheses; utime is the 14th of all.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def of_ended(self) -> float:
        """Since some moment for WALL; for CPU that of all this process's children that have ended."""
        if self is Clock.WALL:
            return time.monotonic()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


class Failure(Exception):
    """A machine did not do what it was asked to."""


class Console:
    """Owns a running program."""

    def __init__(self, clock: Clock, command: list[str], environment: dict[str, str] | None = None):
        self._clock = clock
        self.started = time.monotonic() if clock is Clock.WALL else 0.0
        self._program = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=environment,
        )
        self._output = self._program.stdout.fileno()
        self._unread = b""
        self._seen = b""

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_) -> None:
        self._program.kill()
        self._program.wait()
        self._program.stdin.close()
        self._program.stdout.close()

    @property
    def pid(self) -> int:
        return self._program.pid

    def type(self, line: str) -> None:
        """Sends a line."""
        try:
            self._program.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise Failure(self.with_tail(f"ended with no reader for {line!r}")) from None

    def wait_for(self, pattern: bytes, what: str, timeout: float) -> tuple[float, re.Match]:
        """The clock when the output matched, and the match. Output up to there is consumed."""
        deadline = time.monotonic() + timeout
        now = self._clock.seconds(self.pid)
        while not (match := re.search(pattern, self._unread, re.DOTALL)):
            now = self._read(deadline, what)
        self._unread = self._unread[match.end() :]
        return now, match

    def _read(self, deadline: float, what: str) -> float:
        """Waits for more output and returns the clock when it came."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise Failure(self.with_tail(f"no {what} in time"))
        now = self._clock.seconds(self.pid)
        chunk = os.read(self._output, 1 << 16)
        if not chunk:
            raise Failure(self.with_tail(f"ended with status {self._program.wait()} before {what}"))
        self._unread += chunk
        self._seen = (self._seen + chunk)[-TAIL:]
        return now

    def with_tail(self, message: str) -> str:
        """The message with the end of what the console showed."""
        tail = self._seen.decode(errors="replace").replace("\r", "").strip()
        return message + "".join(f"\n    | {line}" for line in tail.splitlines())
