"""The DICOM listener: who may associate, for what, and what is answered."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable

import pydicom.uid as uids
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from edge.config import Dicom
from edge.dicom.arrival import CANNOT_UNDERSTAND, PROCESSING_FAILURE, SUCCESS, Admission
from edge.dicom.commitment import Instance, Request
from edge.dicom.guard import GuardedApplication, GuardedServer, Limits, fair_share
from edge.dicom.messages import Messages
from edge.dicom.peers import Peer, find_peer, normal, shown
from edge.dicom.reports import PUSH_MODEL, Reporter
from edge.dicom.tls import server_tls
from edge.errors import CxrError
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)

_VERIFICATION = uids.UID("1.2.840.10008.1.1")
_STORED = (
    uids.ComputedRadiographyImageStorage,
    uids.DigitalXRayImageStorageForPresentation,
    uids.DigitalXRayImageStorageForProcessing,
    uids.SecondaryCaptureImageStorage,
)
_SYNTAXES = [
    uids.ExplicitVRLittleEndian,
    uids.ImplicitVRLittleEndian,
    uids.RLELossless,
    uids.JPEGBaseline8Bit,
    uids.JPEGExtended12Bit,
    uids.JPEGLossless,
    uids.JPEGLosslessSV1,
    uids.JPEGLSLossless,
    uids.JPEGLSNearLossless,
    uids.JPEG2000Lossless,
    uids.JPEG2000,
]
"""Never the deflated one: inflating has no bound."""
_UNCOMPRESSED = [uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian]
_REQUEST_COMMITMENT = 1
_INVALID_ARGUMENT, _NO_SUCH_ACTION, _RESOURCE_LIMITATION = 0x0115, 0x0123, 0x0213
_GRACE_S = 15.0
"""For what is being received when the process is told to end; its supervisor waits 20 s."""
_STORE_S = 60.0
"""Longer than this no disk that works takes to force an object that has arrived."""
_REJECTED, _TRANSIENT = 0x01, 0x02
_USER, _PRESENTATION = 0x01, 0x03
_CALLING_UNKNOWN, _CALLED_UNKNOWN, _CONGESTION, _LIMIT = 0x03, 0x07, 0x01, 0x02


class Listener:
    """Takes objects from the machines of `allow` into the spool."""

    def __init__(
        self,
        settings: Dicom,
        peers: tuple[Peer, ...],
        limits: Limits,
        admission: Admission,
        reporter: Reporter,
        progress: Callable[[], object] = nothing,
    ) -> None:
        """Bind and listen. `progress` is called while all of it works: see `_works`.

        Raises:
            CxrError: if the address cannot be listened on, or the TLS files cannot be used.
        """
        self._settings = settings
        self._peers = peers
        self._reporter = reporter
        self._admission = admission
        self._progress = progress
        self._storing: dict[Association, float] = {}
        self._admitted: set[Association] = set()
        self._lock = threading.Lock()
        self._ending = False
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_CONN_CLOSE, lambda event: _messages(event.assoc).drop()),
        ]
        place = settings.address, settings.port
        try:
            self._server = GuardedServer(
                _application(settings.ae_title, limits),
                place,
                server_tls(settings),
                handlers,
                limits,
                lambda assoc: Messages(assoc, admission, settings.object_s),
            )
        except OSError as error:
            why = f"{place[0]}:{place[1]} cannot be listened on ({error.strerror}). See [dicom] address and port."
            raise CxrError(why) from None

    def run(self, stop: Stop) -> None:
        """Serve until told to stop; then finish what is being received, and end."""
        for work in (lambda: self._server.serve_forever(0.2), self._reporter.run):
            threading.Thread(target=work, daemon=True).start()
        log.info("%s listens on %s:%d", self._settings.ae_title, self._settings.address, self._settings.port)
        while not stop.is_set():
            if self._works():
                self._progress()
            time.sleep(0.2)
        self._ending = True
        self._reporter.end()
        self._server.stop_listening()
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until and any(_messages(assoc).receiving for assoc in self._server.active_associations):
            self._progress()
            time.sleep(0.05)
        for assoc in self._server.active_associations:
            if assoc.is_established:
                assoc.abort(block=False)
        time.sleep(0.2)  # for what says so to those who are still there
        self._server.cut_off()

    def _works(self) -> bool:
        """Whether the threads that accept and that report have turned since the last yes, the disk answers and no object hangs."""
        with self._lock:
            oldest = min(self._storing.values(), default=time.monotonic())
        self._admission.has_room()
        turned = self._server.turned and self._reporter.turned
        if turned:
            self._server.turned = self._reporter.turned = False
        return turned and time.monotonic() - oldest < _STORE_S

    def _on_request(self, event: Event) -> None:
        """Reject an association that may not be; pynetdicom accepts the others."""
        assoc = event.assoc
        asked = assoc.requestor.primitive
        assert asked is not None
        calling, called = str(asked.calling_ae_title).strip(), str(asked.called_ae_title).strip()
        address = str(assoc.remote["address"])
        with self._lock:
            self._admitted = {known for known in self._admitted if known.is_alive()}
            refusal = self._refusal(calling, called, address)
            if refusal is None:
                self._admitted.add(assoc)
                return
        why, result, source, diagnostic = refusal
        text = "an association of %s at %s was rejected: %s"
        log.warning(text, shown(calling), address, why, extra={"event": "rejected", "fields": {"peer": address}})
        assoc.acse.send_reject(result, source, diagnostic)
        assoc.kill()  # waits until the rejection is sent

    def _refusal(self, calling: str, called: str, address: str) -> tuple[str, int, int, int] | None:
        if find_peer(self._peers, calling, address) is None:
            return "[dicom] allow has no such AE title at this address", _REJECTED, _USER, _CALLING_UNKNOWN
        if called != self._settings.ae_title:
            return f"it asked for {shown(called)}, and this is {self._settings.ae_title}", _REJECTED, _USER, _CALLED_UNKNOWN
        if self._ending:
            return "the device is being stopped", _TRANSIENT, _PRESENTATION, _CONGESTION
        if len(self._admitted) >= self._settings.max_associations:
            return "there are as many associations as allowed", _TRANSIENT, _PRESENTATION, _LIMIT
        machines = {peer.address for peer in self._peers}
        of_this = sum(normal(str(known.remote["address"])) == normal(address) for known in self._admitted)
        if of_this >= fair_share(self._settings.max_associations, len(machines)):
            return "it has as many associations as one machine may, so that others find room", _TRANSIENT, _PRESENTATION, _LIMIT
        return None

    def _on_store(self, event: Event) -> int:
        assert isinstance(event.request, C_STORE)
        arrival = _messages(event.assoc).take(str(event.request.AffectedSOPInstanceUID))
        if arrival is None:
            return CANNOT_UNDERSTAND
        with self._lock:
            self._storing[event.assoc] = time.monotonic()
        try:
            return arrival.finish()
        except Exception as error:  # a fault here must end neither the association nor the process
            log.error("an object could not be taken in (%s)", type(error).__name__)
            return PROCESSING_FAILURE
        finally:
            arrival.drop()
            with self._lock:
                del self._storing[event.assoc]

    def _on_action(self, event: Event) -> tuple[int, None]:
        """Keep a request of storage commitment; its answer comes in a report of its own."""
        if event.action_type != _REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        try:
            request = _read_request(event)
        except Exception as error:  # pydicom raises nearly anything on damaged data
            log.warning("a request of storage commitment makes no sense (%s)", type(error).__name__)
            return _INVALID_ARGUMENT, None
        try:
            self._reporter.accept(request, event.assoc)
        except OSError as error:
            log.error("a request of storage commitment cannot be kept (%s)", error.strerror)
            return _RESOURCE_LIMITATION, None
        return SUCCESS, None


def limits_of(settings: Dicom, peers: tuple[Peer, ...]) -> Limits:
    """Return what a peer may do: twice as many connections as associations, since some are just ending."""
    known = frozenset(peer.address for peer in peers)
    return Limits(settings.max_pdu, settings.silent_s, 2 * settings.max_associations, known)


def be_silent() -> None:
    """Keep what libraries say out of the log: it quotes values of objects. What matters is said here, without them."""
    warnings.simplefilter("ignore")
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    threading.excepthook = lambda fault: log.error("a connection ended with %s", fault.exc_type.__name__)


def _application(ae_title: str, limits: Limits) -> GuardedApplication:
    application = GuardedApplication(ae_title, limits)
    application.maximum_associations = 1000  # counted here: pynetdicom counts connections that are no association yet
    application.add_supported_context(_VERIFICATION, _UNCOMPRESSED)
    application.add_supported_context(PUSH_MODEL, _UNCOMPRESSED)
    for stored in _STORED:
        application.add_supported_context(stored, _SYNTAXES)
    return application


def _read_request(event: Event) -> Request:
    asked = event.action_information
    instances = [
        Instance(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in asked.ReferencedSOPSequence
    ]
    remote = event.assoc.remote
    return Request(str(uids.UID(asked.TransactionUID)), str(remote["ae_title"]).strip(), str(remote["address"]), instances)


def _messages(assoc: Association) -> Messages:
    messages = assoc.dimse
    assert isinstance(messages, Messages)
    return messages
