"""The running Mosquitto: tell it that certificates were revoked, and end the connection of a device that no longer counts.

Mosquitto 2.0 reads the list of revoked certificates again at SIGHUP, and looks at it when a connection begins; it has no word for
ending one. But a name has one connection only (`use_username_as_clientid`): so who connects under the name ends it.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import AuthorityError
from broker.fleet.authority import Authority
from broker.fleet.certificates import certificate_pem, key_pem, new_key

WITHIN_S = 10.0
"""In what time a live connection is cut; if not, the caller hears of it."""

_MINUTES = timedelta(minutes=5)
_PAUSE_S = 0.1

# MQTT 3.1.1, 3.1 to 3.3 and 3.14: a clean session for 10 s; the client id is replaced by the name.
_CONNECT = b"\x10\x0d\0\x04MQTT\x04\x02\0\x0a\0\x01x"
_CONNACK, _DISCONNECT = b"\x20", b"\xe0\0"

Answer = Literal["in", "out", "silent"]
"""Whether the broker lets a certificate in, or does not answer in time."""


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

    def admitted(self, port: int, timeout_s: float) -> Answer:
        """Connect under the name, and go again; return what the broker says to it.

        Raises:
            AuthorityError: if no broker listens there.
        """
        context = self._context()
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout_s) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
            ):
                tls.sendall(_CONNECT)
                answer = tls.recv(4)
                if answer[:1] == _CONNACK and answer[3:] == b"\0":
                    tls.sendall(_DISCONNECT)
                    return "in"
                return "out"
        except ConnectionRefusedError:
            raise AuthorityError(f"No broker listens on port {port} of this machine.") from None
        except TimeoutError:
            return "silent"
        except OSError:  # of TLS too
            return "out"

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._authority.ca))
        with tempfile.TemporaryDirectory(prefix=".connect-", dir=self._authority.folder) as folder:
            pem = Path(folder) / "throwaway.pem"
            with os.fdopen(os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key_pem(self._key) + certificate_pem(self.certificate))
            context.load_cert_chain(pem)
        return context


def reload(authority: Authority) -> bool:
    """Ask the broker to read its files again; return whether there is one that runs.

    Raises:
        AuthorityError: if it runs as another user, or does not finish its start.
    """
    try:
        process = int(authority.pid_file.read_text("ascii"))
        name = Path(f"/proc/{process}/comm").read_text("ascii", "replace").strip()
    except (OSError, ValueError):
        return False
    if name != "mosquitto":  # the number was given to another process since
        return False
    until = time.monotonic() + WITHIN_S
    while not _listens_for_sighup(process):
        _pause(until, "The broker has begun to start and does not get on; look at its log, and say this again.")
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
        while witness.admitted(port, WITHIN_S) != "out":
            _pause(until, f"The broker still lets certificates of {device} in, which are revoked; start the broker again now.")
        while Throwaway(authority, device).admitted(port, WITHIN_S) != "in":
            _pause(until, f"{device} is revoked, but its connection could not be ended; start the broker again now.")
    return True


def _listens_for_sighup(process: int) -> bool:
    """Return whether a process has said what it does at SIGHUP, which ends it before; also if it is gone. See proc(5), SigCgt."""
    try:
        status = Path(f"/proc/{process}/status").read_text("ascii", "replace")
    except OSError:
        return True
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)


def _pause(until: float, sentence: str) -> None:
    if time.monotonic() > until:
        raise AuthorityError(sentence)
    time.sleep(_PAUSE_S)
