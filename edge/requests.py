"""What people ask of the device, for `infer` to do: outcomes and the journal of silent commissioning have one writer.

A request is one small file, forced to the disk and renamed into place, and removed once it is done and on the disk. It may be done
twice by a crash between the two, which does no harm: a void has the source key of the outcome that it takes back, of two readings
of one film the first counts, and a device that is silent, or released, stays so.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import msgspec

from edge.commissioning.standing import Label, Person
from edge.contract.errors import UNREADABLE
from edge.contract.types import Code, Epoch, Probability, Seq
from edge.durable import write_durably

log = logging.getLogger(__name__)


class VoidRequest(msgspec.Struct, frozen=True, kw_only=True, tag="void"):
    """An outcome of an epoch is to be taken back. The page knows no person, so nobody is named."""

    epoch: str
    voids: Seq
    reason: Code


class ReadingRequest(msgspec.Struct, frozen=True, kw_only=True, tag="reading"):
    """A film was read by a person who did not know the answer."""

    epoch: Epoch
    seq: Seq
    label: Label


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """Answers are to be shown. `by`: who says so; it stays on the device. `threshold`: None for the bundle's own."""

    by: Person
    threshold: Probability | None = None


class SilenceRequest(msgspec.Struct, frozen=True, kw_only=True, tag="silence"):
    """Answers are to be shown no longer."""


AnyRequest = VoidRequest | ReadingRequest | ReleaseRequest | SilenceRequest
_UNMET = ".unmet"
_CENTRE_ALONE = "seq %d of an earlier outbox was to be taken back, which only the centre can do now: tell it"
_REQUEST: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)


class Requests:
    """The folder of requests of one device."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "requests"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def void(self, epoch: str, seq: int, reason: str) -> None:
        """Ask for an outcome to be taken back. Raises OSError if the disk does not take it."""
        self.ask(VoidRequest(epoch=epoch, voids=seq, reason=reason))

    def ask(self, request: AnyRequest) -> None:
        """Ask for something; on return it survives a power cut. Raises OSError if the disk does not take it."""
        write_durably(self._folder / f"{secrets.token_hex(16)}.json", msgspec.json.encode(request))

    def pending(self) -> list[tuple[Path, AnyRequest | None]]:
        """Return what was asked and can be read at present, oldest first; None for a file that makes no sense."""
        return self._read(".json")

    def set_aside(self, path: Path, request: VoidRequest) -> None:
        """Keep what can no longer be done here, and say so: somebody was told that it would be. Raises OSError."""
        log.error(_CENTRE_ALONE, request.voids)
        path.rename(path.with_suffix(_UNMET))

    def keep_unmet(self, request: VoidRequest) -> None:
        """Keep and say what nobody asked for and cannot be done here, once however often. Raises OSError if the disk does not."""
        if (request.epoch, request.voids) not in self.asked_voids():
            log.error(_CENTRE_ALONE, request.voids)
            write_durably(self._folder / f"{secrets.token_hex(16)}{_UNMET}", msgspec.json.encode(request))

    def asked_voids(self) -> set[tuple[str, int]]:
        """Return the (epoch, seq) of what was to be taken back and is not yet, or can no longer be."""
        found = [*self._read(".json"), *self._read(_UNMET)]
        return {(request.epoch, request.voids) for _, request in found if isinstance(request, VoidRequest)}

    def _read(self, suffix: str) -> list[tuple[Path, AnyRequest | None]]:
        with os.scandir(self._folder) as entries:
            files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.endswith(suffix))
        found: list[tuple[Path, AnyRequest | None]] = []
        for _, name in files:
            try:
                found.append((Path(name), _REQUEST.decode(Path(name).read_bytes())))
            except UNREADABLE:
                found.append((Path(name), None))
            except FileNotFoundError:
                continue  # done meanwhile
            except OSError as error:
                log.error("a request cannot be read (%s); it is tried again", error.strerror)
        return found
