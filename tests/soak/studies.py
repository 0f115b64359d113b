"""Studies: files that each look different, what should become of each, and by which names the centre may know it.

The centre knows a study by its source key, an HMAC of one of two things: the SOP Instance UID where the file could be read, else
the bytes of the file and its intake. All are worked out here from what was sent, without asking the device.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageChops
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from export.phantom import phantom

Way = Literal["machine", "folder", "page"]
Kind = Literal["result", "refusal", "failure"]

_SIDE = 200
_UID = "1.2.826.0.1.3680043.10.1406.1"
_PREAMBLE = bytes(128) + b"DICM"


@dataclass(frozen=True)
class Study:
    """One picture. `kind`: what the device should make of it. A DICOM object has a SOP Instance UID of its own."""

    number: int
    way: Way
    kind: Kind
    dicom: bool

    @property
    def name(self) -> str:
        return f"study-{self.number:06d}{'.dcm' if self.dicom else '.png'}"

    @property
    def uid(self) -> str:
        return f"{_UID}.{self.number + 1_000_000}"  # all of one length

    def content(self) -> bytes:
        """Return the bytes of the file."""
        if self.dicom:
            return _PREAMBLE + self._meta() + self._data_set()
        file = io.BytesIO()
        self._picture().save(file, format="PNG", compress_level=1)
        return file.getvalue()[: -1000 if self.kind == "failure" else None]

    def sources(self, intake_id: str = "", content: bytes = b"") -> set[str]:
        """Return what the device may take for its identity, given the intake and the bytes that it put into the spool."""
        by_uid = {f"sop:{self.uid}"} if self.dicom else set()
        return by_uid | ({f"file:{hashlib.sha256(content).hexdigest()}:{intake_id}"} if intake_id else set())

    def sources_by_c_store(self) -> set[str]:
        """Return the same for an object that came over the network, of which the listener writes the head itself."""
        data = self._data_set()
        mark = f"{self.uid}\0{ExplicitVRLittleEndian}\0{hashlib.sha256(data).hexdigest()}"
        return self.sources(hashlib.sha256(mark.encode()).hexdigest()[:32], _PREAMBLE + self._meta() + data)

    def _meta(self) -> bytes:
        named = {"sop_class_uid": ComputedRadiographyImageStorage, "sop_instance_uid": UID(self.uid)}
        return encode_file_meta(create_file_meta(**named, transfer_syntax=ExplicitVRLittleEndian))

    def _data_set(self) -> bytes:
        picture = self._picture()
        head = _head(picture.width, f"{_UID}.1000000").replace(f"{_UID}.1000000".encode(), self.uid.encode())
        pixels = picture.tobytes()
        pixels = pixels[: 100 if self.kind == "failure" else None]
        return head + b"\xe0\x7f\x10\x00OB\0\0" + len(pixels).to_bytes(4, "little") + pixels

    def _picture(self) -> Image.Image:
        """A drawn chest, shaded in a way of its own; or what the quality gate refuses, of three sorts."""
        rng = np.random.default_rng(self.number)
        if self.kind == "refusal":
            sort = self.number % 3
            side = 64 if sort == 0 else _SIDE
            values = rng.integers(0, 256, (side, side), dtype=np.uint8) // (1, 1, 64)[sort]
            return Image.fromarray(values)
        shade = Image.fromarray(rng.integers(0, 12, (8, 8), dtype=np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        return ImageChops.add(_chest(), shade)


def intake_id(status: os.stat_result, name: str) -> str:
    """Return the intake id of a file in the watched folder (`edge.intake.spool`)."""
    mark = f"{name}\0{status.st_dev}\0{status.st_ino}\0{status.st_size}\0{status.st_ctime_ns}"
    return hashlib.sha256(mark.encode()).hexdigest()[:32]


@functools.cache
def _chest() -> Image.Image:
    return Image.fromarray(phantom(1, width=_SIDE, height=_SIDE))


@functools.cache
def _head(side: int, uid: str) -> bytes:
    """The elements before the pixels, in Explicit VR Little Endian."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, uid
    data.StudyInstanceUID = data.SeriesInstanceUID = "1.2.3.4"
    data.PatientName, data.PatientID, data.PatientBirthDate = "Lovelace^Ada", "MRN-778", "18151210"
    data.Modality = "CR"
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, data)
    return file.getvalue()
