"""The device's side of mutual TLS, the same for every way to the centre."""

from __future__ import annotations

import ssl

from edge.clock import synchronised
from edge.config import Relay
from edge.errors import CxrError

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAGNO_CHECK_TIME, which Python gives no name."""


def client_context(settings: Relay) -> ssl.SSLContext:
    """Return a context that trusts the authority of [relay] and shows this device's certificate.

    While the clock is not synchronised a right certificate can look expired or not yet valid: then its chain and the name in it are
    checked, and its dates are not.

    Raises:
        CxrError: if one of the files cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not synchronised():
            context.verify_flags |= NO_CHECK_TIME
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.private_key or None)
    except (OSError, ssl.SSLError) as error:
        raise CxrError(f"The TLS files of [relay] cannot be used: {error}. Check ca, certificate and private_key.") from None
    return context
