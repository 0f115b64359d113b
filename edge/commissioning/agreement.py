"""How the device's answers agree with local readings: the table that a person looks at before a release. Pure.

The rows are a few thresholds, among which the person may choose on these very readings. The intervals of a column therefore hold
for all rows at once (Bonferroni): whichever row is chosen, its interval keeps its promise. Several pictures of one patient count as
if they were of several, which makes the intervals too narrow where that is common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from edge.commissioning.standing import Reading, offered

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """count of total, with the ends of its interval, 0 to 1."""

    count: int
    total: int
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """At one threshold: how many of the readings the device would have answered, and how many of those answers agree.

    classes: for each class that the device would have answered, how many of those answers agree.
    """

    threshold: float
    answered: Share
    agreed: Share
    classes: dict[str, Share]


def wilson(count: int, total: int, wrong: float = 1 - _CONFIDENCE) -> Share:
    """Return a share with its interval (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Args:
        count: 0 to total.
        total: 0 gives the interval 0 to 1.
        wrong: how often the interval may miss, over both ends.
    """
    if not total:
        return Share(0, 0, 0.0, 1.0)
    z = NormalDist().inv_cdf(1 - wrong / 2)
    share, shrunk = count / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / shrunk
    half = z / shrunk * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Share(count, total, 0.0 if count == 0 else low, 1.0 if count == total else high)


def table(compared: Sequence[Reading], own: float) -> list[Row]:
    """Return one row for each threshold that is offered, intervals of 95% for all rows together; see the module."""
    thresholds = offered(own)
    wrong = (1 - _CONFIDENCE) / len(thresholds)
    rows = []
    for threshold in thresholds:
        answered = [reading for reading in compared if not reading.barred and reading.chance >= threshold]
        agreed = [reading for reading in answered if reading.answer == reading.label]
        rows.append(
            Row(
                threshold,
                wilson(len(answered), len(compared), wrong),
                wilson(len(agreed), len(answered), wrong),
                {
                    name: wilson(_count(agreed, name), _count(answered, name), wrong)
                    for name in sorted({reading.answer for reading in answered})
                },
            )
        )
    return rows


def cross(compared: Sequence[Reading], threshold: float) -> dict[tuple[str | None, str], int]:
    """Return how often the device would have answered (None: nothing) what and the reader said what, by (answer, label)."""
    counts: dict[tuple[str | None, str], int] = {}
    for reading in compared:
        answer = None if reading.barred or reading.chance < threshold else reading.answer
        counts[answer, reading.label] = counts.get((answer, reading.label), 0) + 1
    return counts


def _count(readings: Sequence[Reading], name: str) -> int:
    return sum(reading.answer == name for reading in readings)
