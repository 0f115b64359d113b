"""What a DICOM object says beside its pixels. Identifying values stay on the device; see `edge.pseudonym` for what leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Sex = Literal["F", "M", "O"]
View = Literal["AP", "PA", "LATERAL", "OTHER"]


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one object, cleaned but not yet pseudonymous; empty where the file does not say."""

    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    exam_date: str | None = None
    age_years: int | None = None
    sex: Sex | None = None
    view: View | None = None


NO_HEADERS = Headers()
"""Of a picture that is not DICOM."""

_VIEWS: dict[str, View] = {"AP": "AP", "PA": "PA", "LL": "LATERAL", "RL": "LATERAL", "LATERAL": "LATERAL", "LAT": "LATERAL"}
_VIEW_CODES: dict[str, View] = {
    "399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "R-40888": "PA",
    "399067008": "LATERAL", "R-102CD": "LATERAL", "399173006": "LATERAL", "R-10236": "LATERAL",
    "399198007": "LATERAL", "R-10232": "LATERAL",
}  # fmt: skip
"""SNOMED CT and the older SNOMED RT codes of DICOM's context group 4010; a DX object need not have a ViewPosition beside one."""
_SEXES: dict[str, Sex] = {"F": "F", "M": "M", "O": "O"}
_AGE_UNIT_IN_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_headers(data: Dataset) -> Headers:
    """Return the headers of one DICOM object; a value that makes no sense is left out, never an error."""
    exam = _date(_text(data, "AcquisitionDate") or _text(data, "StudyDate"))
    view = _text(data, "ViewPosition")
    return Headers(
        sop_instance_uid=_text(data, "SOPInstanceUID"),
        study_instance_uid=_text(data, "StudyInstanceUID"),
        patient_id=_text(data, "PatientID"),
        patient_name=_text(data, "PatientName"),
        exam_date=exam,
        age_years=_age(_text(data, "PatientAge"), _date(_text(data, "PatientBirthDate")), exam),
        sex=_SEXES.get((_text(data, "PatientSex") or "").upper()),
        view=_VIEWS.get(view.upper(), "OTHER") if view else _coded_view(data),
    )


def age_band(years: int | None) -> str | None:
    """Return the ten-year band of an age, `90+` above 89."""
    if years is None or not 0 <= years <= 130:
        return None
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _coded_view(data: Dataset) -> View | None:
    try:
        code = _text(data.ViewCodeSequence[0], "CodeValue")
    except Exception:  # it is missing, empty or damaged
        return None
    return _VIEW_CODES.get(code, "OTHER") if code else None


def _text(data: Dataset, keyword: str) -> str | None:
    try:
        value = str(data.get(keyword, "") or "").strip()
    except Exception:  # pydicom converts values lazily and raises many types on damaged ones
        return None
    return value[:256] or None


def _date(text: str | None) -> str | None:
    """Return a DICOM DA (YYYYMMDD) as YYYY-MM-DD."""
    if text is None or len(text) != 8 or not text.isascii() or not text.isdigit():
        return None
    if not (1 <= int(text[4:6]) <= 12 and 1 <= int(text[6:]) <= 31):
        return None
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def _age(text: str | None, born: str | None, exam: str | None) -> int | None:
    """Return whole years from a DICOM AS (as 045Y), else from birth and examination."""
    if text and len(text) == 4 and text[:3].isascii() and text[:3].isdigit() and text[3] in _AGE_UNIT_IN_YEARS:
        return int(int(text[:3]) * _AGE_UNIT_IN_YEARS[text[3]])
    if born and exam and exam >= born:
        return int(exam[:4]) - int(born[:4]) - (exam[5:] < born[5:])
    return None
