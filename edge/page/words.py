"""The page's words in four languages, from catalogues beside this module: one TOML file for each, with the same keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from edge.contract.reasons import REASONS

LANGUAGES = {"en": "English", "fr": "Français", "es": "Español", "sw": "Kiswahili"}
DEFAULT = "en"
_FOLDER = Path(__file__).parent / "catalogues"


class Words:
    """Text of one language by key; a reason code without a translation is said in English, since silence would be worse."""

    def __init__(self, language: str, texts: dict[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of a key with its values filled in."""
        return self._texts[key].format(**values)

    def count(self, key: str, count: int) -> str:
        """Return the text of a key for so many of a thing: `key` with `.one` behind it is that for one."""
        return self(f"{key}.one" if count == 1 else key, count=count)

    def reason(self, code: str) -> str:
        """Return the sentence for a reason code; the code itself if it is of a newer device."""
        return self._texts.get(f"reason.{code}") or REASONS.get(code, code)

    def of_class(self, name: str) -> str:
        """Return the name of a class; as the bundle has it if there is no word for it."""
        return self._texts.get(f"class.{name}", name)


@cache
def words(language: str) -> Words:
    """Return the catalogue of one of LANGUAGES."""
    texts = msgspec.toml.decode((_FOLDER / f"{language}.toml").read_bytes(), type=dict[str, str])
    return Words(language, texts)


def choose(cookie: str | None, accepted: str) -> str:
    """Return the language that was chosen, else the first one that the browser asks for and we have, else English."""
    if cookie in LANGUAGES:
        return cookie
    for part in accepted.split(",")[:20]:
        name = part.split(";")[0].strip().lower().split("-")[0]
        if name in LANGUAGES:
            return name
    return DEFAULT
