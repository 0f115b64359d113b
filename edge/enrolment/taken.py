"""Which enrolment file a board has taken last, so that neither it nor an older one takes the place of what was renewed since.

`enrolment.sha256` beside the identity is written before it, in lines: the digest of the file; when the centre made the file, in
seconds since 1970; the digest of the identity that its own is to replace. An identity that is still that one shows that the power
failed in between. An earlier version wrote the first line alone, and after the identity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge.durable import write_durably
from edge.enrolment.file import Enrolment
from edge.enrolment.identity import Unfit, require_whole


@dataclass(frozen=True)
class _Taken:
    digest: str
    made: int | None = None
    replaced: str = ""


def keeps(identity: Path, enrolment: Enrolment, content: bytes) -> bool:
    """Return whether the present identity is another one that fits, and came after that of the file.

    When the centre makes a newer file for a device, it has revoked what that had: so the newer file wins, however long the present
    identity is good. Only where it is not known when the file was made that the present one came from, the one that is good for
    longer is the later one. The beginnings of certificates do not tell.

    Args: identity: where it is. content: the enrolment file as it is.
    """
    try:
        present = identity.read_bytes()
        until = require_whole(present.decode("ascii"), enrolment.device, enrolment.ca)
    except (FileNotFoundError, UnicodeDecodeError, Unfit):
        return False
    if present == enrolment.identity.encode("ascii"):
        return False
    taken = _read(_path(identity))
    if taken is not None and taken.digest == _digest(content):
        return _digest(present) != taken.replaced
    if taken is not None and taken.made is not None:
        return _seconds(enrolment) < taken.made
    return until > require_whole(enrolment.identity, enrolment.device, enrolment.ca)


def note(identity: Path, enrolment: Enrolment, content: bytes) -> None:
    """Record that the identity of a file is about to be written, unless that was done already. Raises OSError."""
    path, digest = _path(identity), _digest(content)
    taken = _read(path)
    if taken is not None and taken.digest == digest:
        return
    replaced = _digest(identity.read_bytes()) if identity.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(path, f"{digest}\n{_seconds(enrolment)}\n{replaced}\n".encode("ascii"))


def _path(identity: Path) -> Path:
    return identity.with_name("enrolment.sha256")


def _read(path: Path) -> _Taken | None:
    try:
        digest, made, replaced = (*path.read_bytes().decode("ascii").splitlines(), "", "")[:3]
        return _Taken(digest, int(made) if made else None, replaced)
    except (FileNotFoundError, ValueError):
        return None


def _seconds(enrolment: Enrolment) -> int:
    return int(enrolment.made.timestamp())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
