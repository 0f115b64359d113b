"""The enrolment file: everything that makes a board into one device, encrypted with a code that travels another way.

Both ends of the line use this one module. The layout:

    18 bytes  `CXR enrolment 1`, two spaces and a line feed
     4 bytes  length of the head, big-endian, at most 1024
              the head, JSON: `salt` (base64) and the parameters `n`, `r`, `p` of scrypt (RFC 7914)
    12 bytes  nonce
              AES-256-GCM of the content (JSON, `Enrolment`); associated data: all before the nonce

The key is scrypt of the code as it is printed. With 80 random bits in it nobody finds it by trying; scrypt is for a code that was
partly seen, and 32 MiB are what a board of 512 MB has to spare.
"""

from __future__ import annotations

import hashlib
import os
from datetime import date, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.contract.errors import UNREADABLE
from edge.contract.types import DeviceId, FacilityId

MAGIC = b"CXR enrolment 1  \n"
MOST_BYTES = 64 * 1024
"""Bytes of a whole enrolment file at most."""

_MOST_HEAD = 1024
_NONCE = 12

Pem = Annotated[str, Meta(max_length=16_384)]


class Unopened(Exception):
    """An enrolment file that cannot be used; the text says why, as the end of a sentence."""


class WrongCode(Unopened):
    """The file is whole as far as one can tell, and this code does not open it."""


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What one device needs to be itself. `identity`: its private key, then its certificate, both PEM.

    `site_key` is the text of a key file; empty where the device gets it from the paper, and then `key_id` names the key that the
    paper must be of.
    """

    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    device: DeviceId
    facility: FacilityId
    url: Annotated[str, Meta(pattern=r"^mqtts://[^\s/]+$")]
    https: Annotated[str, Meta(pattern=r"^(https://[^\s/@?#]+)?$")] = ""
    ca: Pem
    identity: Pem
    centre: Pem
    site_key: Pem = ""
    key_id: Annotated[str, Meta(pattern=r"^([0-9a-f]{8})?$")] = ""
    made: datetime
    use_before: date


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    salt: Annotated[bytes, Meta(min_length=16, max_length=64)]
    n: Annotated[int, Meta(ge=2**10, le=2**16)] = 2**15
    r: Annotated[int, Meta(ge=1, le=8)] = 8
    p: Annotated[int, Meta(ge=1, le=4)] = 1


def lock(enrolment: Enrolment, code: str) -> bytes:
    """Return the bytes of the file that `code`, as it is printed, opens."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # the device's commands read this module without it

    head = _Head(salt=os.urandom(16))
    encoded = msgspec.json.encode(head)
    before = MAGIC + len(encoded).to_bytes(4, "big") + encoded
    nonce = os.urandom(_NONCE)
    return before + nonce + AESGCM(_key(head, code)).encrypt(nonce, msgspec.json.encode(enrolment), before)


def unlock(content: bytes, code: str) -> Enrolment:
    """Return what is in a file.

    Raises:
        WrongCode: if the code does not fit, or the encrypted part was changed: nobody can tell the one from the other.
        Unopened: if it is no enrolment file, was cut, or was made by a version that this software does not read.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(content) > MOST_BYTES or content[: len(MAGIC)] != MAGIC:
        raise Unopened("it is no enrolment file")
    start = len(MAGIC) + 4
    size = int.from_bytes(content[len(MAGIC) : start], "big")
    end = start + size
    if size > _MOST_HEAD or len(content) < end + _NONCE + 16:
        raise Unopened("it was cut or is damaged")
    try:
        head = msgspec.json.decode(content[start:end], type=_Head)
    except (msgspec.ValidationError, *UNREADABLE):
        raise Unopened("it is damaged") from None
    if head.n & (head.n - 1):
        raise Unopened("it is damaged")
    try:
        inside = AESGCM(_key(head, code)).decrypt(content[end : end + _NONCE], content[end + _NONCE :], content[:end])
    except InvalidTag:
        raise WrongCode("the code does not open it: it is that of another file, or the file was changed") from None
    try:
        return msgspec.json.decode(inside, type=Enrolment)
    except (msgspec.ValidationError, *UNREADABLE):
        raise Unopened("it was made by another version of the software") from None


def _key(head: _Head, code: str) -> bytes:
    most = 128 * head.r * (head.n + head.p + 2) + 2**20
    return hashlib.scrypt(code.encode("ascii"), salt=head.salt, n=head.n, r=head.r, p=head.p, maxmem=most, dklen=32)
