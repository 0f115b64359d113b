"""The third way to the centre: a file that a person carries there, and one with the receipts that is carried back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from edge.config import Device
from edge.contract.codec import decode_receipt, encode
from edge.contract.errors import ContractError
from edge.contract.frames import Frame, FrameReader, FrameWriter
from edge.contract.topics import Channel
from edge.delivery.receipts import Receipts, greetings
from edge.durable import fsync_folder
from edge.errors import CxrError
from edge.intake.spool import free_bytes
from edge.outbox.reader import OutboxReader
from edge.outbox.writer import Outbox
from edge.sealed.file import open_sealed, seal
from edge.sealed.keys import Identity, Unsealable, load_certificate, load_identity

_BATCH = 500
_SPARE_BYTES = 1024 * 1024
_MOST_RECEIPTS = 100_000
_MOST_BYTES = 256 * 1024 * 1024


def export_outcomes(device: Device, outbox: OutboxReader, folder: Path) -> tuple[Path | None, int]:
    """Write all outcomes that have no receipt into one file in `folder`; return it and their number, (None, 0) if there are none.

    The file is complete under its name at once, and on the disk. Nothing in the outbox changes.

    Raises:
        CxrError: if the keys cannot be used, or there is no such folder or not enough room in it.
    """
    identity, centre = _keys(device)
    waiting = outbox.waiting()
    if not waiting:
        return None, 0
    if not folder.is_dir():
        raise CxrError(f"The folder {folder} is not there. Plug the stick in, or name the folder where it is.")
    # Named after the stream, so that a later export of the same outcomes takes the place of the earlier one.
    name = f"cxr-outcomes-{device.device}-{outbox.epoch[:8]}-{outbox.last_seq()}.sealed"
    part = folder / f".cxr-outcomes-{device.device}.part"  # what an export that was cut off has left is overwritten
    if (free := free_bytes(folder)) < (wanted := outbox.waiting_bytes() + _SPARE_BYTES):
        raise CxrError(f"There is not enough room in {folder}: {free // 2**20} MiB free, {wanted // 2**20 + 1} MiB may be needed.")
    count = 0

    def pieces() -> Iterator[bytes]:
        nonlocal count
        writer = FrameWriter()
        for hello in greetings(outbox):
            yield writer.add(Frame(Channel.HELLO, encode(hello)))
        after = 0
        while rows := outbox.unreceipted(after, _BATCH):
            after = rows[-1].number
            count += len(rows)
            for row in rows:
                yield writer.add(Frame(Channel.RESULT, row.payload))
        yield writer.finish()

    try:
        with part.open("wb") as file:
            seal(file, "outcomes", identity, centre, pieces())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    part.replace(folder / name)
    fsync_folder(folder)
    return folder / name, count


def import_receipts(device: Device, outbox: Outbox, path: Path) -> int:
    """Mark what the centre's receipts in `path` say; return how many outcomes waited for just that.

    Raises:
        CxrError: if the file was not written by the centre for this device, or was cut or changed. Then nothing is marked.
    """
    identity, centre = _keys(device)
    receipts = Receipts(outbox, all_offered=True)
    reader = FrameReader(most=_MOST_RECEIPTS, most_bytes=_MOST_BYTES)
    try:
        with path.open("rb") as file:
            sealed = open_sealed(file)
            if sealed.sender != centre:
                raise Unsealable("it was not signed by the centre of [usb]")
            if sealed.kind != "receipts":
                raise Unsealable("it holds no receipts")
            frames = [frame for piece in sealed.content(identity) for frame in reader.feed(piece)]
            reader.finish()
            read = [decode_receipt(frame.payload) for frame in frames if frame.channel is Channel.RECEIPT]
    except (Unsealable, ContractError) as error:
        raise CxrError(
            f"The file {path} is refused: {error}. Nothing was marked; carry the outcomes to the centre again."
        ) from None
    if any(receipt.device != device.device for receipt in read):
        raise CxrError(f"The file {path} is refused: it holds the receipts of another device. Nothing was marked.")
    return sum(receipts.take(receipt) for receipt in read)


def _keys(device: Device) -> tuple[Identity, x509.Certificate]:
    relay = device.relay
    if not (device.usb.centre and relay.certificate and relay.private_key):
        raise CxrError("A sealed file needs [relay] certificate and private_key, and [usb] centre: the centre's certificate.")
    try:
        return load_identity(Path(relay.certificate), Path(relay.private_key)), load_certificate(Path(device.usb.centre))
    except Unsealable as error:
        raise CxrError(f"The keys for a sealed file cannot be used: {error}.") from None
