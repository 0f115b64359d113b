"""How far the PACS has been told, on the disk before the next outcome is begun: a kill at any moment repeats one and loses none."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import msgspec

from edge.contract.errors import UNREADABLE
from edge.durable import write_durably
from edge.outbox.reader import OutboxReader

log = logging.getLogger(__name__)


class PutOff(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome over which the PACS broke off: it is tried again, and those behind it go on.

    objects: how many the PACS does not have. trials: how often it has failed though the PACS was well.
    """

    epoch: str
    seq: int
    objects: int
    trials: int = 0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the work stands.

    through: epoch -> the last seq that is done with, or put off. trials: how often the next outcome has failed though the PACS was
    there. dropped: which of its kinds are given up. put_off: tried longest ago first. refused: objects that the PACS did not take.
    gone: outcomes that were removed for room before they could be sent.
    """

    through: dict[str, int] = {}
    trials: int = 0
    dropped: tuple[str, ...] = ()
    put_off: tuple[PutOff, ...] = ()
    refused: int = 0
    gone: int = 0


def begin(state: Path, outbox: OutboxReader) -> None:
    """Let the PACS be told of what is recorded from now on; does nothing where that was said before.

    `infer` says it before it records anything, so that nothing falls between its start and that of the process that sends.
    """
    if _path(state).exists():
        return
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two processes may begin at once; the first word counts
        if not _path(state).exists():
            keep_place(state, Place(through={stream.epoch: stream.last_seq for stream in outbox.streams()}))
    finally:
        os.close(folder)


def read_place(state: Path) -> Place | None:
    """Return where the work stands, None if it has not begun. Where that cannot be read, all that is still there is told again."""
    try:
        return msgspec.json.decode(_path(state).read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except UNREADABLE:
        log.error("How far the PACS has been told cannot be read; it is told again of everything that is still here.")
        return Place()


def keep_place(state: Path, place: Place) -> None:
    """Force where the work stands to the disk. Raises OSError if the disk does not take it."""
    write_durably(_path(state), msgspec.json.encode(place))


def _path(state: Path) -> Path:
    return state / "pacs.json"
