"""Where a network works and where it does not: subgroups, shortcut controls, other places, and what gives the answer away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.metrics import Estimate, auc, bounded, draws
from export.predictions import Picture
from export.report.blocks import Block, common
from export.report.score import ENOUGH, auc_of, share

_AGES = ((18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (75, "60 to 74"), (131, "75 and older"))
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Group:
    """One subgroup; None stands for too few patients to say."""

    by: str
    name: str
    pictures: int
    patients: int
    accuracy: Estimate | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    auc: Estimate | None


@dataclass(frozen=True)
class Control:
    """What is left of the score when the lungs are not to be seen, and the real score on the same pictures."""

    condition: str
    dataset: str
    pictures: int
    patients: int
    accuracy: Estimate | None
    auc: Estimate | None
    whole_accuracy: Estimate | None
    whole_auc: Estimate | None


@dataclass(frozen=True)
class Elsewhere:
    """A place that nothing was learned from. false_alarm: share of those without the concern that are called it.

    areas: under the curve of each class against the rest, where there are enough. confident_wrong: share of all pictures that get a
    wrong answer instead of none. strangers: pictures whose label is none of the
    classes, and the share of them that got an answer all the same.
    """

    protocol: str
    dataset: str
    pictures: int
    patients: int
    labels: dict[str, int]
    accuracy: Estimate | None
    sensitivity: Estimate | None
    false_alarm: Estimate | None
    areas: dict[str, Estimate]
    coverage: Estimate | None
    confident_wrong: Estimate | None
    strangers: int
    strangers_answered: Estimate | None


@dataclass(frozen=True)
class SameSource:
    """One class against the rest of the pictures of the same source, where the source gives nothing away."""

    source: str
    name: str
    pictures: int
    positives: int
    patients: int
    auc: Estimate | None


@dataclass(frozen=True)
class Giveaway:
    """How far the concern could be told from one fact beside the picture, by its share among the pictures with that fact."""

    fact: str
    dataset: str
    auc: Estimate | None


def groups(block: Block, concern: int) -> list[Group]:
    facts: dict[str, Callable[[Picture], str]] = {
        "age": _age_band,
        "sex": lambda picture: {"F": "women", "M": "men", "O": "other"}.get(picture.sex, _UNKNOWN),
        "view": lambda picture: picture.view or _UNKNOWN,
        "source": lambda picture: picture.source or _UNKNOWN,
    }
    rows = []
    for by, fact in facts.items():
        values = np.array([fact(picture) for picture in block.pictures])
        rows += [_group(by, name, block.only(values == name), concern) for name in sorted(set(values.tolist()), key=_rank)]
    return rows


def _rank(name: str) -> tuple[bool, int, str]:
    bands = [band for _, band in _AGES]
    return name == _UNKNOWN, bands.index(name) if name in bands else 0, name


def _age_band(picture: Picture) -> str:
    return _UNKNOWN if picture.age is None else next((name for above, name in _AGES if picture.age < above), _UNKNOWN)


def _group(by: str, name: str, block: Block, concern: int) -> Group:
    positive = block.truth == concern
    with_it, without = (len(set(block.patients[side])) for side in (positive, ~positive))
    everything, called = np.ones(len(block), dtype=np.bool_), block.answer == concern
    people = len(set(block.patients))
    return Group(
        by=by,
        name=name,
        pictures=len(block),
        patients=people,
        accuracy=share(block, block.answer == block.truth, everything) if people >= ENOUGH else None,
        sensitivity=share(block, called, positive) if with_it >= ENOUGH else None,
        specificity=share(block, ~called, ~positive) if without >= ENOUGH else None,
        auc=auc_of(block, concern),
    )


def controls(mine: Sequence[Block], main: Block, concern: int) -> list[Control]:
    """For all data sets together, and for each; where a data set has the concern or not at all its AUC is left out."""
    rows = []
    for block in mine:
        if block.condition == "whole" or block.elsewhere or not block.grouped or block.protocol != main.protocol:
            continue
        left, whole = common(block.inside(), main)
        parts = [("", left, whole)]
        if len(left.datasets) > 1:
            parts += [(name, left.of_dataset(name), whole.of_dataset(name)) for name in left.datasets]
        for name, some, same in parts:
            if not len(some):
                continue
            everything = np.ones(len(some), dtype=np.bool_)
            enough = len(set(some.patients)) >= ENOUGH
            rows.append(
                Control(
                    condition=block.condition,
                    dataset=name,
                    pictures=len(some),
                    patients=len(set(some.patients)),
                    accuracy=share(some, some.answer == some.truth, everything) if enough else None,
                    auc=auc_of(some, concern),
                    whole_accuracy=share(same, same.answer == same.truth, everything) if enough else None,
                    whole_auc=auc_of(same, concern),
                )
            )
    return rows


def elsewhere(block: Block, dataset: str, concern: int) -> Elsewhere:
    part = block.of_dataset(dataset)
    inside, strangers = part.inside(), part.only(part.truth < 0)
    positive, called = inside.truth == concern, inside.answer == concern
    everything = np.ones(len(inside), dtype=np.bool_)
    wrong = inside.answer != inside.truth
    labels = [picture.label for picture in part.pictures]
    some = len(inside) > 0
    return Elsewhere(
        protocol=block.protocol,
        dataset=dataset,
        pictures=len(part),
        patients=len(set(part.patients)),
        labels={label: labels.count(label) for label in dict.fromkeys(labels)},
        accuracy=share(inside, ~wrong, everything) if some else None,
        sensitivity=share(inside, called, positive) if some else None,
        false_alarm=share(inside, called, ~positive) if some else None,
        areas={} if not some else _areas(inside),
        coverage=share(inside, inside.answered, everything) if some else None,
        confident_wrong=share(inside, wrong & inside.answered, everything) if some else None,
        strangers=len(strangers),
        strangers_answered=share(strangers, strangers.answered, np.ones(len(strangers), dtype=np.bool_))
        if len(strangers)
        else None,
    )


def _areas(block: Block) -> dict[str, Estimate]:
    found = {name: auc_of(block, number) for number, name in enumerate(block.classes)}
    return {name: area for name, area in found.items() if area is not None}


def same_source(block: Block) -> list[SameSource]:
    """Return a row for every source and class that it has, but for normal, which two classes would only say twice."""
    rows = []
    sources = np.array([picture.source for picture in block.pictures])
    for source in dict.fromkeys(sources.tolist()):
        part = block.only(sources == source)
        for number, name in enumerate(block.classes):
            positive = part.truth == number
            if source and name != "normal" and positive.any() and not positive.all():
                area = auc_of(part, number)
                rows.append(SameSource(source, name, len(part), int(positive.sum()), len(set(part.patients)), area))
    return rows


def giveaways(block: Block, concern: int) -> list[Giveaway]:
    """In sample: each picture is scored by the share of the concern among all pictures with its value."""
    facts: dict[str, Callable[[Picture], str]] = {
        "source": lambda picture: picture.source,
        "view": lambda picture: picture.view,
        "age known or not": lambda picture: str(picture.age is None),
    }
    rows = []
    for name in ["", *block.datasets] if len(block.datasets) > 1 else [""]:
        part = block.of_dataset(name) if name else block
        positive = part.truth == concern
        for fact, value in facts.items():
            values = np.array([value(picture) for picture in part.pictures])
            if len(set(values.tolist())) < 2 or auc_of(part, concern) is None:
                continue
            _, code = np.unique(values, return_inverse=True)
            shares = np.bincount(code, weights=positive) / np.bincount(code)
            weights = draws(part.patients)
            drawn = np.array([auc(positive, shares[code], row) for row in weights])
            area = bounded(auc(positive, shares[code]), drawn, len(part), len(set(part.patients)))
            rows.append(Giveaway(fact, name, area))
    return rows
