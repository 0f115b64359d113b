"""One association with the PACS: C-ECHO and C-STORE, and which of its answers mean what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom.association import Association

from edge.config import Pacs
from edge.dicom.guard import GuardedApplication, Limits
from edge.dicom.tls import client_tls
from edge.errors import CxrError
from edge.pacs.orders import PICTURE, REPORT

SOP_CLASS = {PICTURE: SecondaryCaptureImageStorage, REPORT: ComprehensiveSRStorage}
_VERIFICATION = UID("1.2.840.10008.1.1")
_MAX_PDU = 65_536
_DUPLICATE = 0x0111
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)


class Away(CxrError):
    """The PACS could not be asked, or had no room: the same is to be sent later."""


class NotTaken(CxrError):
    """The PACS does not take this object."""


class BrokeOff(CxrError):
    """The association ended over this object: it may be the object's fault, or that of the PACS or the link."""


@contextlib.contextmanager
def associated(link: Pacs, kinds: tuple[str, ...]) -> Iterator[Association]:
    """Open an association to send objects of these kinds.

    Raises:
        Away: if the PACS cannot be reached or rejects it.
        CxrError: if the TLS files cannot be used.
    """
    application = GuardedApplication(link.calling_ae_title, Limits(_MAX_PDU, link.silent_s, 1, frozenset()))
    application.add_requested_context(_VERIFICATION, [ImplicitVRLittleEndian])
    for kind in kinds:
        application.add_requested_context(SOP_CLASS[kind], [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    where = f"{link.address}:{link.port}"
    association = application.call(link.address, link.port, link.called_ae_title, client_tls(link, "pacs"))
    if association.is_rejected:
        raise Away(f"{where} rejects the association. Does it know {link.calling_ae_title}, and is it {link.called_ae_title}?")
    if not association.is_established:
        raise Away(f"{where} cannot be reached, or speaks another kind of TLS.")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def echo(association: Association) -> None:
    """Ask whether the other side is there. Raises Away if it does not say so."""
    if association.send_c_echo().get("Status") != 0:
        raise Away("The PACS does not answer C-ECHO with success.")


def takes(association: Association, kind: str) -> bool:
    """Return whether the other side has accepted objects of a kind."""
    return any(context.abstract_syntax == SOP_CLASS[kind] for context in association.accepted_contexts)


def store(association: Association, kind: str, data: Dataset) -> None:
    """Send one object; on return the PACS has it.

    Raises:
        Away: if it has no room at present.
        BrokeOff: if it ended the association or did not answer in time.
        NotTaken: if it refuses the object, or objects of this kind.
    """
    if not takes(association, kind):
        raise NotTaken(f"it takes no objects of the kind {SOP_CLASS[kind].name}")
    try:
        status = association.send_c_store(data).get("Status")
    except RuntimeError:  # the association has just ended
        status = None
    if status is None:
        raise BrokeOff("it ended the association or did not answer in time")
    if status in _OUT_OF_RESOURCES:
        raise Away(f"The PACS has no room (0x{status:04X}).")
    # A PACS that does not want an object twice has it, and one that warns has stored it.
    if status not in (0, _DUPLICATE) and status not in _WARNINGS:
        raise NotTaken(f"0x{status:04X}")
