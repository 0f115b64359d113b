"""Pseudonyms: HMAC-SHA256 under the site's key, so that the centre can join what belongs together and name nobody."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ConfigError

KEY_BYTES = 32


@dataclass(frozen=True, repr=False)
class SiteKey:
    """The secret that the devices of one site share. Never printed, never sent."""

    secret: bytes

    @property
    def key_id(self) -> str:
        """Eight hex digits that name the key without giving it away."""
        return hashlib.sha256(b"cxr-edge key id" + self.secret).hexdigest()[:8]

    def keyed(self, purpose: str, value: str) -> str:
        """Return 64 hex digits; the purpose keeps a patient number and an equal study number apart."""
        return hmac.new(self.secret, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


def load_site_key(path: Path) -> SiteKey:
    """Read a key file of 64 hex digits.

    Raises:
        ConfigError: if it is missing or is not a key.
    """
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise ConfigError(f"The site key {path} cannot be read ({error.strerror}). `cxr-edge init` makes one.") from None
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigError(f"{path} is no site key: it should hold {KEY_BYTES * 2} hexadecimal digits.")
    return SiteKey(secret)


def make_site_key(path: Path) -> SiteKey:
    """Write a new random key that only its owner may read; an existing file is never overwritten.

    Raises:
        FileExistsError: if the file is there.
    """
    secret = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return SiteKey(secret)
