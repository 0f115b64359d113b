"""The authority's folder: root, servers' certificates, broker's configuration, and the journal of who belongs to the fleet.

authority.json      hosts, ports and times; written last, so that a folder with it is complete
ca.pem  ca.key      the root. Who has ca.key can make any device: a copy of the folder belongs into a safe
crl.pem             certificates that count no more, made of the journal
journal.jsonl       what was enrolled, renewed and revoked
broker.pem          key and certificate of the servers that devices reach, MQTT and HTTPS
aggregator, operator, dashboard, centre (.pem, .key)    who speaks to the broker, and who reads sealed files
mosquitto.conf  mosquitto.acl  broker/                  Mosquitto's configuration and data
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import AuthorityError
from broker.fleet.certificates import Maker
from broker.fleet.journal import Journal, locked
from broker.fleet.standing import Event, Fleet
from edge.contract.errors import UNREADABLE
from edge.durable import write_durably

log = logging.getLogger(__name__)

AGGREGATOR, OPERATOR, DASHBOARD, CENTRE, BROKER = "aggregator", "operator", "dashboard", "centre", "broker"
RESERVED = frozenset({AGGREGATOR, OPERATOR, DASHBOARD, CENTRE, BROKER})
"""Certificate names that mean something to the broker or to us: no device may have one of them."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """authority.json. `hosts`: under which names and addresses devices reach the centre, the first one goes into their files."""

    hosts: list[str]
    mqtt_port: int = 8883
    https_port: int = 8444
    renew_after_days: int = 60
    grace_days: int = 365

    @property
    def renew_after(self) -> timedelta:
        """Age at which a certificate is renewed."""
        return timedelta(days=self.renew_after_days)

    @property
    def lasts(self) -> timedelta:
        """For how long a device's certificate is good: a device that was offline for the grace time just comes back."""
        return timedelta(days=self.renew_after_days + self.grace_days)

    @property
    def url(self) -> str:
        """Where devices reach the broker."""
        return f"mqtts://{_in_url(self.hosts[0])}:{self.mqtt_port}"

    @property
    def https(self) -> str:
        """Where devices reach the centre by HTTPS."""
        return f"https://{_in_url(self.hosts[0])}:{self.https_port}"


@dataclass(frozen=True)
class Files:
    """A certificate and its key in the authority's folder."""

    cert: Path
    key: Path


def utc_now() -> datetime:
    """Return the centre's clock, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


class Authority:
    """An authority that exists. For one thread; several processes may have the same folder open."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = utc_now) -> None:
        """Open the folder.

        Raises:
            AuthorityError: if there is no authority in it, or it cannot be read.
        """
        self.folder = folder.absolute()
        self.now = now
        try:
            self.settings = msgspec.json.decode((self.folder / "authority.json").read_bytes(), type=Settings)
        except FileNotFoundError:
            raise AuthorityError(f"There is no authority in {folder}; `cxr-broker init {folder} --host NAME` makes one.") from None
        except OSError as error:
            raise AuthorityError(f"The authority in {folder} cannot be read ({error.strerror}).") from None
        except (msgspec.ValidationError, *UNREADABLE) as error:
            raise AuthorityError(f"{folder / 'authority.json'} is damaged ({error}); put it back from the backup.") from None
        self._journal = Journal(self.folder / "journal.jsonl")
        self._fleet = Fleet()
        self._events = 0
        self._listed_taken = False
        self.lists = 0
        """How often this process has written the list of revoked certificates; the broker is to be told of each."""

    @property
    def ca(self) -> Path:
        """The root's certificate."""
        return self.folder / "ca.pem"

    @property
    def crl(self) -> Path:
        """The list of revoked certificates."""
        return self.folder / "crl.pem"

    @property
    def pid_file(self) -> Path:
        """Where Mosquitto writes its process id."""
        return self.folder / "broker" / "mosquitto.pid"

    @property
    def configuration(self) -> Path:
        """Mosquitto's configuration."""
        return self.folder / "mosquitto.conf"

    def files(self, name: str) -> Files:
        """Return the certificate and key of one of `RESERVED`."""
        certificate = self.folder / f"{name}.pem"
        return Files(certificate, certificate if name == BROKER else self.folder / f"{name}.key")

    @cached_property
    def maker(self) -> Maker:
        """What makes certificates; reads the root's key.

        Raises:
            AuthorityError: if root certificate and key cannot be read or do not belong together.
        """
        return load_maker(self.folder)

    def fleet(self) -> Fleet:
        """Return how all devices stand now, whoever changed it.

        Raises:
            AuthorityError: if the journal cannot be read.
        """
        # Before the journal: what the list says then, the journal said already, or it is an older one that was put back.
        listed = None if self._listed_taken else _listed(self.crl)
        try:
            for event in self._journal.news():
                self._take(event)
        except OSError as error:
            raise AuthorityError(f"The journal of {self.folder} cannot be read ({error.strerror}).") from None
        if not self._listed_taken:
            self._listed_taken = True
            self._keep({f"{serial:x}" for serial in listed.serials} if listed else set())
        return self._fleet

    def _keep(self, listed: set[str]) -> None:
        """Let what was revoked once stay so, also where the journal came from a backup and does not know of it."""
        if unknown := listed - self._fleet.revoked:
            self._fleet.revoked |= unknown
            log.error(
                "%d certificates are in crl.pem and not revoked in the journal, as after a return to a backup. They stay refused: "
                "revoke their devices again, or enrol them with --again.",
                len(unknown),
            )

    @contextlib.contextmanager
    def turn(self) -> Iterator[Fleet]:
        """Have the journal alone: the fleet changes by `record` only. At the end the list of revoked certificates follows it.

        Raises:
            AuthorityError: if the folder cannot be written, or the clock cannot be right.
        """
        began = self.maker.certificate.not_valid_before_utc
        if (now := self.now()) < began:
            raise AuthorityError(f"This machine's clock says {now:%Y-%m-%d}, long before the authority was made; set the clock.")
        try:
            with self._journal.turn():
                yield self.fleet()
                self._write_crl()
        except OSError as error:
            raise AuthorityError(f"The authority in {self.folder} cannot be written ({error.strerror or error}).") from None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from enrolling meanwhile, without holding up those who renew or revoke. Raises AuthorityError."""
        try:
            with locked(self.folder / "enrolling.lock", patience_s=60.0):
                yield
        except OSError as error:
            raise AuthorityError(f"The authority in {self.folder} cannot be written ({error.strerror or error}).") from None

    def record(self, event: Event) -> None:
        """Let an event happen, in one's turn; on return it is durable.

        Raises:
            AuthorityError: if the disk does not take it.
        """
        self._journal.append(event)
        self._take(event)

    def _take(self, event: Event) -> None:
        self._fleet.take(event)
        self._events += 1

    def _write_crl(self) -> None:
        serials = {int(serial, 16) for serial in self._fleet.revoked}
        there = _listed(self.crl)
        if there is None or serials != there.serials:
            number = self._events if there is None else max(self._events, there.number + 1)
            write_durably(self.crl, self.maker.revocations(serials, number))
            self.lists += 1


def load_maker(folder: Path) -> Maker:
    """Read the root of an authority. Raises AuthorityError if it cannot be used."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise AuthorityError(f"ca.pem and ca.key in {folder} cannot be read ({error}); put them back from the backup.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise AuthorityError(f"ca.key in {folder} is not the key of ca.pem; put both back from the backup.")
    return Maker(certificate, key)


def require_private(folder: Path) -> None:
    """Make a folder that its owner alone may enter. Raises AuthorityError if others can, or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            raise AuthorityError(f"{folder} is open to other users; secrets are kept there. Close it: chmod 700 {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise AuthorityError(f"{folder} cannot be written to by this user.")
    except OSError as error:
        raise AuthorityError(f"{folder} cannot be made or used ({error.strerror}).") from None


@dataclass(frozen=True)
class _List:
    """A list of revoked certificates."""

    serials: set[int]
    number: int


def _listed(crl: Path) -> _List | None:
    """Return what a list says; None where there is none that can be read."""
    try:
        read = x509.load_pem_x509_crl(crl.read_bytes())
        number = read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return _List({one.serial_number for one in read}, number)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
