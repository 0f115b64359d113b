"""What a long proof has found so far, and how long each of its steps took."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """What came out; seconds of each step beside it."""

    figures: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step, and say that it begins and what it took."""
        sys.stdout.write(f"{name} ... ")
        sys.stdout.flush()
        began = time.monotonic()
        yield
        self.steps[name] = round(time.monotonic() - began, 1)
        sys.stdout.write(f"{self.steps[name]} s\n")
        sys.stdout.flush()
