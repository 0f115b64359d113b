"""What would keep the DICOM listener from working, without starting it."""

from __future__ import annotations

from pathlib import Path

from edge.config import Dicom
from edge.dicom.peers import parse_peers
from edge.dicom.tls import server_tls
from edge.errors import CxrError
from edge.listening import require_free
from edge.unattended.lifecycle import is_running


def describe(settings: Dicom, state: Path) -> str:
    """Return what the listener does.

    Raises:
        CxrError: with what is wrong.
    """
    peers = parse_peers(settings.allow)
    if not peers:
        raise CxrError("[dicom] allow is empty, so every machine would be rejected. List them as AETITLE@ADDRESS.")
    encrypted = server_tls(settings) is not None
    if not is_running(state, "dicom"):
        require_free("[dicom]", settings.address, settings.port)
    many = "1 machine" if len(peers) == 1 else f"{len(peers)} machines"
    return f"{settings.ae_title} at {settings.address}:{settings.port} for {many}, {'TLS' if encrypted else 'not encrypted'}"
