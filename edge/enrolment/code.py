"""The code that opens an enrolment file: typed by a person, from paper or read out over a telephone.

Four groups of five digits of Crockford's base32, the last of each checking the four before it and the group's place. So 80 random
bits; whoever mistypes one digit, or exchanges two digits or two groups, is told the group before anything is tried, as are 31 of 32
other mistakes.
"""

from __future__ import annotations

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
    """Return the digit that checks a group: a weighted sum over the field of 32 elements.

    The weights are powers of x modulo x^5 + x^2 + 1, whose order is 31. No two digits have the same, nor has the group's number:
    so one digit that is another changes the sum, as do two that are exchanged (a Reed-Solomon code with one check digit).
    """
    value = number
    for digit in group:
        value = _times_x(value) ^ _ALPHABET.index(digit)
    return _ALPHABET[_times_x(value)]


def _times_x(value: int) -> int:
    return value << 1 if value < 16 else value << 1 ^ 0b100101
