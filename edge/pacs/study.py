"""The study that an answer belongs to, and what every object that goes into it has in common."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from edge.contract.messages import AnyOutcome
from edge.errors import Unreadable
from edge.pacs.orders import PICTURE
from edge.pacs.uids import derived_uid
from edge.pacs.wording import PRELIMINARY, moment
from edge.pixels.study_header import MANUFACTURER, PATIENT_AND_STUDY, pack_header, unpack_header

NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
MAY_BE_EMPTY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyID",
)  # fmt: skip
_MAGIC_AT = 128


def find_header(packed: bytes, film: Path | None) -> Dataset:
    """Return what names patient and study, from what was kept of an object, else from the object itself.

    Raises:
        Unreadable: no_study: neither names a study and an object in it, or the object is an answer of such a device.
    """
    try:
        header = unpack_header(packed) if packed else _of_file(film)
    except (ValueError, OSError) as error:
        raise Unreadable("no_study", type(error).__name__) from None
    if not all(str(header.get(name, "") or "") for name in NEEDED):
        raise Unreadable("no_study", "it names none")
    if str(header.get("Manufacturer", "")) == MANUFACTURER:
        raise Unreadable("no_study", "it is an answer itself, which some PACS sends around")
    return header


def put_common(target: Dataset, header: Dataset, outcome: AnyOutcome, kind: str) -> None:
    """Put patient, study, series and equipment into an object.

    Patient and study are those of the picture, byte by byte. The series is one for each study and kind, the object one for each
    outcome and kind, whenever it is made.
    """
    study = str(header.StudyInstanceUID)
    when = moment(outcome)
    target.SeriesInstanceUID = derived_uid(outcome.device, outcome.facility, "series", kind, study)
    target.SeriesNumber = 9001 if kind == PICTURE else 9002
    target.SeriesDescription = f"cxr-edge: {PRELIMINARY}"
    target.SOPInstanceUID = derived_uid(outcome.epoch, outcome.seq, kind)
    target.InstanceNumber = outcome.seq
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = "cxr-edge"
    target.DeviceSerialNumber = outcome.device
    target.SoftwareVersions = outcome.software
    target.InstitutionName = outcome.facility
    target.InstanceCreationDate = target.ContentDate = when.strftime("%Y%m%d")
    target.InstanceCreationTime = target.ContentTime = when.strftime("%H%M%S")
    for name in MAY_BE_EMPTY:
        setattr(target, name, None)
    for tag in PATIENT_AND_STUDY:
        if tag in header:
            target[tag] = header.get_item(tag)
    # Else pydicom would read those values, in order to write them anew, and lose what their character set does not explain.
    target.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=target._character_set)


def _of_file(film: Path | None) -> Dataset:
    if film is None:
        raise FileNotFoundError
    with film.open("rb") as file:
        if file.read(_MAGIC_AT + 4)[_MAGIC_AT:] != b"DICM":
            raise ValueError
    try:
        # Inflating has no bound in pydicom, and what is deflated was refused.
        if pydicom.filereader.read_file_meta_info(film).get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
            raise ValueError
        return unpack_header(pack_header(pydicom.dcmread(film, stop_before_pixels=True)))
    except Exception as error:  # pydicom raises nearly anything on damaged data
        raise ValueError from error
