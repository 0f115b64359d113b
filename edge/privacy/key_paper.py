"""A site key as text that a person prints, locks away and types again: short groups, and in every line two bytes that check it.

A line holds its number, eight bytes of a key and the check, in Crockford's base32, which has neither O and I nor L and U: what was
read so is taken for the digit or letter that it looks like. The check covers the number too, so exchanged lines are found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from edge.errors import CxrError
from edge.privacy.pseudonym import KEY_BYTES, SiteKey, chain

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKS_LIKE = str.maketrans("OILU", "011V")
_BYTES = 8
_CHECK = 2
_DIGITS = (_BYTES + _CHECK) * 8 // 5
_LINES = KEY_BYTES // _BYTES
_KEY = re.compile(r"KEY +([0-9A-F]{8})(?: +SINCE +(\d{4}-\d{2}-\d{2}))?")
_NUMBERED = re.compile(r"(\d{1,3})[ :.)]+(.*)")


def paper_lines(key: SiteKey, facility: str) -> Iterator[str]:
    """Yield what is to be printed: every key, the active one first. Lines with # are for people."""
    yield f"# SECRET: the site key of {facility}. Lock this paper away, not beside the device."
    yield "# Who has it can find out which patient a pseudonym at the centre stands for, by trying numbers."
    yield "# To restore it here or on another device of this site: cxr-edge key restore --config device.toml"
    yield "# and type every line without #. Capitals do not matter, nor do spaces within a line."
    number = 0
    for one in key.all:
        yield ""
        yield f"key {one.key_id}" + (f" since {one.since}" if one.since else "")
        for start in range(0, KEY_BYTES, _BYTES):
            number += 1
            digits = _written(number, one.secret[start : start + _BYTES])
            yield f"{number:>2}  " + " ".join(digits[at : at + 4] for at in range(0, _DIGITS, 4))


def read_paper(lines: Iterable[str]) -> SiteKey:
    """Return the key that is typed in `lines`, with the earlier ones behind it.

    Raises:
        CxrError: naming the line that was mistyped, left out or is not one of them.
    """
    keys: list[SiteKey] = []
    key_id, since, secret, number = "", "", b"", 0
    for typed in lines:
        line = typed.strip().upper()
        if not line or line.startswith("#"):
            continue
        if begins := _KEY.fullmatch(line):
            _require_whole(key_id, number)
            key_id, since, secret = begins[1].lower(), begins[2] or "", b""
            continue
        numbered = _NUMBERED.fullmatch(line)
        if not key_id or numbered is None:
            raise CxrError(f"After line {number} comes one that is none of the paper: 'key' with its name, then numbered lines.")
        number += 1
        if int(numbered[1]) != number:
            raise CxrError(f"Line {number} comes next, and line {int(numbered[1])} was typed. Nothing was changed; type all lines.")
        secret += _read(number, numbered[2])
        if len(secret) == KEY_BYTES:
            key = SiteKey(secret, since or None)
            if key.key_id != key_id:
                raise CxrError(f"The lines up to {number} are not those of key {key_id}. Look at the line with its name again.")
            keys.append(key)
            key_id = ""
    _require_whole(key_id, number)
    if not keys:
        raise CxrError("No key was typed. Type every line of the paper that does not begin with #.")
    return chain(keys)


def _require_whole(begun: str, number: int) -> None:
    """Raise CxrError if there is a key whose lines were not all typed, or none of them."""
    if begun:
        raise CxrError(f"Line {number + 1} is missing. Nothing was changed; type all lines of the paper.")


def _written(number: int, content: bytes) -> str:
    value = int.from_bytes(content + _check(number, content), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_DIGITS - 1), -1, -5))


def _read(number: int, typed: str) -> bytes:
    digits = re.sub(r"[\s-]", "", typed).translate(_LOOKS_LIKE)
    if len(digits) != _DIGITS or not set(digits) <= set(_ALPHABET):
        raise CxrError(f"Line {number} should hold {_DIGITS // 4} groups of four letters and digits. Nothing was changed.")
    value = 0
    for digit in digits:
        value = value << 5 | _ALPHABET.index(digit)
    whole = value.to_bytes(_BYTES + _CHECK, "big")
    if whole[_BYTES:] != _check(number, whole[:_BYTES]):
        raise CxrError(f"Line {number} was mistyped. Nothing was changed; look at it again and type all lines.")
    return whole[:_BYTES]


def _check(number: int, content: bytes) -> bytes:
    return hashlib.sha256(b"cxr-edge key paper %d\0" % number + content).digest()[:_CHECK]
