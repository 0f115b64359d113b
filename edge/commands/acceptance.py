"""`cxr-edge check --to-the-centre`: one test film the whole way, and where it got stuck. The technician's acceptance test.

It only looks: at the folders of the spool and, for reading, at the outbox. What it did not see is told with what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edge.config import Device
from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Refusal
from edge.delivery.mqtt import try_connection
from edge.errors import CxrError, OutboxError
from edge.infer.specimen import new_uid, write_specimen
from edge.network.manifest import SHIPPED
from edge.outbox.reader import OutboxReader
from edge.privacy.pseudonym import load_site_key
from edge.unattended.lifecycle import is_running

Found = TypeVar("Found")

_LOOK_S = 0.1
_NEWEST = 1000
"""Outcomes among which the film's is looked for: more than a device records while it travels."""
_START = "Start the device (`systemctl start cxr-{name}`, or `cxr-edge run`)."


@dataclass(frozen=True)
class Step:
    """One step of the way: done `seconds` after the film was made, or (`ok` false) not done, with what to do."""

    ok: bool
    seconds: float
    text: str


@dataclass
class Journey:
    """Of one test film. `send` brings a file onto the way and returns under which name it will be known, or raises CxrError."""

    device: Device
    send: Callable[[Path, str], str]
    timeout_s: float
    _began: float = field(default_factory=time.monotonic)

    def steps(self) -> Iterator[Step]:
        """Go the way; the last step says whether the centre's receipt has come."""
        uid = new_uid(load_site_key(Path(self.device.site_key)))
        try:
            with tempfile.TemporaryDirectory(prefix="cxr-check-") as folder:
                film = Path(folder) / "film.dcm"
                write_specimen(film, uid, SHIPPED / "golden" / "clear.pgm")
                name = self.send(film, uid)
        except CxrError as error:
            yield self._step(False, str(error))
            return
        yield self._step(True, "a test film was sent to this device")
        if not self._until(lambda: self._taken(name)):
            yield self._step(False, f"the film lies in the watched folder and is not taken. {self._why_not('watch', 'the folder')}")
            return
        yield self._step(True, "it is in the spool")
        row = self._until(lambda: self._row(name))
        if not row:
            yield self._step(False, f"the film waits in the spool and is not read. {self._why_not('infer', 'its log')}")
            return
        yield self._step(True, f"it was read: {_said(row)}")
        row = self._until(lambda: self._row(name, receipted=True))
        if not row:
            yield self._step(False, f"no receipt of the centre. {self._why_no_receipt()}")
            return
        if quarantined := row.get("quarantined"):
            yield self._step(False, f"the centre has it and keeps it apart ({quarantined}). Its page says why, under quarantine.")
            return
        yield self._step(True, "the centre has it, and its receipt is here")

    def _step(self, ok: bool, text: str) -> Step:
        return Step(ok, time.monotonic() - self._began, text)

    def _until(self, find: Callable[[], Found]) -> Found | None:
        """Return what was found within the time, None if nothing was."""
        while not (found := find()):
            if time.monotonic() - self._began > self.timeout_s:
                return None
            time.sleep(_LOOK_S)
        return found

    def _taken(self, name: str) -> bool:
        return not (Path(self.device.watch.folder) / name).exists()

    def _row(self, name: str, *, receipted: bool = False) -> dict[str, Any]:
        """Return what the outbox holds of the film, empty while it does not, or while there is no receipt."""
        try:
            with contextlib.closing(OutboxReader(Path(self.device.state) / "outbox.db", self.device.device)) as outbox:
                row: dict[str, Any] = next((row for row in outbox.listing(_NEWEST) if row["original_name"] == name), {})
                return row if row.get("receipted") or not receipted else {}
        except OutboxError:
            return {}  # it is only just being made, or not there yet

    def _why_not(self, process: str, look_at: str) -> str:
        if not is_running(Path(self.device.state), process):
            return f"`cxr-edge {process}` does not run. {_START.format(name=process)}"
        return f"`cxr-edge {process}` runs: look at {look_at}, and at what `cxr-edge check` says."

    def _why_no_receipt(self) -> str:
        waits = "The film waits in the outbox and is sent when it can be."
        if not is_running(Path(self.device.state), "relay"):
            return f"{self._why_not('relay', '')} {waits}"
        why = try_connection(self.device.relay, f"{self.device.device}-check")
        if why is not None:
            advice = "Check the network, [relay] url and the certificates of this device."
            return f"{why[:1].upper()}{why[1:].rstrip('.')}. {advice} {waits}"
        return (
            "The broker takes this device's connection, so the centre's aggregator does not answer, or the broker's access rules "
            f"refuse this device's name. Tell the people who run the centre. {waits}"
        )


def into_folder(device: Device) -> Callable[[Path, str], str]:
    """Return what puts a film into the watched folder, as a person would."""

    def send(film: Path, uid: str) -> str:
        name = f"cxr-test-{uid.rpartition('.')[2]}.dcm"
        target = Path(device.watch.folder) / name
        part = target.with_name(f".{name}.part")
        try:
            # Made anew: root may be doing this, and a process of the device that was taken over could have laid a link there.
            content, flags = film.read_bytes(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o644)  # who checks is mostly not who runs the device, and the film names nobody
            os.rename(part, target)
        except OSError as error:
            raise CxrError(f"The watched folder {target.parent} takes no file ({error.strerror}). See that it is there.") from None
        return name

    return send


def _said(row: dict[str, Any]) -> str:
    outcome = decode_outcome(row["payload"])
    reasons = f" ({', '.join(outcome.reasons)})" if isinstance(outcome, Refusal | Failure) else ""
    return f"no. {outcome.seq}, a {row['kind']}{reasons}"


def way_of(device: Device) -> Callable[[Path, str], str]:
    """Return how a test film reaches this device: by its own DICOM listener where it has one, else by the watched folder."""
    if device.dicom is None:
        return into_folder(device)
    from edge.dicom.sender import by_c_store

    return by_c_store(device)
