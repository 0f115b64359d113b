"""The third way in: sealed files that were carried here by hand, and the receipts that are carried back."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import FileRefused
from broker.ingest import Greeted, Inbound, classify
from broker.settle import Settler
from edge.contract import codec, topics
from edge.contract.errors import ContractError
from edge.contract.frames import Frame, FrameReader, FrameWriter
from edge.contract.messages import Receipt
from edge.contract.topics import Channel
from edge.durable import fsync_folder
from edge.sealed.file import Sealed, open_sealed, seal
from edge.sealed.keys import Identity, Unsealable

_BATCH = 500
_MOST_FRAMES = 10_000_000
_MOST_BYTES = 64 * 2**30


@dataclass(frozen=True)
class Imported:
    """What came of one file: whose it is, how many messages it held, and where the receipts for it are."""

    device: str
    messages: int
    receipts: Path


def import_file(
    path: Path,
    settler: Settler,
    authority: x509.Certificate,
    centre: Identity,
    folder: Path,
    revoked: Callable[[str], bool] = lambda serial: False,
) -> Imported:
    """Take one file in, and write the receipts for its device into `folder`.

    Each batch is judged and committed as if it had come by MQTT from the device that signed the file. The same file again changes
    nothing and gives its receipts again.

    Raises:
        FileRefused: if it was not written by a device of `authority` for this centre, or was cut or changed.
        StoreUnavailable: if the database takes nothing; import the file again then.
    """
    count, receipts = 0, []
    with path.open("rb") as file:
        try:
            sealed = open_sealed(file)
            device = _device(sealed, authority)
            if revoked(f"{sealed.sender.serial_number:x}"):
                raise Unsealable(
                    f"the certificate of {device} was revoked; if it has a new one, export again there. If its card is gone, and "
                    "nobody else had it before this was exported, --revoked-too takes it"
                )
            messages = _messages(sealed, centre, device)
            while batch := list(islice(messages, _BATCH)):
                receipts += settler.settle([classify(message) for message in batch])
                count += len(batch)
        except (Unsealable, ContractError) as error:
            raise FileRefused(f"{path} is refused: {error}.") from None
    return Imported(device, count - 1, _write_receipts(folder, device, receipts, centre, sealed.sender))


def _device(sealed: Sealed, authority: x509.Certificate) -> str:
    """Return which device signed the file, if it is one of ours."""
    certificate, now = sealed.sender, datetime.now(timezone.utc)
    try:
        certificate.verify_directly_issued_by(authority)
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise Unsealable("who signed it is no device of this authority") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages or sealed.kind != "outcomes":
        raise Unsealable("it does not come from a device")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Unsealable("the certificate of the device is not valid now; renew it and export again")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise Unsealable("the certificate does not name one device")
    return str(names[0].value)


def _messages(sealed: Sealed, centre: Identity, device: str) -> Iterator[Inbound]:
    """Yield the messages of a file, the device's hello first."""
    reader = FrameReader(most=_MOST_FRAMES, most_bytes=_MOST_BYTES)
    frames = chain.from_iterable(reader.feed(piece) for piece in sealed.content(centre))
    at = time.time_ns() // 1_000_000
    first = next(frames, None)
    if (
        first is None
        or first.channel is not Channel.HELLO
        or not isinstance(classify(Inbound(topics.topic(device, first.channel), first.payload, at)), Greeted)
    ):
        raise Unsealable("it does not begin with the hello of the device that signed it")
    for frame in chain([first], frames):
        if frame.channel not in {Channel.HELLO, Channel.RESULT}:  # a device has a hello for each of its epochs
            raise Unsealable(f"it holds a {frame.channel.value}")
        yield Inbound(topics.topic(device, frame.channel), frame.payload, at)
    reader.finish()


def _write_receipts(folder: Path, device: str, receipts: list[Receipt], centre: Identity, reader: x509.Certificate) -> Path:
    writer = FrameWriter()
    frames = (Frame(Channel.RECEIPT, codec.encode(receipt)) for receipt in receipts)
    target = folder / f"cxr-receipts-{device}-{receipts[-1].epoch[:8]}-{receipts[-1].through}.sealed"
    part = folder / f".{target.name}.part"
    try:
        with part.open("wb") as file:
            seal(file, "receipts", centre, reader, chain((writer.add(frame) for frame in frames), (writer.finish() for _ in "1")))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        fsync_folder(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return target
