"""A patient's number as consoles write it -> the text that its pseudonym is made of, or why there is none.

Two patients who become one do harm at the centre, one patient who becomes two does little: only what cannot tell two people apart
is made equal. So leading zeros, punctuation and the place of spaces count (docs/reference/privacy.md has the table).
"""

from __future__ import annotations

import unicodedata
from typing import Literal

from edge.pixels.headers import NO_HEADERS, Headers

Missing = Literal["not_dicom", "empty", "placeholder"]

_PLACEHOLDERS = frozenset(
    [
        "anon",
        "anonym",
        "anonyme",
        "anonymised",
        "anonymized",
        "anonymous",
        "anonymus",
        "anonimo",
        "anónimo",
        "blank",
        "default",
        "desconocido",
        "desconhecido",
        "dummy",
        "emergency",
        "id",
        "inconnu",
        "mrn",
        "n.a",
        "n/a",
        "na",
        "nd",
        "nn",
        "no-id",
        "no-number",
        "nobody",
        "noid",
        "none",
        "null",
        "nil",
        "patient",
        "patientid",
        "patient-id",
        "sans",
        "sin",
        "tbd",
        "test",
        "testpatient",
        "unbekannt",
        "undefined",
        "unidentified",
        "unk",
        "unknown",
        "unknown-patient",
        "unnamed",
        "xxx",
    ]
)
"""What people and consoles write where there is no number; compared with `normalised` text whose spaces and _ are turned into -."""

_NINES = 4
"""So many nines and more are what forms are filled with; 9 to 999 may be numbers of a small register."""


def normalised(text: str) -> str:
    """Return an identifier without what differs between consoles and keyboards; empty if nothing is left.

    Compatibility forms (NFKC), capitals, digits of other scripts, kinds of dash, runs of white space, and characters that
    are not to be seen.
    """
    shown = (character for character in unicodedata.normalize("NFKC", text) if not _is_unseen(character))
    plain = "".join(_plain(character) for character in shown)
    return " ".join(unicodedata.normalize("NFKC", plain.casefold()).split())


def patient_of(headers: Headers) -> tuple[str | None, Missing | None]:
    """Return (text of the patient, None), or (None, why there is none).

    A number means something to its issuer alone, so an issuer that the object names is a part of the text.
    """
    if headers == NO_HEADERS:
        return None, "not_dicom"
    number = normalised(headers.patient_id or "")
    if not number:
        return None, "empty"
    if _is_placeholder(number):
        return None, "placeholder"
    issuer = normalised(headers.issuer_of_patient_id or "")
    return (f"{number}\x1f{issuer}" if issuer else number), None


def _is_placeholder(number: str) -> bool:
    letters = number.strip("-_.^*/#()[]<> ")
    if not any(character.isalnum() for character in letters) or set(letters) == {"0"}:
        return True
    if set(letters) == {"9"} and len(letters) >= _NINES:
        return True
    return letters.replace(" ", "-").replace("_", "-") in _PLACEHOLDERS


def _is_unseen(character: str) -> bool:
    """Controls and format characters, as marks of the direction of writing; white space is seen."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and not character.isspace()


def _plain(character: str) -> str:
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    return "-" if unicodedata.category(character) == "Pd" or character == "\u2212" else character
