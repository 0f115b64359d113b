"""What the clinic's own page may show of a picture and nobody else may know: the patient's name, and where the heat lies.

One small file for each intake, beside the outbox and not in it: no row of it names a patient, but for the name that the sender
gave the file. They are not forced to the disk; without one the page shows the study with neither name nor heat.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edge.contract.errors import UNREADABLE
from edge.errors import CxrError
from edge.intake.succession import Succession

_ID = frozenset("0123456789abcdef")


class Heat(msgspec.Struct, frozen=True):
    """The map of the likeliest class: rows x columns bytes, 0 where nothing speaks for it, 255 where most does."""

    rows: int
    columns: int
    values: bytes


class LocalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one intake; empty where the file does not say."""

    patient_name: str | None = None
    patient_id: str | None = None
    heat: Heat | None = None
    study: bytes = b""
    """Patient and study as the object names them (`edge.pixels.study_header`), for an answer to a PACS; kept where there is one."""


NOTHING = LocalFacts()


class LocalStore:
    """The folder of these files. `infer` writes and trims, the page reads."""

    def __init__(self, state: Path, *, for_pacs: bool = False) -> None:
        """Args: for_pacs: whether answers go to a PACS; else what only that needs is not kept."""
        self._for_pacs = for_pacs
        self._folder = state / "local"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._order = Succession(self._folder)

    def write(self, intake_id: str, facts: LocalFacts) -> None:
        """Keep the facts of an intake. Raises OSError if the disk does not take them."""
        if not self._for_pacs:
            facts = msgspec.structs.replace(facts, study=b"")
        target = self._path(intake_id)
        part = target.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.msgpack.encode(facts))
        self._order.stamp(part)
        os.rename(part, target)

    def read(self, intake_id: str) -> LocalFacts:
        """Return the facts of an intake; NOTHING if there are none or they are damaged."""
        try:
            return msgspec.msgpack.decode(self._path(intake_id).read_bytes(), type=LocalFacts)
        except (OSError, *UNREADABLE):
            return NOTHING

    def trim(self, keep: int) -> int:
        """Remove the oldest beyond the newest `keep`; return how many went."""
        if len(os.listdir(self._folder)) <= keep:
            return 0  # asked for every few seconds: thousands of files need not be looked at to find that none is too many
        with os.scandir(self._folder) as entries:
            files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries)
        old = files[: max(len(files) - keep, 0)]
        for _, path in old:
            os.unlink(path)
        return len(old)

    def _path(self, intake_id: str) -> Path:
        if not intake_id or not set(intake_id) <= _ID:
            raise CxrError("There is no such study.")
        return self._folder / intake_id
