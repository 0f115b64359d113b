"""A few bytes beside the outbox that say which seq was given last, written after each commit and never forced to the disk.

A power cut may lose them, which does no harm: then they say less than the outbox holds. Where they say more, the outbox has
lost commits (its log was removed or damaged, or an old copy was put in its place), and must give no seq a second time.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TEXT = re.compile(rb"([0-9a-f]{32}) ([0-9]{16})\n")


class Seen(NamedTuple):
    """The last seq of an epoch that this device has given."""

    epoch: str
    seq: int


class Witness:
    """Writes the note for one outbox."""

    def __init__(self, outbox: Path) -> None:
        self._file = os.open(_beside(outbox), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, epoch: str, seq: int) -> None:
        """Note a committed seq."""
        os.pwrite(self._file, f"{epoch} {seq:016d}\n".encode("ascii"), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_witness(outbox: Path) -> Seen | None:
    """Return what was noted last, or None if nothing was or it cannot be read."""
    try:
        found = _TEXT.fullmatch(_beside(outbox).read_bytes())
    except OSError:
        return None
    return None if found is None else Seen(found[1].decode(), int(found[2]))


def _beside(outbox: Path) -> Path:
    return outbox.with_name("outbox.seq")
