"""The centre's side of renewal: who is asked, what is signed, and who is refused because it was revoked.

The centre decides when, as its clock is right. A device that is heard, and whose certificate is due, is asked; it answers with a
request for a new key; it gets a certificate; it says that it uses it. Whatever is lost in between, it is asked again, and what it
has stays good. The key that came in the enrolment file is due at once, and counts no more when the device has one of its own.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.errors import AuthorityError
from broker.fleet.authority import Authority
from broker.fleet.broker_process import reload
from broker.fleet.certificates import certificate_pem
from broker.fleet.standing import Installed, Issue, Renewal
from broker.ingest import Decision, Greeted, Replied, Reported
from edge.contract.messages import Command, Reply

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 6 * 3600.0


@dataclass
class _Asked:
    """What one device was asked.

    `since`: the certificate that it had then; a device that was enrolled again since is another. `serial`: of the one that was
    sent, empty while its request is waited for. `closed`: what it answered was of no use; it is asked anew after the pause.
    """

    id: str
    since: str
    at: float
    pause_s: float = _FIRST_PAUSE_S
    serial: str = ""
    closed: bool = False


class Renewals:
    """The `Answers` of the aggregator. May be called from several threads."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}
        self._said = ""
        self._behind = True
        self._told: int | None = None

    def revoked(self, serial: str) -> bool:
        """Return whether a certificate counts no more. `serial` is hexadecimal, in any way of writing it.

        Raises:
            AuthorityError: if the journal cannot be read. Whoever asked is to be sent away then.
        """
        with self._lock:
            return f"{int(serial, 16):x}" in self._authority.fleet().revoked

    def answers(self, decisions: Iterable[Decision]) -> list[Command]:
        """Return what is to be sent to the devices that these messages came from."""
        commands = []
        with self._lock:
            for decision in decisions:
                try:
                    commands += self._answer(decision)
                except AuthorityError as error:
                    self._behind = True
                    self._say_once(str(error))
                except Exception as error:  # no message may end what takes results
                    self._say_once(f"a message could not be answered ({type(error).__name__}).", error)
            self._follow()
        return commands

    def follow(self) -> None:
        """Have the list of revoked certificates follow the journal, and the broker the list. To be called at the start."""
        with self._lock:
            self._follow()

    def _follow(self) -> None:
        try:
            if self._behind:  # the disk may have been full
                with self._authority.turn():
                    pass
                self._behind = False
            if self._told != self._authority.lists:
                reload(self._authority)
                self._told = self._authority.lists
        except AuthorityError as error:
            self._say_once(str(error))

    def _say_once(self, sentence: str, error: Exception | None = None) -> None:
        if sentence != self._said:
            self._said = sentence
            log.error("Certificates are not renewed, or not all: %s", sentence, exc_info=error)

    def _answer(self, decision: Decision) -> list[Command]:
        match decision:
            case Greeted(hello=hello):
                return self._ask(hello.device)
            case Reported(status=status, retained=False) if status.state == "online":
                return self._ask(status.device)
            case Replied(reply=reply):
                return self._on_reply(reply)
        return []

    def _ask(self, device: str) -> list[Command]:
        fleet = self._authority.fleet()
        member = fleet.members.get(device)
        if member is None or (used := member.used) is None or used.serial in fleet.revoked:
            return []  # of no interest: not ours, or revoked
        if used.by == "renewal" and self._authority.now() - used.made < self._authority.settings.renew_after:
            return []
        now, asked = time.monotonic(), self._asked.get(device)
        if asked is not None and now - asked.at < asked.pause_s:
            return []
        pause_s = _FIRST_PAUSE_S if asked is None else min(2 * asked.pause_s, _LONGEST_PAUSE_S)
        asked = self._asked[device] = _Asked(secrets.token_hex(16), used.serial, now, pause_s)
        return [Command(device=device, id=asked.id, verb="renew")]

    def _on_reply(self, reply: Reply) -> list[Command]:
        asked = self._asked.get(reply.device)
        if asked is None or asked.id != reply.id or asked.closed:
            return []  # to somebody else, to an earlier question, or once more
        if not reply.ok:
            asked.closed = True
            log.warning("%s does not renew its certificate: %.200r.", reply.device, reply.detail)
            return []
        if asked.serial:
            if reply.request is None:  # else what it asked for came twice, which says nothing of the certificate
                self._installed(reply.device, asked.serial)
            return []
        if reply.request is None or (key := _requested(reply.request, reply.device)) is None:
            asked.closed = True
            log.warning("%s asks for a certificate in a way that is not understood.", reply.device)
            return []
        authority, now = self._authority, self._authority.now()
        with authority.turn() as fleet:
            member = fleet.members.get(reply.device)
            if member is None or member.used is None or member.used.serial != asked.since:
                return []  # revoked meanwhile, or enrolled again: then this may be a lost card that asks
            made = authority.maker.client(reply.device, key, now, authority.settings.lasts)
            asked.serial = f"{made.serial_number:x}"
            authority.record(Renewal(now, Issue(reply.device, asked.serial, made.not_valid_after_utc)))
        certificate = certificate_pem(made).decode("ascii")
        return [Command(device=reply.device, id=asked.id, verb="certificate", certificate=certificate)]

    def _installed(self, device: str, serial: str) -> None:
        with self._authority.turn():  # the key that came in its file counts no more
            self._authority.record(Installed(self._authority.now(), device, serial))
        del self._asked[device]
        log.info("%s has renewed its certificate.", device)


def _requested(request: str, device: str) -> ec.EllipticCurvePublicKey | None:
    """Return the key in a request, if it is a sound one for that device; else None."""
    try:  # what is malformed inside shows only when it is looked at
        read = x509.load_pem_x509_csr(request.encode("ascii"))
        key = read.public_key()
        sound = read.is_signature_valid
        names = [name.value for name in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception:  # as a device sends it: whatever the parser raises, it is no request
        return None
    if not sound or names != [device] or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return None
    return key
