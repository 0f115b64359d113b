"""One object on its way from the network to the spool, written as it arrives, as a DICOM file and without re-encoding.

An object that cannot be kept is read to its end all the same and not written, so that its sender is told why.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from edge.intake.spool import Part, Spool

log = logging.getLogger(__name__)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000

_HEAD_BYTES = 64 * 1024
"""How far the SOP Instance UID is looked for; what stands before it is a few short elements."""
_SOP_INSTANCE_UID = 0x00080018


@dataclass(frozen=True)
class Admission:
    """Where objects go, and which: at most `max_bytes` of data set each, while there is room."""

    spool: Spool
    max_bytes: int
    has_room: Callable[[], bool]


class Arrival:
    """One object. Fragments are written by one thread, then `finish` is called by another."""

    def __init__(self, admission: Admission, sop_class: str, sop_instance: str, syntax: UID) -> None:
        """Begin; never raises for what the peer or the disk did: `finish` tells."""
        self.sop_instance = sop_instance
        self._admission = admission
        self._syntax = syntax
        self._status = SUCCESS
        self._size = 0
        self._head = bytearray()
        self._digest = hashlib.sha256()
        self._part: Part | None = None
        if not admission.has_room():
            self._refuse(OUT_OF_RESOURCES, "there is no room left; free space on the disk")
            return
        try:
            meta = create_file_meta(sop_class_uid=UID(sop_class), sop_instance_uid=UID(sop_instance), transfer_syntax=syntax)
            self._part = admission.spool.new_part()
            self._part.write(bytes(128) + b"DICM" + encode_file_meta(meta))
        except OSError as error:
            self._refuse(OUT_OF_RESOURCES, f"it cannot be written ({error.strerror})")
        except Exception as error:  # pydicom raises many types on values that are none
            self._refuse(CANNOT_UNDERSTAND, f"its identification makes no sense ({type(error).__name__})")

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes of the data set."""
        if self._part is None:
            return
        self._size += len(fragment)
        if self._size > self._admission.max_bytes:
            self._refuse(OUT_OF_RESOURCES, f"it is larger than {self._admission.max_bytes} bytes ([decode] max_file_mb)")
            return
        self._digest.update(fragment)
        if len(self._head) < _HEAD_BYTES:
            self._head += fragment[: _HEAD_BYTES - len(self._head)]
        try:
            self._part.write(fragment)
        except OSError as error:
            self._refuse(OUT_OF_RESOURCES, f"it cannot be written ({error.strerror})")

    def finish(self) -> int:
        """Bring the whole object into the spool, fsynced under its final name; return the status for its sender."""
        if self._part is None:
            return self._status
        if self._inner_instance() != self.sop_instance:
            self._refuse(CANNOT_UNDERSTAND, "its SOP Instance UID is missing or not the announced one")
            return self._status
        mark = f"{self.sop_instance}\0{self._syntax}\0{self._digest.hexdigest()}"
        intake_id = hashlib.sha256(mark.encode()).hexdigest()[:32]
        try:
            self._admission.spool.admit_part(self._part, intake_id, spool_name(self.sop_instance))
        except OSError as error:
            self._refuse(OUT_OF_RESOURCES, f"it cannot be forced to the disk ({error.strerror})")
        self._part = None
        return self._status

    def drop(self) -> None:
        """Forget an object that did not arrive whole; doing it twice, or after `finish`, is fine."""
        if self._part is not None:
            self._part.remove()
            self._part = None

    def _refuse(self, status: int, why: str) -> None:
        log.warning("an object is refused with 0x%04X: %s", status, why)
        self._status = status
        self.drop()

    def _inner_instance(self) -> str:
        """Return the SOP Instance UID inside the data set, empty if there is none that can be read."""
        try:
            data = read_dataset(
                BytesIO(self._head),
                self._syntax.is_implicit_VR,
                self._syntax.is_little_endian,
                stop_when=lambda tag, vr, length: tag > _SOP_INSTANCE_UID,
            )
            return str(data.get("SOPInstanceUID", "") or "").strip("\0 ")
        except Exception as error:  # pydicom raises nearly anything on damaged data
            log.warning("a data set cannot be read (%s)", type(error).__name__)
            return ""


def spool_name(sop_instance: str) -> str:
    """Return the sender's name of an object in the spool and the outbox: one for each SOP Instance UID, showing nothing of it."""
    return hashlib.sha256(f"sop\0{sop_instance}".encode()).hexdigest()[:32] + ".dcm"
