"""Silent commissioning: what has happened at a site, as events, and how the device stands by them.

A new site begins silent: answers are recorded and not shown. People read films without knowing the answer, and when enough readings
were compared someone releases the device, for one bundle. Another bundle, drift of the input or a person puts it back to silent,
and then the count begins anew: what was compared was another device, or another kind of picture. The events are kept by
`edge.commissioning.journal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.contract.types import ClassName, Digest, Epoch, Keyed, Probability, Seq, Through

Why = Literal["new", "model", "drift", "by_hand", "damaged"]
"""Why the device is silent: a new site, another bundle, drift, a person, a journal that cannot be read."""

UNDECIDED = "?"
"""The reading "not sure": it agrees and disagrees with nothing, and does not count."""
ELSE = "*"
"""The reading "something else": none of the classes, so that every class is wrong."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Offered for a site, beside the bundle's own."""

Label = Annotated[str, Meta(pattern=r"^([a-z][a-z0-9_-]{0,31}|\?|\*)$")]
Person = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}$", description="as typed; stays on the device")]


class Silenced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event", tag="silent"):
    """From here on nothing is shown. bundle: SHA-256 of its manifest. epoch, after: the last outcome before."""

    why: Why
    bundle: Digest
    epoch: Epoch
    after: Through


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event", tag="reading"):
    """A person has read the film of an outcome (epoch, seq) without knowing the answer.

    label: a class, UNDECIDED or ELSE. answer, chance: the device's likeliest class and its probability. barred: it would not have
    answered at any threshold. picture: pixel hash, since one picture sent twice is not two readings.
    """

    epoch: Epoch
    seq: Seq
    picture: Keyed
    label: Label
    answer: ClassName
    chance: Probability
    barred: bool


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event", tag="withdrawn"):
    """The outcome (epoch, seq) of a reading was taken back: whatever was compared there does not count."""

    epoch: Epoch
    seq: Seq


class Released(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event", tag="release"):
    """Answers are shown from here on. threshold: chosen for this site; None for the bundle's own."""

    by: Person
    threshold: Probability | None = None


Event = Silenced | Reading | Withdrawn | Released


@dataclass(frozen=True)
class Standing:
    """How a device stands.

    began: the last time that it fell silent; None before anything. release: since then, if any. compared: readings since then that
    count, of different pictures. undecided: how many more were "not sure". given: the label of every reading ever, by (epoch, seq).
    withdrawn: the (epoch, seq) of those whose outcome was taken back.
    damaged: whether what has happened cannot be read, so that nothing of the other is known.
    """

    began: Silenced | None = None
    release: Released | None = None
    compared: tuple[Reading, ...] = ()
    undecided: int = 0
    given: dict[tuple[str, int], str] = field(default_factory=dict)
    withdrawn: frozenset[tuple[str, int]] = frozenset()
    damaged: bool = False

    @property
    def silent(self) -> bool:
        """Whether answers are to be recorded and not shown."""
        return self.release is None

    @property
    def threshold(self) -> float | None:
        """The threshold that was chosen for this site at its release; None while there is none."""
        return None if self.release is None else self.release.threshold

    def asks_for(self, epoch: str, seq: int, present: str) -> bool:
        """Return whether a reading of that outcome would count. present: the epoch that seqs are given in now."""
        if self.began is None or not self.silent or (epoch, seq) in self.given:
            return False
        # A rebuilt outbox has another epoch, which began after the silence did.
        return seq > self.began.after if epoch == self.began.epoch else epoch == present

    def may_be_released(self, readings: int) -> bool:
        """Return whether enough were compared. With none wanted there is nothing to release, now or for when some are."""
        return self.began is not None and self.silent and len(self.compared) >= readings > 0


def shown_and_why(standing: Standing, readings: int) -> tuple[bool, Why | None]:
    """Return whether answers are shown, and if not why. readings: how many have to be compared; 0 for a device that never is."""
    if readings == 0 or not standing.silent:
        return True, None
    unknown: Why = "damaged" if standing.damaged else "new"
    return False, unknown if standing.began is None else standing.began.why


def offered(own: float) -> tuple[float, ...]:
    """Return the thresholds that a site may choose from, ascending. own: the bundle's; below it nothing is offered."""
    return (own, *(threshold for threshold in THRESHOLDS if threshold > own))


def standing(events: Iterable[Event]) -> Standing:
    """Return how a device stands after these events. Of two readings of one outcome, or one picture, the first counts."""
    began: Silenced | None = None
    release: Released | None = None
    since: list[Reading] = []
    given: dict[tuple[str, int], str] = {}
    withdrawn: set[tuple[str, int]] = set()
    for event in events:
        if isinstance(event, Silenced):
            began, release, since = event, None, []
        elif isinstance(event, Released):
            release = event
        elif isinstance(event, Withdrawn):
            withdrawn.add((event.epoch, event.seq))
        elif (event.epoch, event.seq) not in given:
            given[event.epoch, event.seq] = event.label
            if release is None:
                since.append(event)
    readings: dict[str, Reading] = {}
    for reading in since:
        if (reading.epoch, reading.seq) not in withdrawn:
            readings.setdefault(reading.picture, reading)
    compared = tuple(reading for reading in readings.values() if reading.label != UNDECIDED)
    return Standing(began, release, compared, len(readings) - len(compared), given, frozenset(withdrawn))
