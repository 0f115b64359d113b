"""Reports of storage commitment (N-EVENT-REPORT): on the association that asked while it is open and quiet, else on a new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import apsw
import msgspec
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_role
from pynetdicom.association import Association

from edge.config import Dicom
from edge.dicom.commitment import Instance, Judge, Request, Requests, Verdict
from edge.dicom.guard import GuardedApplication, Limits
from edge.dicom.messages import Messages
from edge.dicom.peers import Peer, find_peer, shown
from edge.dicom.tls import client_tls
from edge.errors import CxrError

log = logging.getLogger(__name__)

PUSH_MODEL = UID("1.2.840.10008.1.20.1")
PUSH_MODEL_INSTANCE = UID("1.2.840.10008.1.20.1.1")

_QUIET_S = 0.5
"""The answer to the request goes first, and a machine that is sending objects is not interrupted."""
_PAUSE_S = (10.0, 900.0)
_GIVE_UP_S = 24 * 3600.0
_NO_SUCH_OBJECT = 0x0112
_ALL, _SOME_FAILED = 1, 2


@dataclass
class _Waiting:
    request: Request
    due: float
    since: float = field(default_factory=time.monotonic)
    assoc: Association | None = None


class Reporter:
    """Answers requests one after the other, in a thread of its own, until each is answered or a day has passed."""

    def __init__(
        self, requests: Requests, judge: Judge, connect: Callable[[str, str], Association], pauses: tuple[float, float] = _PAUSE_S
    ) -> None:
        """`connect` opens an association with an (AE title, address) for reports, or raises CxrError saying why it cannot."""
        self._requests = requests
        self._judge = judge
        self._connect = connect
        self._pauses = pauses
        self._lock = threading.Lock()
        now = time.monotonic()
        self._waiting = {request.name: _Waiting(request, now) for request in requests.waiting()}
        self._ended = threading.Event()
        self.turned = False
        """Whether `run` has done something since this was reset: looked for what is due, or attended to one request."""

    def accept(self, request: Request, assoc: Association) -> None:
        """Keep a new request and answer it soon. Raises OSError if it cannot be kept."""
        with self._lock:
            self._requests.keep(request)
            self._waiting[request.name] = _Waiting(request, time.monotonic() + _QUIET_S, assoc=assoc)

    def run(self) -> None:
        """Report what is due, until `end`."""
        while not self._ended.wait(0.1):
            self.turned = True
            now = time.monotonic()
            with self._lock:
                due = [waiting for waiting in self._waiting.values() if waiting.due <= now]
            for waiting in due:
                if self._ended.is_set():
                    return
                self._attend(waiting)
                self.turned = True

    def end(self) -> None:
        """Let `run` return; what waits is taken up at the next start."""
        self._ended.set()

    def _attend(self, waiting: _Waiting) -> None:
        assoc = waiting.assoc
        if assoc is not None and assoc.is_established and not _quiet(assoc):
            waiting.due = time.monotonic() + _QUIET_S
            return
        try:
            verdict = self._judge.judge(waiting.request)
            if not self._on_open(assoc, waiting.request, verdict):
                self._on_new(waiting.request, verdict)
        except (CxrError, apsw.Error, OSError, RuntimeError, ValueError) as error:
            self._put_off(waiting, str(error) if isinstance(error, CxrError) else type(error).__name__)
            return
        title = shown(waiting.request.ae_title)
        log.info("%s was told: %d committed, %d not known here", title, len(verdict.committed), len(verdict.unknown))
        self._drop(waiting)

    def _on_open(self, assoc: Association | None, request: Request, verdict: Verdict) -> bool:
        try:
            return assoc is not None and assoc.is_established and _report(assoc, request, verdict)
        except (RuntimeError, ValueError):  # it ended at this moment
            return False

    def _on_new(self, request: Request, verdict: Verdict) -> None:
        assoc = self._connect(request.ae_title, request.address)
        try:
            if not _report(assoc, request, verdict):
                raise CxrError("it did not take the report")
        finally:
            if assoc.is_established:
                assoc.release()

    def _put_off(self, waiting: _Waiting, why: str) -> None:
        now = time.monotonic()
        request = waiting.request
        waited = request.waited_s + now - waiting.since
        if waited > _GIVE_UP_S:
            log.error("%s is not told about its storage commitment any more: %s", shown(request.ae_title), why)
            self._drop(waiting)
            return
        pause = min(self._pauses[0] * 2**request.tried, self._pauses[1])
        log.warning("%s is told about its storage commitment in %.0f s: %s", shown(request.ae_title), pause, why)
        waiting.request = msgspec.structs.replace(request, waited_s=waited, tried=min(request.tried + 1, 20))
        waiting.since, waiting.due, waiting.assoc = now, now + pause, None
        try:
            with self._lock:
                if self._waiting.get(request.name) is waiting:
                    self._requests.keep(waiting.request)
        except OSError as error:
            log.error("a request of storage commitment cannot be updated (%s)", error.strerror)

    def _drop(self, waiting: _Waiting) -> None:
        with self._lock:
            if self._waiting.get(waiting.request.name) is waiting:  # else it was asked again meanwhile
                del self._waiting[waiting.request.name]
                self._requests.forget(waiting.request)


def connector(settings: Dicom, peers: tuple[Peer, ...], limits: Limits) -> Callable[[str, str], Association]:
    """Return what opens an association with an (AE title, address) for reports, in which this side is the provider.

    It raises CxrError if the machine has no port in `allow`, cannot be reached or does not accept. Raises as `server_tls`.
    """
    tls = client_tls(settings)

    def connect(ae_title: str, address: str) -> Association:
        peer = find_peer(peers, ae_title, address)
        if peer is None or peer.port is None:
            raise CxrError(f"[dicom] allow has no port for it; write {shown(ae_title)}@{address}:PORT")
        application = GuardedApplication(settings.ae_title, limits)
        application.add_requested_context(PUSH_MODEL, [ImplicitVRLittleEndian])
        assoc = application.call(peer.address, peer.port, peer.ae_title, tls, [build_role(PUSH_MODEL, scp_role=True)])
        if not assoc.is_established:
            raise CxrError(f"{peer.address}:{peer.port} cannot be reached or does not accept {settings.ae_title}")
        return assoc

    return connect


def _quiet(assoc: Association) -> bool:
    return isinstance(assoc.dimse, Messages) and time.monotonic() - assoc.dimse.heard_at >= _QUIET_S


def _report(assoc: Association, request: Request, verdict: Verdict) -> bool:
    """Send the report; return whether the machine took it."""
    report = Dataset()
    report.TransactionUID = request.transaction
    if verdict.committed:
        report.ReferencedSOPSequence = [_reference(instance) for instance in verdict.committed]
    if verdict.unknown:
        report.FailedSOPSequence = [_reference(instance) for instance in verdict.unknown]
        for item in report.FailedSOPSequence:
            item.FailureReason = _NO_SUCH_OBJECT
    event = _SOME_FAILED if verdict.unknown else _ALL
    status, _ = assoc.send_n_event_report(report, event, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    return bool(status.get("Status", 0xFFFF) == 0)


def _reference(instance: Instance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = UID(instance.sop_class)
    item.ReferencedSOPInstanceUID = UID(instance.sop_instance)
    return item
