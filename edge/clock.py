"""What the device knows of time. Nothing waits for it: a Raspberry Pi boots without a clock."""

from __future__ import annotations

import ctypes
import datetime
import functools
import time
from dataclasses import dataclass
from pathlib import Path

_TIME_ERROR = 5
"""adjtimex(2) returns this while the kernel clock is not synchronised."""


@dataclass(frozen=True)
class Reading:
    """One look at the clocks. `monotonic_ns` counts nanoseconds since the boot that `boot_id` names, sleep included."""

    boot_id: str
    monotonic_ns: int
    wall: str
    synchronised: bool


def read_clock() -> Reading:
    """Return the present reading; `wall` is UTC as 2026-01-31T12:00:00.123456Z."""
    return Reading(boot_id(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), wall_clock(), synchronised())


def wall_clock() -> str:
    """Return the wall clock in UTC, right or wrong."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat() + "Z"


def local_time(utc: str) -> datetime.datetime | None:
    """Return a moment of the wire (2026-01-31T12:00:00.123456Z) in the clinic's own time; None if it is none, as 31 February."""
    try:
        return datetime.datetime.fromisoformat(utc.rstrip("Z")).replace(tzinfo=datetime.timezone.utc).astimezone()
    except (ValueError, OverflowError):  # the latter: the first day of the year 1, west of Greenwich
        return None


@functools.cache
def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def synchronised() -> bool:
    """Return whether the kernel says that a time source disciplines the clock."""
    call, buffer = _adjtimex()
    ctypes.memset(buffer, 0, len(buffer))  # modes = 0: only ask
    state = int(call(buffer))
    return 0 <= state != _TIME_ERROR


@functools.cache
def _adjtimex() -> tuple[ctypes._NamedFuncPointer, ctypes.Array[ctypes.c_char]]:
    # struct timex is 208 bytes on 64-bit Linux and less on 32-bit; only its first field is written here.
    return ctypes.CDLL(None, use_errno=True).adjtimex, ctypes.create_string_buffer(512)
