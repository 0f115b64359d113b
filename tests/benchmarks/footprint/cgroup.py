"""A memory limit of the kernel around some processes: cgroup version 1 or 2, whichever this machine has and lets be used."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_NAMES = {1: ("memory.limit_in_bytes", "memory.oom_control"), 2: ("memory.max", "memory.events")}


@dataclass(frozen=True)
class MemoryGroup:
    """A group that exists. Sizes in bytes."""

    path: Path
    version: int
    made: float
    """When, on the clock of `time.monotonic`, which is that of the kernel's log."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return a command that enters the group and becomes `arguments`."""
        return ["/bin/sh", "-c", f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"', "sh", *arguments]

    def anonymous(self) -> int:
        """Return what its processes hold now and the kernel cannot drop: no page cache, but what lies in tmpfs."""
        wanted = {1: ("total_rss", "total_shmem"), 2: ("anon", "shmem")}[self.version]
        lines = dict(line.split() for line in (self.path / "memory.stat").read_text("ascii").splitlines())
        return sum(int(lines.get(name, 0)) for name in wanted)

    def killed(self) -> int:
        """Return how many of its processes the kernel has ended for want of memory."""
        lines = (self.path / _NAMES[self.version][1]).read_text("ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def victims(self) -> list[int]:
        """Return the process ids of those, as far as the kernel's log is open to this user and still has them."""
        said = re.compile(rf"\d+,\d+,(\d+),.*;oom-kill:.*/{re.escape(self.path.name)},.*,pid=(\d+),")
        found = [match for record in _kernel_log() if (match := said.match(record))]
        return [int(match[2]) for match in found if int(match[1]) / 1e6 > self.made - 1]


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """Make a group below this process's own, and remove it; None where that may not be done.

    Its processes have to be ended before.
    """
    group = _made(limit)
    try:
        yield group
    finally:
        if group is not None:
            _removed(group.path)


def _made(limit: int) -> MemoryGroup | None:
    with contextlib.suppress(OSError):
        parent, version = _own()
        path = parent / f"cxr-footprint-{os.getpid()}"
        path.mkdir()
        try:
            (path / _NAMES[version][0]).write_text(str(limit), "ascii")
        except OSError:  # the controller is not handed down to here
            path.rmdir()
            raise
        if version == 2:
            with contextlib.suppress(OSError):
                (path / "memory.swap.max").write_text("0", "ascii")
        return MemoryGroup(path, version, time.monotonic())
    return None


def _kernel_log() -> list[str]:
    """Return its records, `level,number,microseconds,flags;text` each; none where it may not be read."""
    records: list[str] = []
    with contextlib.suppress(OSError):
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            with contextlib.suppress(BlockingIOError):  # its end
                while True:
                    with contextlib.suppress(BrokenPipeError):  # a record was overwritten meanwhile
                        records.append(os.read(log, 8192).decode("utf-8", "replace"))
        finally:
            os.close(log)
    return records


def _own() -> tuple[Path, int]:
    for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _V1 / path.lstrip("/"), 1
        if number == "0" and (_V2 / "cgroup.controllers").exists():
            return _V2 / path.lstrip("/"), 2
    raise FileNotFoundError("no memory controller")


def _removed(path: Path) -> None:
    for _ in range(100):  # what has ended is still in it for a moment
        with contextlib.suppress(OSError):
            path.rmdir()
            return
        time.sleep(0.05)
