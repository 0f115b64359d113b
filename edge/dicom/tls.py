"""TLS of the DICOM listener and of its reports: both sides show a certificate of one authority."""

from __future__ import annotations

import ssl
from typing import Protocol

from edge.clock import synchronised
from edge.config import Dicom
from edge.delivery.tls import NO_CHECK_TIME
from edge.errors import ConfigError, CxrError


class TlsFiles(Protocol):
    """A table of device.toml that may name three files; empty where it does not."""

    @property
    def certificate(self) -> str:
        """This device's own."""
        ...

    @property
    def private_key(self) -> str:
        """That goes with it."""
        ...

    @property
    def ca(self) -> str:
        """The authority of the other side."""
        ...


def server_tls(settings: Dicom) -> ssl.SSLContext | None:
    """Return what the listener uses, None without TLS.

    Raises:
        ConfigError: if not all three files are named.
        CxrError: if one cannot be used.
    """
    return _context(settings, ssl.PROTOCOL_TLS_SERVER, "dicom")


def client_tls(settings: TlsFiles, table: str = "dicom") -> ssl.SSLContext | None:
    """Return what this side uses to associate with a machine or a PACS. `table`: of device.toml. Raises as `server_tls`."""
    context = _context(settings, ssl.PROTOCOL_TLS_CLIENT, table)
    if context is not None and not synchronised():
        context.verify_flags |= NO_CHECK_TIME  # a board without a clock; as towards the centre
    return context


def _context(settings: TlsFiles, protocol: int, table: str) -> ssl.SSLContext | None:
    files = {"certificate": settings.certificate, "private_key": settings.private_key, "ca": settings.ca}
    if not any(files.values()):
        return None
    missing = [key for key, name in files.items() if not name]
    if missing:
        raise ConfigError(f"[{table}] {missing[0]} is missing; TLS needs certificate, private_key and ca, or none of them.")
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # machines have addresses and no names; `allow` checks those
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
        context.load_verify_locations(settings.ca)
    except OSError as error:
        raise CxrError(f"The TLS files of [{table}] cannot be used ({error.strerror or error}).") from None
    return context
