"""A file for a USB stick: signed by who wrote it, readable by one reader only. Both ends of the line use this one module.

The layout is in docs/reference/usb.md. The content is AES-256-GCM in chunks, each bound to its place and the last one marked: so
memory stays bounded, and a missing end is noticed. The signature is over the whole file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge.sealed.keys import MAGIC, Identity, Unsealable, fingerprint, public_key, sign, unwrap, verify, wrap

CHUNK = 64 * 1024
_TAG = 16
_LAST = 1 << 31
_MAX_HEAD = 16 * 1024
_MAX_SIGNATURE = 2048

Kind = Literal["outcomes", "receipts"]


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind
    sender: bytes
    reader: bytes
    key: bytes


@dataclass(frozen=True)
class Sealed:
    """A file whose signature is that of `sender`; whether `sender` is to be trusted is for the caller to say."""

    sender: x509.Certificate
    kind: Kind
    file: BinaryIO
    head: bytes
    end: int

    def content(self, reader: Identity) -> Iterator[bytes]:
        """Yield the content in pieces of at most `CHUNK` bytes.

        Raises:
            Unsealable: if it was written for somebody else, or a piece is not the one that was written.
        """
        head = msgspec.json.decode(self.head, type=_Head)
        if head.reader != fingerprint(reader.certificate):
            raise Unsealable("it was written for somebody else")
        cipher, bound = AESGCM(unwrap(reader.key, head.key)), hashlib.sha256(MAGIC + self.head).digest()
        for number, (start, size, last) in enumerate(_chunks(self.file, len(MAGIC) + 4 + len(self.head), self.end)):
            self.file.seek(start)
            try:
                piece = cipher.decrypt(_nonce(number, last), self.file.read(size), bound)
            except InvalidTag:
                raise Unsealable("its content was changed") from None
            yield piece


def seal(file: BinaryIO, kind: Kind, sender: Identity, reader: x509.Certificate, pieces: Iterable[bytes]) -> None:
    """Write `pieces`, of any size, for the holder of `reader`'s key; the caller sees to the disk."""
    key = AESGCM.generate_key(256)
    head = msgspec.json.encode(
        _Head(
            kind=kind,
            sender=sender.certificate.public_bytes(serialization.Encoding.DER),
            reader=fingerprint(reader),
            key=wrap(public_key(reader), key),
        )
    )
    cipher, bound, digest = AESGCM(key), hashlib.sha256(MAGIC + head).digest(), hashlib.sha256()

    def put(piece: bytes) -> None:
        digest.update(piece)
        file.write(piece)

    put(MAGIC + len(head).to_bytes(4, "big") + head)
    for number, (piece, last) in enumerate(_whole_chunks(pieces)):
        sealed = cipher.encrypt(_nonce(number, last), piece, bound)
        put((len(sealed) | (_LAST if last else 0)).to_bytes(4, "big") + sealed)
    file.write(sign(sender.key, MAGIC + digest.digest()))


def open_sealed(file: BinaryIO) -> Sealed:
    """Check the signature over the whole of `file`, reading it once.

    Raises:
        Unsealable: if it is no such file, was cut or changed, or the signature does not fit to the certificate in it.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise Unsealable("it is no file of cxr-edge")
    head = _exactly(file, _number(file, _MAX_HEAD))
    try:
        read = msgspec.json.decode(head, type=_Head)
        sender = x509.load_der_x509_certificate(read.sender)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, x509.InvalidVersion):
        raise Unsealable("its head is damaged") from None
    length = 0
    for start, size, _ in _chunks(file, len(MAGIC) + 4 + len(head), file.seek(0, 2)):
        length = start + size
    file.seek(length)
    signature = file.read(_MAX_SIGNATURE)
    file.seek(0)
    digest = hashlib.sha256()
    left = length
    while left:
        piece = _exactly(file, min(left, CHUNK))
        digest.update(piece)
        left -= len(piece)
    verify(public_key(sender), signature, MAGIC + digest.digest())
    return Sealed(sender, read.kind, file, head, length)


def _nonce(number: int, last: bool) -> bytes:
    """Never the same twice for one key, which is made for one file."""
    return number.to_bytes(11, "big") + bytes([last])


def _whole_chunks(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield (chunk, whether it is the last): all but the last are full, and there is at least one."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) > CHUNK:
            yield bytes(waiting[:CHUNK]), False
            del waiting[:CHUNK]
    yield bytes(waiting), True


def _chunks(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, size, whether it is the last) of each chunk from `at` on."""
    last = False
    while not last:
        file.seek(at)
        number = int.from_bytes(_exactly(file, 4), "big")
        start, size, last = at + 4, number & ~_LAST, bool(number & _LAST)
        at = start + size
        if not _TAG <= size <= CHUNK + _TAG or at > end:
            raise Unsealable("it was cut or changed")
        yield start, size, last


def _number(file: BinaryIO, most: int) -> int:
    number = int.from_bytes(_exactly(file, 4), "big")
    if number > most:
        raise Unsealable("its head is damaged")
    return number


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise Unsealable("it was cut")
    return content
