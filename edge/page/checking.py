"""Silent commissioning as the page shows it: how far it is, how the device agrees with the readings, and who may ask for what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.commissioning.agreement import Share, cross, table
from edge.commissioning.journal import read_standing
from edge.commissioning.standing import ELSE, Standing, offered, shown_and_why
from edge.config import Commissioning
from edge.contract.bundle import Manifest
from edge.page.studies import label_word
from edge.page.words import Words
from edge.requests import ReleaseRequest


@dataclass(frozen=True)
class Table:
    """Cells are text. cross: rows of the device's answers against readings; thresholds: rows of what each would give."""

    readers: list[str]
    cross: list[list[str]]
    thresholds: list[list[str]]


@dataclass(frozen=True)
class Checked:
    """What the page says. table: None until there are enough readings. choices: thresholds of a release, as (value, text).

    left: how many films are still to be read before a release. ever: whether this device is commissioned at all.
    may_silence: whether it may be showing answers, and can be asked to show no more.
    """

    silent: bool
    sentence: str
    lines: list[str]
    table: Table | None
    left: int
    choices: list[tuple[str, str]]
    ever: bool
    may_silence: bool


@dataclass(frozen=True)
class Checking:
    """Of one device. fixed: the threshold of device.toml. manifest: None where the bundle cannot be read; `infer` says so."""

    state: Path
    settings: Commissioning
    manifest: Manifest | None
    fixed: float | None

    def sentence(self, words: Words) -> str:
        """Return why no answers are shown; empty while they are."""
        standing = read_standing(self.state)
        return "" if shown_and_why(standing, self.settings.readings)[0] else self._sentence(standing, words)

    def read(self, words: Words) -> Checked:
        """Return how it is now."""
        standing, needed = read_standing(self.state), self.settings.readings
        silent = not shown_and_why(standing, needed)[0]
        enough = len(standing.compared) >= needed > 0
        lines = []
        if needed:
            lines.append(words("check.progress", count=len(standing.compared), needed=needed))
            if standing.undecided:
                lines.append(words("check.undecided", count=standing.undecided))
        if not enough and silent:
            lines.append(words("check.wait", needed=needed))
        lines += self._threshold(standing, words)
        return Checked(
            silent=silent,
            sentence=self._sentence(standing, words),
            lines=lines,
            table=_table(standing, self.manifest, words) if enough and self.manifest is not None else None,
            left=max(needed - len(standing.compared), 0),
            choices=self._choices(words),
            ever=needed > 0,
            # With a journal that cannot be read `infer` may be showing answers: it read it when it began.
            may_silence=needed > 0 and (not silent or standing.damaged),
        )

    def can_be_silenced(self) -> bool:
        """Return whether it makes sense to ask `infer` for silence; where there is silence already, it does no harm."""
        return self.settings.readings > 0

    def release(self, by: str, threshold: str) -> ReleaseRequest | None:
        """Return what is to be asked of `infer`; None if it would make no sense."""
        if not read_standing(self.state).may_be_released(self.settings.readings):
            return None
        if threshold not in ("", *(value for value, _ in self._choices(None))):
            return None
        try:
            return msgspec.convert(
                {"type": "release", "by": by.strip(), "threshold": float(threshold or 0) or None}, ReleaseRequest
            )
        except msgspec.ValidationError:
            return None

    def _sentence(self, standing: Standing, words: Words) -> str:
        if self.settings.readings == 0:
            return words("check.always")
        if standing.release is not None:
            return words("check.shown", by=standing.release.by)
        return words(f"check.silent.{shown_and_why(standing, self.settings.readings)[1]}")

    def _threshold(self, standing: Standing, words: Words) -> list[str]:
        if self.fixed is not None:
            return [words("check.fixed", threshold=_percent(self.fixed))]
        chosen = standing.threshold
        if chosen is None:
            return [] if self.manifest is None else [words("check.now", threshold=_percent(self.manifest.threshold))]
        return [words("check.now", threshold=_percent(chosen))]

    def _choices(self, words: Words | None) -> list[tuple[str, str]]:
        """Return thresholds; the empty value is the bundle's own."""
        if self.manifest is None or self.fixed is not None:
            return []
        own, *others = offered(self.manifest.threshold)
        first = _percent(own) + (" (" + words("check.own") + ")" if words is not None else "")
        return [("", first), *((str(value), _percent(value)) for value in others)]


def _table(standing: Standing, manifest: Manifest, words: Words) -> Table:
    own, labels = manifest.threshold, [*manifest.classes, ELSE]
    counts, rows = cross(standing.compared, own), table(standing.compared, own)
    answers = [
        [words.of_class(name), *(str(counts.get((name, label), 0)) for label in labels), _share(rows[0].classes.get(name))]
        for name in manifest.classes
    ]
    answers.append([words("reading.undecided"), *(str(counts.get((None, label), 0)) for label in labels), ""])
    return Table(
        readers=[words("check.reader", label=label_word(label, words)) for label in labels],
        cross=answers,
        thresholds=[[_percent(row.threshold), _share(row.answered), _share(row.agreed)] for row in rows],
    )


def _share(share: Share | None) -> str:
    """Return "12 / 15 = 80% (46-95%)", which needs no translation; a dash where there is nothing to count."""
    if share is None or not share.total:
        return "-"
    low, high = math.floor(100 * share.low), math.ceil(100 * share.high)  # outwards, so that it promises no more than it holds
    return f"{share.count} / {share.total} = {100 * share.count // share.total}% ({low}-{high}%)"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"
