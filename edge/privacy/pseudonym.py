"""Pseudonyms: HMAC-SHA256 under the site's key, so that the centre can join what belongs together and name nobody.

A key file has one line for each key, the active one first:

    64 hexadecimal digits [the day since which it is the active one, YYYY-MM-DD]

Earlier keys make no new pseudonyms; what was taken in under them is recognised by them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edge.durable import fsync_folder, write_durably
from edge.errors import ConfigError

KEY_BYTES = 32
_LINE = re.compile(r"([0-9a-fA-F]{64})(?: +(\d{4}-\d{2}-\d{2}))?")


@dataclass(frozen=True, repr=False)
class SiteKey:
    """The secret that the devices of one site share. Never printed but on the paper that restores it, never sent.

    since: the day since which it is the active one, where it is known. earlier: the keys before it, the newest first.
    """

    secret: bytes
    since: str | None = None
    earlier: tuple[SiteKey, ...] = ()

    @property
    def key_id(self) -> str:
        """Eight hex digits that name the key without giving it away."""
        return hashlib.sha256(b"cxr-edge key id" + self.secret).hexdigest()[:8]

    @property
    def all(self) -> tuple[SiteKey, ...]:
        """This key, then the earlier ones."""
        return (self, *self.earlier)

    def keyed(self, purpose: str, value: str) -> str:
        """Return 64 hex digits; the purpose keeps a patient number and an equal study number apart."""
        return hmac.new(self.secret, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


def chain(keys: list[SiteKey]) -> SiteKey:
    """Return the first of some keys with all others as its earlier ones; one that comes twice counts once."""
    alone = {key.secret: replace(key, earlier=()) for key in reversed(keys)}
    first, *earlier = (alone[secret] for secret in dict.fromkeys(key.secret for key in keys))
    return replace(first, earlier=tuple(earlier))


def load_site_key(path: Path) -> SiteKey:
    """Read a key file; the key that is returned is the active one.

    Raises:
        ConfigError: if it is missing or is not a key.
    """
    try:
        lines = path.read_bytes().decode("ascii").splitlines()
    except OSError as error:
        raise ConfigError(
            f"The site key {path} cannot be read ({error.strerror}). `cxr-edge init` makes one; "
            "`cxr-edge key restore` makes it again from the paper."
        ) from None
    except ValueError:
        lines = [""]
    return read_site_key(lines, str(path))


def read_site_key(lines: Iterable[str], name: str) -> SiteKey:
    """Return the key that the lines of a key file hold; `name` is the file's, for people.

    Raises:
        ConfigError: if they are no key.
    """
    lines = [line.strip() for line in lines if line.strip()]
    found = [_LINE.fullmatch(line) for line in lines]
    keys = [SiteKey(bytes.fromhex(match[1]), match[2]) for match in found if match]
    if not keys or len(keys) != len(found):
        raise ConfigError(
            f"{name} is no site key: every line should hold {KEY_BYTES * 2} hexadecimal digits and perhaps a day. "
            "Move it away, then make it again from the paper by `cxr-edge key restore`."
        )
    return chain(keys)


def make_site_key(path: Path, since: str | None = None) -> SiteKey:
    """Write a new random key that only its owner may read; an existing file is never overwritten.

    Raises:
        FileExistsError: if the file is there.
    """
    key = SiteKey(secrets.token_bytes(KEY_BYTES), since)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key_text(key))
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(path.parent)
    return key


def rotate(path: Path, today: str | None) -> SiteKey:
    """Make a new key the active one of a key file, and keep those that are there as earlier ones.

    Raises:
        ConfigError: if the file is missing or no key.
        OSError: if it cannot be written; then it is as it was.
    """
    return save(path, chain([SiteKey(secrets.token_bytes(KEY_BYTES), today), *load_site_key(path).all]))


def adopt(path: Path, typed: SiteKey) -> SiteKey:
    """Make a key from paper the active one of a key file, unless the file knows it: then it may have been rotated since.

    What the file had stays as earlier keys: outcomes may have been made under them.

    Raises:
        ConfigError: if the file is there and no key.
        OSError: if it cannot be written; then it is as it was.
    """
    present = load_site_key(path).all if path.exists() else ()
    known = typed.secret in {key.secret for key in present}
    return save(path, chain([*present, *typed.all] if known else [*typed.all, *present]))


def save(path: Path, key: SiteKey) -> SiteKey:
    """Write a key file, whole or not at all, for its owner alone, who stays the same when root does this. Raises OSError."""
    owner = (path if path.exists() else path.parent).stat()
    write_durably(path, key_text(key), (owner.st_uid, owner.st_gid))
    return key


def key_text(key: SiteKey) -> bytes:
    """Return the content of a key file."""
    return "".join(f"{one.secret.hex()}{' ' if one.since else ''}{one.since or ''}\n" for one in key.all).encode("ascii")
