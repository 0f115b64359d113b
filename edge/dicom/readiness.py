"""What would keep the DICOM listener from working, without starting it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from edge.config import Dicom
from edge.dicom.peers import parse_peers
from edge.dicom.tls import server_tls
from edge.errors import CxrError
from edge.lifecycle import is_running

_ADVICE = {
    errno.EADDRNOTAVAIL: "is no address of this machine; `ip address` shows which it has. Correct [dicom] address.",
    errno.EADDRINUSE: "is in use by another program. Take another [dicom] port, or end that program.",
    errno.EACCES: "may not be listened on by this user. Take a [dicom] port from 1024 on.",
}


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
        _try_to_bind(settings.address, settings.port)
    many = "1 machine" if len(peers) == 1 else f"{len(peers)} machines"
    return f"{settings.ae_title} at {settings.address}:{settings.port} for {many}, {'TLS' if encrypted else 'not encrypted'}"


def _try_to_bind(address: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener does
            probe.bind((address, port))
    except socket.gaierror:
        raise CxrError(f"[dicom] address {address!r} is no address; write it in numbers, as 192.168.1.5.") from None
    except OSError as error:
        raise CxrError(f"{address}:{port} {_ADVICE.get(error.errno or 0, f'cannot be listened on ({error.strerror}).')}") from None
