"""A device renews its certificate when the centre asks: a new key, a request, and what comes back takes the place of the old.

The key never leaves the device. Until the new certificate is on the disk the old one is used, and it stays good: so an answer that
is lost, or a power cut at any point, harms nothing, and the centre asks again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge.config import Relay
from edge.durable import write_durably
from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.enrolment.identity import KeyPair

# edge.enrolment.identity loads the library `cryptography`: inside, so that only a device that renews pays for it.


class Renewal:
    """The renewal of one device; what is under way is forgotten with the process, and asked for again."""

    def __init__(self, device: str, settings: Relay) -> None:
        self._device = device
        self._settings = settings
        self._pair: KeyPair | None = None

    def request(self) -> str:
        """Make a new key, and return the request for a certificate for it (PKCS 10, PEM).

        Raises:
            CxrError: if the key and certificate in use are not in one file, which could not be changed at once.
        """
        from edge.enrolment.identity import new_key_pair

        if not self._settings.certificate or self._settings.certificate != self._settings.private_key:
            raise CxrError("The certificate cannot be renewed: certificate and private_key of [relay] should name one file.")
        self._pair = new_key_pair(self._device)
        return self._pair.request

    def install(self, certificate: str) -> str:
        """Put the new key and its certificate (PEM) in the place of the present ones, on the disk; return the day it is good until.

        Raises:
            CxrError: if it is not the certificate that was asked for, or cannot be written. Then all is as it was.
        """
        from edge.enrolment.identity import Unfit, identity_pem, require_fit

        if (pair := self._pair) is None:
            raise CxrError("A certificate came that was not asked for; it is not used.")
        try:
            until = require_fit(certificate, pair.key.public_key(), self._device, Path(self._settings.ca).read_bytes())
            write_durably(Path(self._settings.certificate), identity_pem(pair.key, certificate))
        except Unfit as why:
            raise CxrError(f"The certificate that came cannot be used: {why}. The present one stays.") from None
        except OSError as error:
            raise CxrError(f"The new certificate cannot be written ({error.strerror}); the present one stays.") from None
        self._pair = None
        return until.date().isoformat()
