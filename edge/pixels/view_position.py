"""From which side a radiograph was taken, as far as its DICOM header says it: consoles fill in very different elements, and words.

Looked at in this order, until one tells: ViewPosition (0018,5101), the view's code (0054,0220), the direction of the rows in
PatientOrientation (0020,0020), and the names that people gave the protocol and the series.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

View = Literal["AP", "PA", "LATERAL", "OTHER"]

_CODES: dict[str, View] = {
    "399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "R-40888": "PA",
    "399067008": "LATERAL", "R-102CD": "LATERAL", "399173006": "LATERAL", "R-10236": "LATERAL",
    "399198007": "LATERAL", "R-10232": "LATERAL",
}  # fmt: skip
"""SNOMED CT and the older SNOMED RT codes of DICOM's context group 4010; a DX object need not have a ViewPosition beside one."""
_LATERAL = re.compile(r"[LR]?LAT(ERAL)?|[LR]L")
_DECUBITUS = re.compile(r"[LR]LD|DECUB.*")
"""Somebody who lies on the side: taken from the front, but not as the network knows it."""


def read_view(data: Dataset) -> View | None:
    """Return the view of one DICOM object; OTHER if the header names one that is none of these, None if it names none."""
    said = view_of_words(element(data, "ViewPosition"))
    if said not in (None, "OTHER"):
        return said
    coded = _coded(data) or _of_rows(data)
    if coded is not None and coded != "OTHER":
        return coded
    named = {view_of_words(element(data, name)) for name in ("ProtocolName", "SeriesDescription")} - {None, "OTHER"}
    return named.pop() if len(named) == 1 else said or coded


def view_of_words(text: str | None) -> View | None:
    """Return the view that words such as "CHEST L-LAT" name; OTHER if they name none, or more than one."""
    if text is None:
        return None
    words = re.findall(r"[A-Z]+", text.upper())
    if any(_DECUBITUS.fullmatch(word) for word in words):
        return "OTHER"
    views: set[View] = {"LATERAL" for word in words if _LATERAL.fullmatch(word)}
    views |= {view for view in ("AP", "PA") if view in words}
    return views.pop() if len(views) == 1 else "OTHER"


def element(data: Dataset, keyword: str) -> str | None:
    """Return the text of one element, at most 256 characters; None if it is missing, empty or damaged."""
    try:
        value = str(data.get(keyword, "") or "").strip()
    except Exception:  # pydicom converts values lazily and raises many types on damaged ones
        return None
    return value[:256] or None


def _coded(data: Dataset) -> View | None:
    try:
        code = element(data.ViewCodeSequence[0], "CodeValue")
    except Exception:  # it is missing, empty or damaged
        return None
    return _CODES.get(code, "OTHER") if code else None


def _of_rows(data: Dataset) -> View | None:
    """Rows of a frontal picture run to the patient's left or right, those of a lateral one to the front or the back."""
    try:
        rows = str(data.PatientOrientation[0])
    except Exception:  # it is missing, empty or damaged
        return None
    return "LATERAL" if rows[:1] in ("A", "P") else None
