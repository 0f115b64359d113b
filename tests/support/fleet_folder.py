"""An authority in a folder for tests, with a clock that can be set, and what may go wrong while it is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

import broker.fleet.enrolling as enrolling
import edge.durable
from broker.fleet.authority import Authority, Settings
from broker.fleet.enrolling import Options, enrol
from broker.fleet.table import Wanted

T0 = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
SETTINGS = Settings(["centre.example", "192.0.2.7", "2001:db8::1"])


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


def one(authority: Authority, folder: Path, name: str = "clinic-1", **options: object) -> enrolling.Made:
    [made] = enrol(authority, [Wanted(name, "Clinic")], folder, Options(**options))  # type: ignore[arg-type]
    return made


class Killed(BaseException):
    pass


def killed_at_each_write(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """Do `work` again and again, killed at the first, the second ... rename, until it is not; return how often it was killed."""
    right = os.rename
    kills = 0
    while True:
        left = kills

        def rename(source: object, target: object) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            right(source, target)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(edge.durable.os, "rename", rename)
            try:
                work()
                return kills
            except Killed:
                kills += 1


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
