"""What would keep answers from the PACS, asked of the PACS itself."""

from __future__ import annotations

from pathlib import Path

from edge.config import Decode, Pacs
from edge.errors import CxrError
from edge.pacs.courier import Courier, Lost
from edge.pacs.cursor import read_place
from edge.pacs.orders import Echo, kinds_of


def describe(settings: Pacs, limits: Decode, state: Path) -> str:
    """Return what the PACS says to C-ECHO, and what it has refused so far.

    Raises:
        CxrError: with what is wrong.
    """
    kinds = kinds_of(settings)
    if not kinds:
        raise CxrError(
            "[pacs] picture and report are both false, so there is nothing to send. Set one of them, or remove the table."
        )
    courier = Courier(limits)
    try:
        sent = courier.deliver(Echo(settings, kinds))
    except Lost as lost:
        raise CxrError(f"The PACS cannot be asked ({lost}).") from None
    finally:
        courier.rest()
    if sent.away:
        raise CxrError(f"{sent.away} What it is to be told waits.")
    if sent.refused:
        raise CxrError(
            f"{settings.called_ae_title} takes no {' and no '.join(sent.refused)}. Allow it there, or set it to false here."
        )
    place = read_place(state)
    refused = "" if place is None or not place.refused else f"; {place.refused} objects were refused so far"
    encrypted = "TLS" if settings.certificate else "not encrypted"
    return f"{settings.called_ae_title} at {settings.address}:{settings.port} takes {' and '.join(kinds)}, {encrypted}{refused}"
