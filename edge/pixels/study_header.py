"""What a DICOM object says of its patient and its study, kept byte by byte: what is sent back to a PACS has to belong to the same.

A picture may be removed for room before the PACS can be reached; this lies beside the outbox instead, with the patient's name
(`edge.infer.local`). Values are copied and never understood: whatever their character set, they come back as they came.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PATIENT_AND_STUDY: dict[int, str] = {
    0x00080005: "CS",  # Specific Character Set
    0x00080020: "DA",  # Study Date
    0x00080030: "TM",  # Study Time
    0x00080050: "SH",  # Accession Number
    0x00080090: "PN",  # Referring Physician's Name
    0x00081030: "LO",  # Study Description
    0x00100010: "PN",  # Patient's Name
    0x00100020: "LO",  # Patient ID
    0x00100021: "LO",  # Issuer of Patient ID
    0x00100030: "DA",  # Patient's Birth Date
    0x00100040: "CS",  # Patient's Sex
    0x00101010: "AS",  # Patient's Age
    0x0020000D: "UI",  # Study Instance UID
    0x00200010: "SH",  # Study ID
}
"""Tag -> value representation of what is written into an answer as it came."""

SOURCE: dict[int, str] = {
    0x00080016: "UI",  # SOP Class UID
    0x00080018: "UI",  # SOP Instance UID
    0x00080070: "LO",  # Manufacturer
    0x0020000E: "UI",  # Series Instance UID
    0x00200020: "CS",  # Patient Orientation
}
"""Tag -> value representation of what an answer refers to its picture by."""

MANUFACTURER = "cxr-edge"
"""Of what this software makes: an answer is no X-ray, also where a PACS sends everything around."""

_ELEMENT = struct.Struct("<HHL")
_MOST_BYTES = 1024
"""Of one value; the longest that DICOM allows here, a name in three scripts, is shorter."""


def pack_header(data: Dataset) -> bytes:
    """Return those elements of an object as implicit little endian; empty if they cannot be taken out."""
    from pydicom.charset import convert_encodings
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    try:
        for tag in sorted(PATIENT_AND_STUDY | SOURCE):
            if tag in data and (element := data.get_item(tag)).value and len(element.value) <= _MOST_BYTES:
                # What nobody has looked at yet is written as it was read, and needs no character set.
                encodings = None if element.is_raw else convert_encodings(data.get("SpecificCharacterSet"))
                write_data_element(buffer, element, encodings)
    except Exception:  # pydicom raises nearly anything on damaged data
        return b""
    return buffer.getvalue()


def unpack_header(packed: bytes) -> Dataset:
    """Return what `pack_header` packed, ready to be put into another object, values unread.

    Raises:
        ValueError: if it is damaged.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import Tag

    vr_of = PATIENT_AND_STUDY | SOURCE
    header = Dataset()
    at = 0
    while at < len(packed):
        if len(packed) - at < _ELEMENT.size:
            raise ValueError("a kept header is cut short")
        group, element, length = _ELEMENT.unpack_from(packed, at)
        tag = Tag(group, element)
        at += _ELEMENT.size
        value = packed[at : at + length]
        at += length
        if tag not in vr_of or len(value) < length:
            raise ValueError("a kept header is damaged")
        header[tag] = RawDataElement(tag, vr_of[tag], length, value, 0, is_implicit_VR=False, is_little_endian=True)
    return header
