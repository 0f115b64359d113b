"""Storage commitment: what was asked, kept until it is answered, and what may be answered.

Committed means here: the device holds the object or has recorded its outcome. The device is no archive, and what it has
answered it may remove for room.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.contract.errors import UNREADABLE
from edge.dicom.arrival import spool_name
from edge.durable import write_durably
from edge.intake.spool import Spool
from edge.outbox.reader import OutboxReader

log = logging.getLogger(__name__)

_MOST_REQUESTS = 1000


class Instance(msgspec.Struct, frozen=True):
    """One object that a machine asks about."""

    sop_class: str
    sop_instance: str


class Request(msgspec.Struct, frozen=True):
    """One request that is not answered yet. `waited_s`: how long, while this process ran; `tried`: how often in vain."""

    transaction: str
    ae_title: str
    address: str
    instances: list[Instance]
    waited_s: float = 0.0
    tried: int = 0

    @property
    def name(self) -> str:
        """The name of its file, which shows nothing of it. A machine that asks again with one transaction asks once."""
        return hashlib.sha256(f"{self.ae_title}\0{self.address}\0{self.transaction}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Verdict:
    """What is committed, and what this device does not know."""

    committed: list[Instance]
    unknown: list[Instance]


class Requests:
    """Requests in a folder of their own: one small file each, so that they outlive the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, request: Request) -> None:
        """Force a request to the disk; a known one is replaced.

        Raises:
            OSError: if the disk does not take it, or if too many wait.
        """
        path = self._folder / request.name
        if not path.exists() and len(os.listdir(self._folder)) >= _MOST_REQUESTS:
            raise OSError(28, f"{_MOST_REQUESTS} requests of storage commitment wait already")
        write_durably(path, msgspec.json.encode(request))

    def forget(self, request: Request) -> None:
        """Remove a request that needs no answer any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / request.name)

    def waiting(self) -> list[Request]:
        """Return all requests; a file that is none is removed."""
        found = []
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".part":  # its machine was not told that it was kept
                path.unlink()
                continue
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Request))
            except UNREADABLE:
                log.warning("a request of storage commitment is damaged and was removed; its machine has to ask again")
                path.unlink()
        return found


class Judge:
    """Tells what this device has of the objects that a machine asks about."""

    def __init__(self, spool: Spool, outbox: Path, device: str) -> None:
        self._spool = spool
        self._outbox = outbox
        self._device = device

    def judge(self, request: Request) -> Verdict:
        """Return what is in the spool or has an outcome.

        Raises:
            OutboxError: if the outbox cannot be read.
        """
        # In this order: an object leaves the spool only once its outcome is recorded.
        held = self._spool.names_waiting() | self._recorded()
        committed = [instance for instance in request.instances if spool_name(instance.sop_instance) in held]
        unknown = [instance for instance in request.instances if spool_name(instance.sop_instance) not in held]
        return Verdict(committed, unknown)

    def _recorded(self) -> set[str]:
        if not self._outbox.exists():
            return set()
        outbox = OutboxReader(self._outbox, self._device)
        try:
            return set(outbox.seq_of_files())
        finally:
            outbox.close()
