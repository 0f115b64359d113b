"""The running Mosquitto: tell it that certificates were revoked, and end the connection of a device that no longer counts.

Mosquitto 2.0 reads the list of revoked certificates again at SIGHUP, and looks at it when a connection begins; it has no word for
ending one. But a name has one connection only (`use_username_as_clientid`): so who connects under the name ends it.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import AuthorityError
from broker.fleet.authority import Authority
from broker.fleet.certificates import certificate_pem, key_pem, new_key
from broker.mqtt import Address, new_client

WITHIN_S = 10.0
"""In what time a live connection is cut; if not, the caller hears of it."""

_MINUTES = timedelta(minutes=5)
_PAUSE_S = 0.1


class Throwaway:
    """A certificate for a device's name that never leaves this process but for a private folder, and that for seconds."""

    def __init__(self, authority: Authority, device: str) -> None:
        self._key: ec.EllipticCurvePrivateKey = new_key()
        self.certificate: x509.Certificate = authority.maker.client(device, self._key.public_key(), authority.now(), _MINUTES)
        self._authority = authority

    @property
    def serial(self) -> str:
        """Its serial number as in the journal."""
        return f"{self.certificate.serial_number:x}"

    def admitted(self, port: int, timeout_s: float) -> bool:
        """Connect under the name, and go again; return whether the broker let us in.

        Raises:
            AuthorityError: if no broker listens there.
        """
        with tempfile.TemporaryDirectory(prefix=".connect-", dir=self._authority.folder) as folder:
            pem = Path(folder) / "throwaway.pem"
            with os.fdopen(os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key_pem(self._key) + certificate_pem(self.certificate))
            client = new_client(Address("127.0.0.1", port, True, self._authority.ca, pem, pem), "")
        answered, let_in = threading.Event(), threading.Event()

        def on_connect(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
            if not getattr(reason, "is_failure", True):
                let_in.set()
            answered.set()

        client.on_connect = on_connect
        client.on_disconnect = lambda *_: answered.set()
        try:
            client.connect("127.0.0.1", port)
        except ConnectionRefusedError:
            raise AuthorityError(f"No broker listens on port {port} of this machine.") from None
        except (OSError, ValueError):  # the handshake failed
            return False
        client.loop_start()
        try:
            answered.wait(timeout_s)
            return let_in.is_set()
        finally:
            client.disconnect()
            client.loop_stop()


def reload(authority: Authority) -> bool:
    """Ask the broker to read its files again; return whether there is one that runs.

    Raises:
        AuthorityError: if it runs as another user.
    """
    try:
        process = int(authority.pid_file.read_text("ascii"))
        name = Path(f"/proc/{process}/comm").read_text("ascii", "replace").strip()
    except (OSError, ValueError):
        return False
    if name != "mosquitto":  # the number was given to another process since
        return False
    try:
        os.kill(process, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise AuthorityError(
            "The broker runs as another user; run this as that user, or tell it yourself (systemctl reload mosquitto)."
        ) from None
    return True


def cut(authority: Authority, devices: Sequence[str], witnesses: Sequence[Throwaway]) -> bool:
    """Make the broker know the present list of revoked certificates, and end what connections `devices` have.

    Args:
        authority: whose list it is.
        devices: whose certificates were revoked.
        witnesses: one of each device, on the list: when the broker refuses it, it knows the list.

    Returns:
        False if no broker runs on this machine: then it reads the list when it starts.

    Raises:
        AuthorityError: if the broker goes on letting revoked certificates in, or cannot be reached, after `WITHIN_S`.
    """
    if not reload(authority):
        return False
    port, until = authority.settings.mqtt_port, time.monotonic() + WITHIN_S
    for device, witness in zip(devices, witnesses, strict=True):
        while witness.admitted(port, WITHIN_S):
            _pause(until, f"The broker still lets certificates of {device} in, which are revoked; start the broker again now.")
        while not Throwaway(authority, device).admitted(port, WITHIN_S):
            _pause(until, f"{device} is revoked, but its connection could not be ended; start the broker again now.")
    return True


def _pause(until: float, sentence: str) -> None:
    if time.monotonic() > until:
        raise AuthorityError(sentence)
    time.sleep(_PAUSE_S)
