"""What the process that waits and the child that makes and sends say to each other; msgspec alone, so that waiting costs little."""

from __future__ import annotations

import msgspec

from edge.config import Pacs
from edge.infer.local import Heat

PICTURE, REPORT = "picture", "report"


def kinds_of(link: Pacs) -> tuple[str, ...]:
    """Return which objects [pacs] asks for."""
    return tuple(kind for kind, wanted in ((PICTURE, link.picture), (REPORT, link.report)) if wanted)


class Order(msgspec.Struct, frozen=True, kw_only=True, tag="order"):
    """One outcome to be sent.

    link: [pacs] of device.toml. outcome: its payload; voided: that of the outcome that it takes back, empty where it takes back
    none. header: patient and study (`edge.pixels.study_header`), empty where only the file tells. film: path of the object, empty
    where it was removed. kinds: which objects are to be made of it. max_bytes, max_pixels: see `edge.pixels.decode.Limits`.
    """

    link: Pacs
    outcome: bytes
    voided: bytes = b""
    header: bytes = b""
    film: str = ""
    heat: Heat | None = None
    kinds: tuple[str, ...] = (PICTURE, REPORT)
    max_bytes: int
    max_pixels: int


class Echo(msgspec.Struct, frozen=True, tag="echo"):
    """Only ask whether the PACS is there and takes these kinds of objects."""

    link: Pacs
    kinds: tuple[str, ...]


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it.

    taken: the kinds that the PACS has. refused: kind -> why the PACS does not take it. broken: kind -> how the association ended
    over it. away: why the PACS could not be asked; the order is then to be given again as it is. nothing: why there was nothing to
    send.
    """

    taken: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    broken: dict[str, str] = {}
    away: str = ""
    nothing: str = ""
