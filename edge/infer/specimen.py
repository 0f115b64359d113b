"""A test film that the device makes itself, and how it is known again.

Its SOP Instance UID carries eight bytes of chance and eight that only the site key makes of them: no film of a patient is ever
taken for one, and nobody without the key can keep an outcome out of the centre's counts.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from edge.privacy.pseudonym import SiteKey

_ROOT = "2.25."
_HALF = 8
_NAME = "TEST^FILM"


def new_uid(key: SiteKey) -> str:
    """Return the SOP Instance UID of a new test film."""
    chance = b"\x80" + secrets.token_bytes(_HALF - 1)  # never a leading zero, so that it has one spelling
    # Under the oldest key: a process that was not started again since the key was changed knows that one.
    return _ROOT + str(int.from_bytes(chance + _mark(key.all[-1], chance), "big"))


def is_specimen(key: SiteKey, sop_instance_uid: str | None) -> bool:
    """Return whether an object is a test film of a device with this key, or one that it had before."""
    number = (sop_instance_uid or "").removeprefix(_ROOT)
    if number == sop_instance_uid or not (number.isascii() and number.isdecimal() and len(number) <= 39):
        return False
    raw = int(number).to_bytes(2 * _HALF + 1, "big")[1:]
    marks = {_mark(each, raw[:_HALF]) for each in key.all}
    return raw[_HALF:] in marks and str(int.from_bytes(raw, "big")) == number


def write_specimen(path: Path, uid: str, drawing: Path) -> None:
    """Write the film as DICOM, uncompressed: a drawn chest (a PGM file) under a name that says what it is."""
    import numpy as np
    from PIL import Image
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    with Image.open(drawing) as opened:
        pixels = np.asarray(opened.convert("L").resize((512, 512), Image.Resampling.BICUBIC))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(uid)
    data.StudyInstanceUID = data.SeriesInstanceUID = UID(uid + ".1")
    data.PatientName, data.PatientID, data.Modality, data.ContentQualification = _NAME, "TEST", "DX", "SERVICE"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.add_new(0x7FE00010, "OB", pixels.tobytes())
    data.save_as(path, enforce_file_format=True)


def _mark(key: SiteKey, chance: bytes) -> bytes:
    return bytes.fromhex(key.keyed("test film", chance.hex()))[:_HALF]
