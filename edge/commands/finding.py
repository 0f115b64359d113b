"""What `cxr-edge check` says of one thing that it has looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fatal`: the device cannot work; otherwise it works with a handicap."""

    subject: str
    ok: bool
    text: str
    fatal: bool = True
