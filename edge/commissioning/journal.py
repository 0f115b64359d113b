"""The journal of silent commissioning: one event a line, JSON, forced to the disk before anyone is told. `infer` alone writes it.

A line that a crash has cut off was acknowledged to nobody: readers leave it out, and the writer removes it. A line that makes no
sense is damage, and nobody may be shown an answer because of what is left of a damaged journal.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edge.commissioning.standing import Event, Standing, standing
from edge.contract.errors import UNREADABLE
from edge.durable import fsync_folder
from edge.errors import JournalDamaged

_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def journal_path(state: Path) -> Path:
    """Return where the journal of a device is."""
    return state / "commissioning.jsonl"


def read_events(path: Path) -> list[Event]:
    """Return what has happened; nothing where there is no journal yet.

    Raises:
        JournalDamaged: if a whole line makes no sense.
        OSError: if it cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Event], int]:
    """Return the events, and where the last of them ends in the file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    end = _acknowledged(content)
    try:
        return [_EVENT.decode(line) for line in content[:end].splitlines()], end
    except UNREADABLE as error:
        raise JournalDamaged(
            f"The journal {path} is damaged ({error}). `cxr-edge run` puts it aside, and no answer is shown until a new release."
        ) from None


def _acknowledged(content: bytes) -> int:
    """Return where the last line ends that somebody may have been told of.

    A power cut can leave the end of a line and not its beginning, which then reads as zeros: disks write sectors in any order.
    """
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    return last if b"\0" in content[last:end] else end


class Journal:
    """The journal, open for writing. Only one process may have it so."""

    def __init__(self, path: Path) -> None:
        """Open it, making it if it is not there; what a crash has cut off is removed.

        Raises:
            JournalDamaged: if a whole line makes no sense.
            OSError: if the disk fails.
        """
        self.events, self._end = _read(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fsync_folder(path.parent)
        os.ftruncate(self._file, self._end)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def append(self, event: Event) -> None:
        """Add one event; on return it survives a power cut.

        Raises:
            OSError: if the disk does not take it. Nothing has changed then.
        """
        line = msgspec.json.encode(event) + b"\n"
        try:
            # One call: a short write is an error here, and what it left is cut off.
            if os.pwrite(self._file, line, self._end) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(line)
        self.events.append(event)


def put_aside(path: Path) -> Path:
    """Move a damaged journal out of the way; return where it is."""
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.rename(path, target)
    return target


def read_standing(state: Path) -> Standing:
    """Return how a device stands, for all who do not write: silent while there is no journal, or none that makes sense."""
    try:
        return standing(read_events(journal_path(state)))
    except (JournalDamaged, OSError):
        return Standing(damaged=True)
