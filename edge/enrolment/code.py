"""The code that opens an enrolment file: typed by a person, from paper or read out over a telephone.

Four groups of five digits of Crockford's base32, the last of each checking the four before it and their place. So 80 random bits,
and 31 of 32 mistyped groups are named before anything is tried.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from edge.errors import CxrError

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKS_LIKE = str.maketrans("OILU", "011V")
_GROUPS = 4
_DIGITS = 4

BITS = _GROUPS * _DIGITS * 5
"""Random bits of a code."""


def new_code() -> str:
    """Return a new random code as it is printed."""
    digits = [secrets.choice(_ALPHABET) for _ in range(_GROUPS * _DIGITS)]
    groups = ["".join(digits[at : at + _DIGITS]) for at in range(0, len(digits), _DIGITS)]
    return "-".join(group + _check(number, group) for number, group in enumerate(groups, 1))


def read_code(typed: str) -> str:
    """Return a code as it is printed, from however it was typed: capitals, spaces and hyphens do not matter.

    Raises:
        CxrError: if it is no code, naming the group that was mistyped.
    """
    digits = re.sub(r"[\s-]", "", typed).upper().translate(_LOOKS_LIKE)
    size = _DIGITS + 1
    if len(digits) != _GROUPS * size or not set(digits) <= set(_ALPHABET):
        raise CxrError(f"The code has {_GROUPS} groups of {size} letters and digits. Nothing was changed; type it again.")
    groups = [digits[at : at + size] for at in range(0, len(digits), size)]
    for number, group in enumerate(groups, 1):
        if group[-1] != _check(number, group[:-1]):
            raise CxrError(f"Group {number} of the code was mistyped. Nothing was changed; look at it again and type the code.")
    return "-".join(groups)


def _check(number: int, group: str) -> str:
    digest = hashlib.sha256(f"cxr-edge enrolment code {number}\0{group}".encode("ascii")).digest()
    return _ALPHABET[digest[0] & 31]
