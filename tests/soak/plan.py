"""What is to happen, how often, and in which time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from tests.soak.clocks import Clock
from tests.soak.studies import Kind, Study, Way

_KINDS: tuple[Kind, ...] = ("result", "refusal", "failure")
_MACHINES_SHARE, _FOLDER_SHARE = 0.6, 0.34


@dataclass(frozen=True)
class Plan:
    """One simulation.

    kills: in all, at least `least` of each kind; pace_s: seconds between two of them, on average.
    hour_s: seconds of an hour of simulated time; of each day the link is up in the last hour alone.
    wipes: how often Mosquitto's files are removed. fulls: how often the disk is filled. clocks: of the device, one after the other.
    patience_s: in which what was received has to be delivered once the link is back. limit_s: in which all of it has to end.
    most_outstanding: studies that nobody was told of yet beyond which killing pauses.
    """

    studies: int
    kills: int
    least: int
    wipes: int
    fulls: int
    clocks: tuple[Clock, ...]
    hour_s: float
    pace_s: float
    patience_s: float
    limit_s: float
    most_outstanding: int
    seed: int
    disk_mib: int


def make_plan(studies: int, kills: int, minutes: float, seed: int) -> Plan:
    """Return a plan of that size whose kills are spread over `minutes`; all of it takes at most twice as long, and three more."""
    large = kills >= 1000
    return Plan(
        studies=studies,
        kills=kills,
        least=kills // 20,
        wipes=max(2, kills // 100),
        fulls=2 if large else 1,
        clocks=("1970", "right", "2050", "right") * 2 if large else ("1970", "right", "2050"),
        hour_s=6.0 if kills >= 100 else 2.5,
        pace_s=minutes * 60 / kills,
        patience_s=600.0 if large else 120.0,
        limit_s=minutes * 120 + 180,
        most_outstanding=min(40 + studies // 100, 200),
        seed=seed,
        disk_mib=768 if large else 352,
    )


def make_studies(plan: Plan, rng: random.Random) -> list[Study]:
    """Return the studies in the order in which they are sent."""
    studies = []
    for number in range(plan.studies):
        kind = rng.choices(_KINDS, (80, 12, 8))[0]
        share = rng.random()
        if share < _MACHINES_SHARE:
            way: Way = "machine"
        elif share < _MACHINES_SHARE + _FOLDER_SHARE:
            way = "folder"
        else:
            way, kind = "page", "result" if kind == "failure" else kind
        # A browser that was not answered sends again, and only an object that can be read is known to be the same.
        dicom = way != "folder" or (kind != "failure" and rng.random() < 0.5)
        studies.append(Study(number, way, kind, dicom))
    return studies


def portions(total: int, parts: int) -> list[int]:
    """Return `total` in as many parts, as equal as can be."""
    return [right - left for left, right in pairwise(total * part // parts for part in range(parts + 1))]
