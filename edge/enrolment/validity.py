"""Until when a device's certificate is good, read without the library `cryptography`, which would cost much memory.

X.509 (RFC 5280, 4.1) is walked as far as `validity`; whether the certificate is sound is for OpenSSL to say when it is used.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime, timezone
from pathlib import Path

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_MOST = 64 * 1024


def good_until(path: Path) -> datetime | None:
    """Return the last moment of the first certificate in a PEM file; None if there is none that can be read."""
    try:
        with path.open("rb") as file:
            found = _PEM.search(file.read(_MOST))
        return None if found is None else _not_after(base64.b64decode(found[1]))
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


def expired(path: Path, now: datetime) -> datetime | None:
    """Return until when a certificate was good, if that is over by `now`; else None."""
    until = good_until(path)
    return until if until is not None and until < now else None


def utc_now() -> datetime:
    """Return this machine's clock, right or wrong."""
    return datetime.now(timezone.utc)


def _not_after(der: bytes) -> datetime:
    _, certificate, _ = _element(der)
    _, inner, _ = _element(certificate)
    tag, _, rest = _element(inner)
    if tag == _VERSION:
        _, _, rest = _element(rest)
    for _ in range(2):  # the serial number is passed; now the algorithm and the issuer
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    if tag == _UTC_TIME:
        century = b"19" if text[:2] >= b"50" else b"20"
        text = century + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it. Raises IndexError or ValueError where it was cut."""
    tag, size, start = der[0], der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start], "big")
    if start + size > len(der):
        raise ValueError("cut")
    return tag, der[start : start + size], der[start + size :]
