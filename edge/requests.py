"""What people ask of the device through its page, for `infer` to do: outcomes have one writer of their seqs.

A request is one small file, forced to the disk and renamed into place, and removed once its outcome is committed. It may be done
twice by a crash between the two: the source key is that of the outcome that it takes back, so it makes one outcome.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from edge.contract.types import Code, Seq
from edge.durable import write_durably


class VoidRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome of an epoch is to be taken back. The page knows no person, so nobody is named."""

    epoch: str
    voids: Seq
    reason: Code


class Requests:
    """The folder of requests of one device."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "requests"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def void(self, epoch: str, seq: int, reason: str) -> None:
        """Ask for an outcome to be taken back. Raises OSError if the disk does not take it."""
        request = VoidRequest(epoch=epoch, voids=seq, reason=reason)
        write_durably(self._folder / f"{secrets.token_hex(16)}.json", msgspec.json.encode(request))

    def pending(self) -> list[tuple[Path, VoidRequest | None]]:
        """Return what was asked, oldest first; None for a file that makes no sense."""
        with os.scandir(self._folder) as entries:
            files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.endswith(".json"))
        return [(Path(path), _read(Path(path))) for _, path in files]


def _read(path: Path) -> VoidRequest | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=VoidRequest)
    except (OSError, msgspec.DecodeError):
        return None
