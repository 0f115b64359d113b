"""The DICOM listener: who may associate, for what, and what is answered."""

from __future__ import annotations

import logging
import ssl
import threading
import time
import warnings

import pydicom.uid as uids
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from edge.config import Dicom
from edge.dicom.arrival import CANNOT_UNDERSTAND, PROCESSING_FAILURE, SUCCESS, Admission
from edge.dicom.guard import GuardedServer, Limits
from edge.dicom.messages import Messages
from edge.dicom.peers import find_peer, parse_peers
from edge.errors import CxrError
from edge.lifecycle import Stop
from edge.names import printable

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
_ASSOCIATE_S = 10.0
_GRACE_S = 8.0
"""For what is being received when the process is told to end; its supervisor waits 10 s."""
_REJECTED, _TRANSIENT = 0x01, 0x02
_USER, _PRESENTATION = 0x01, 0x03
_CALLING_UNKNOWN, _CALLED_UNKNOWN, _CONGESTION, _LIMIT = 0x03, 0x07, 0x01, 0x02


class Listener:
    """Takes objects from the machines of `allow` into the spool."""

    def __init__(self, settings: Dicom, admission: Admission) -> None:
        """Bind and listen.

        Raises:
            ConfigError: if `allow` has an entry that makes no sense.
            CxrError: if the address cannot be listened on, or the TLS files cannot be used.
        """
        be_silent()
        self._settings = settings
        self._peers = parse_peers(settings.allow)
        self._admitted: set[Association] = set()
        self._lock = threading.Lock()
        self._ending = False
        limits = Limits(
            settings.max_pdu, settings.silent_s, 2 * settings.max_associations, frozenset(peer.address for peer in self._peers)
        )
        try:
            self._server = GuardedServer(
                self._application(),
                (settings.address, settings.port),
                server_tls(settings) if settings.certificate else None,
                [
                    (evt.EVT_REQUESTED, self._on_request),
                    (evt.EVT_C_ECHO, self._on_echo),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_CONN_CLOSE, self._on_close),
                ],
                limits,
                lambda assoc: Messages(assoc, admission, settings.object_s),
            )
        except ssl.SSLError as error:
            raise CxrError(f"The TLS files of [dicom] cannot be used ({error.reason}).") from None
        except OSError as error:
            raise CxrError(
                f"{settings.address}:{settings.port} cannot be listened on ({error.strerror}). See [dicom] address and port."
            ) from None

    def run(self, stop: Stop) -> None:
        """Serve until told to stop; then finish what is being received, and end."""
        accepting = threading.Thread(target=self._server.serve_forever, daemon=True)
        accepting.start()
        log.info("%s listens on %s:%d", self._settings.ae_title, self._settings.address, self._settings.port)
        while not stop.is_set():
            time.sleep(0.2)
        self._ending = True
        self._server.stop_listening()
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until and any(_messages(assoc).receiving for assoc in self._server.active_associations):
            time.sleep(0.05)
        for assoc in self._server.active_associations:
            assoc.abort(block=False)

    def _application(self) -> AE:
        application = AE(self._settings.ae_title)
        application.require_called_aet = False  # so that the log says which title was asked for
        application.maximum_pdu_size = self._settings.max_pdu
        application.maximum_associations = 1000  # counted here: pynetdicom counts connections that are no association yet
        application.acse_timeout = _ASSOCIATE_S
        application.dimse_timeout = self._settings.silent_s
        application.network_timeout = self._settings.silent_s
        application.add_supported_context(_VERIFICATION, _UNCOMPRESSED)
        for stored in _STORED:
            application.add_supported_context(stored, _SYNTAXES)
        return application

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
        log.warning("an association of %s at %s was rejected: %s", printable(calling), address, why)
        assoc.acse.send_reject(result, source, diagnostic)
        assoc.kill()  # waits until the rejection is sent

    def _refusal(self, calling: str, called: str, address: str) -> tuple[str, int, int, int] | None:
        if find_peer(self._peers, calling, address) is None:
            return "[dicom] allow has no such AE title at this address", _REJECTED, _USER, _CALLING_UNKNOWN
        if called != self._settings.ae_title:
            return f"it asked for {printable(called)}, and this is {self._settings.ae_title}", _REJECTED, _USER, _CALLED_UNKNOWN
        if self._ending:
            return "the device is being stopped", _TRANSIENT, _PRESENTATION, _CONGESTION
        if len(self._admitted) >= self._settings.max_associations:
            return "there are as many associations as allowed", _TRANSIENT, _PRESENTATION, _LIMIT
        return None

    def _on_echo(self, event: Event) -> int:
        return SUCCESS

    def _on_store(self, event: Event) -> int:
        try:
            assert isinstance(event.request, C_STORE)
            arrival = _messages(event.assoc).take(str(event.request.AffectedSOPInstanceUID))
            return CANNOT_UNDERSTAND if arrival is None else arrival.finish()
        except Exception as error:  # a fault here must end neither the association nor the process
            log.error("an object could not be taken in (%s)", type(error).__name__)
            return PROCESSING_FAILURE

    def _on_close(self, event: Event) -> None:
        _messages(event.assoc).drop()


def server_tls(settings: Dicom) -> ssl.SSLContext:
    """Return the TLS settings of the listener: a peer has to show a certificate of `ca`. Raises OSError if a file is unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.certificate, settings.private_key)
    context.load_verify_locations(settings.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def be_silent() -> None:
    """Keep what libraries say out of the log: it quotes values of objects. What matters is said here, without them."""
    warnings.simplefilter("ignore")
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    threading.excepthook = lambda fault: log.error("a connection ended with %s", fault.exc_type.__name__)


def _messages(assoc: Association) -> Messages:
    messages = assoc.dimse
    assert isinstance(messages, Messages)
    return messages
