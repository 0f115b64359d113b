"""What a DICOM object says beside its pixels. What identifies stays on the device; for the rest see `edge.privacy.pseudonym`."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Literal

import msgspec

from edge.pixels.study_header import pack_header
from edge.pixels.view_position import View, element, read_view

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Sex = Literal["F", "M", "O"]


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one object, cleaned but not yet pseudonymous; empty where the file does not say."""

    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_name: str | None = None
    exam_date: str | None = None
    age_years: int | None = None
    sex: Sex | None = None
    view: View | None = None
    study: bytes = b""
    """See `edge.pixels.study_header`."""


NO_HEADERS = Headers()
"""Of a picture that is not DICOM."""

_SEXES: dict[str, Sex] = {"F": "F", "M": "M", "O": "O"}
_OLDEST = 125
"""A date of birth further back is one that nobody filled in."""
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_headers(data: Dataset) -> Headers:
    """Return the headers of one DICOM object; a value that makes no sense is left out, never an error."""
    study = pack_header(data)  # before anything has looked at a value
    exam = _date(element(data, "AcquisitionDate") or element(data, "StudyDate"))
    return Headers(
        sop_instance_uid=element(data, "SOPInstanceUID"),
        study_instance_uid=element(data, "StudyInstanceUID"),
        patient_id=element(data, "PatientID"),
        issuer_of_patient_id=element(data, "IssuerOfPatientID"),
        patient_name=element(data, "PatientName"),
        exam_date=exam,
        age_years=_age(element(data, "PatientAge"), _date(element(data, "PatientBirthDate")), exam),
        sex=_SEXES.get((element(data, "PatientSex") or "").upper()),
        view=read_view(data),
        study=study,
    )


def age_band(years: int | None) -> str | None:
    """Return the ten-year band of an age, `90+` above 89."""
    if years is None or not 0 <= years <= 130:
        return None
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _date(text: str | None) -> str | None:
    """Return a DICOM DA (YYYYMMDD) as YYYY-MM-DD."""
    if text is None or len(text) != 8 or not text.isascii() or not text.isdigit():
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])).isoformat()
    except ValueError:  # there is no such day
        return None


def _age(text: str | None, born: str | None, exam: str | None) -> int | None:
    """Return whole years from birth and examination, else from a DICOM AS, also one without its leading zeros (45Y).

    The date of birth comes first: consoles that do not know the age send 000Y, which is not the age of an infant.
    """
    if born and exam and born <= exam and (years := int(exam[:4]) - int(born[:4]) - (exam[5:] < born[5:])) <= _OLDEST:
        return years
    found = re.fullmatch(r"([0-9]{1,3})([DWMY])", (text or "").upper())
    if found is None or (found[2] == "Y" and int(found[1]) == 0):
        return None
    return int(int(found[1]) * _YEARS[found[2]])
