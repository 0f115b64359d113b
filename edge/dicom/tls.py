"""TLS of the DICOM listener and of its reports: both sides show a certificate of one authority."""

from __future__ import annotations

import ssl

from edge.config import Dicom
from edge.errors import ConfigError, CxrError


def server_tls(settings: Dicom) -> ssl.SSLContext | None:
    """Return what the listener uses, None without TLS.

    Raises:
        ConfigError: if not all three files are named.
        CxrError: if one cannot be used.
    """
    return _context(settings, ssl.PROTOCOL_TLS_SERVER)


def client_tls(settings: Dicom) -> ssl.SSLContext | None:
    """Return what reports to a machine use. Raises as `server_tls`."""
    return _context(settings, ssl.PROTOCOL_TLS_CLIENT)


def _context(settings: Dicom, protocol: int) -> ssl.SSLContext | None:
    files = {"certificate": settings.certificate, "private_key": settings.private_key, "ca": settings.ca}
    if not any(files.values()):
        return None
    missing = [key for key, name in files.items() if not name]
    if missing:
        raise ConfigError(f"[dicom] {missing[0]} is missing; TLS needs certificate, private_key and ca, or none of them.")
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # machines have addresses and no names; `allow` checks those
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
        context.load_verify_locations(settings.ca)
    except OSError as error:
        raise CxrError(f"The TLS files of [dicom] cannot be used ({error.strerror or error}).") from None
    return context
