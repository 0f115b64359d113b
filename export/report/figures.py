"""Every number of a report, from predictions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.errors import ReportError
from export.metrics import Estimate, auc, bounded, draws
from export.predictions import Picture, Predictions
from export.report.blocks import Block, common, to_blocks
from export.report.score import Score, auc_of, score, share

ENOUGH = 10
"""Patients a side below which a figure of a subgroup is not given."""
_INFECTIONS = ("covid19", "covid", "covid-19")
_AGES = ((18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (75, "60 to 74"), (131, "75 and older"))
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Named:
    """The score of one block. `dataset` is empty for all of them together."""

    network: str
    protocol: str
    grouped: bool
    precision: str
    condition: str
    dataset: str
    score: Score


@dataclass(frozen=True)
class Fold:
    """One fold, with P2's five metrics of the concern; not given where the fold has no picture of a side."""

    fold: int
    pictures: int
    patients: int
    accuracy: float | None
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    confusion: tuple[tuple[int, ...], ...]


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

    confident_wrong: share of all pictures that get a wrong answer instead of none. strangers: pictures whose label is none of the
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
    auc: Estimate | None
    coverage: Estimate | None
    confident_wrong: Estimate | None
    strangers: int
    strangers_answered: Estimate | None


@dataclass(frozen=True)
class SameSource:
    """The concern against the rest of the pictures that come from the same source: there the source gives nothing away."""

    source: str
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


@dataclass(frozen=True)
class Pair:
    """Two kinds of predictions of the same pictures. difference: accuracy of the first minus that of the second."""

    first: str
    second: str
    pictures: int
    patients: int
    difference: Estimate | None
    same_answer: Estimate | None


@dataclass(frozen=True)
class Inflated:
    """Accuracy with patients kept apart, and without."""

    network: str
    grouped: Estimate | None
    ungrouped: Estimate | None


@dataclass(frozen=True)
class Figures:
    """subject: the network that the page is about. concern: the class whose finding matters most."""

    subject: str
    concern: str
    classes: tuple[str, ...]
    main: Named
    by_dataset: tuple[Named, ...]
    chance_accuracy: float
    scores: tuple[float, ...]
    positives: tuple[bool, ...]
    folds: tuple[Fold, ...]
    groups: tuple[Group, ...]
    controls: tuple[Control, ...]
    elsewhere: tuple[Elsewhere, ...]
    same_source: tuple[SameSource, ...]
    giveaways: tuple[Giveaway, ...]
    networks: tuple[Named, ...]
    differences: tuple[Pair, ...]
    agreements: tuple[Pair, ...]
    inflated: tuple[Inflated, ...]


def concern_of(classes: Sequence[str]) -> str:
    """Return the class that a page asks about first: covid where there is one, else the last that is not normal."""
    return next((name for name in classes if name in _INFECTIONS), [name for name in classes if name != "normal"][-1])


def figures(predictions: Sequence[Predictions], subject: str | None = None) -> Figures:
    """Return all figures.

    Args:
        predictions: of any networks, protocols, precisions and conditions.
        subject: the network that the page is about; None for the first one.

    Raises:
        ReportError: if there are no predictions of whole pictures of the subject with labels of its classes.
    """
    blocks = to_blocks(predictions)
    name = subject or (blocks[0].network if blocks else "")
    main = _main(blocks, name)
    concern = concern_of(main.classes)
    number = main.classes.index(concern)
    same_classes = [block for block in blocks if block.classes == main.classes]
    mine = [block for block in same_classes if block.network == name and block.precision == main.precision]
    counts = np.bincount(main.truth, minlength=len(main.classes))
    return Figures(
        subject=name,
        concern=concern,
        classes=main.classes,
        main=_named(main),
        by_dataset=tuple(_named(main.of_dataset(part), part) for part in main.datasets) if len(main.datasets) > 1 else (),
        chance_accuracy=round(float(counts.max() / counts.sum()), 4),
        scores=tuple(round(float(value), 4) for value in main.chances[:, number]),
        positives=tuple(bool(value) for value in main.truth == number),
        folds=tuple(_folds(main, number)),
        groups=tuple(_groups(main, number)),
        controls=tuple(_controls(mine, main, number)),
        elsewhere=tuple(_elsewhere(block, part, number) for block in mine if _is_elsewhere(block) for part in block.datasets),
        same_source=tuple(_same_source(main, number)),
        giveaways=tuple(_giveaways(main, number)),
        networks=tuple(_networks(same_classes, main)),
        differences=tuple(_differences(same_classes, main)),
        agreements=tuple(_agreements(blocks)),
        inflated=tuple(_inflated(blocks)),
    )


def _is_elsewhere(block: Block) -> bool:
    return block.elsewhere and block.condition == "whole"


def _home(blocks: Sequence[Block], condition: str = "whole") -> list[Block]:
    """Blocks of what a network should know, with patients kept apart."""
    return [block for block in blocks if block.condition == condition and block.grouped and not block.elsewhere]


def _main(blocks: Sequence[Block], name: str) -> Block:
    """Int8 before float, then whatever has most pictures."""
    own = [block for block in blocks if block.network == name and block.condition == "whole"]
    ranked = sorted(
        own, key=lambda block: (not block.elsewhere, block.grouped, block.precision == "int8", len(block)), reverse=True
    )
    inside = [block.inside() for block in ranked]
    usable = [block for block in inside if len(block)]
    if not usable:
        raise ReportError(f"There are no predictions of whole, labelled pictures by {name or 'any network'}; nothing to report on.")
    return usable[0]


def _named(block: Block, dataset: str = "") -> Named:
    return Named(block.network, block.protocol, block.grouped, block.precision, block.condition, dataset, score(block))


def _folds(block: Block, concern: int) -> list[Fold]:
    rows = []
    for fold in np.unique(block.fold):
        part = block.only(block.fold == fold)
        table = np.zeros((len(block.classes), len(block.classes)), dtype=np.int64)
        np.add.at(table, (part.truth, part.answer), 1)
        hit, all_of_it, called = (int(v) for v in (table[concern, concern], table[concern].sum(), table[:, concern].sum()))
        rows.append(
            Fold(
                fold=int(fold),
                pictures=len(part),
                patients=len(set(part.patients)),
                accuracy=_ratio(int(np.trace(table)), len(part)),
                sensitivity=_ratio(hit, all_of_it),
                specificity=_ratio(len(part) - all_of_it - called + hit, len(part) - all_of_it),
                precision=_ratio(hit, called),
                f1=_ratio(2 * hit, all_of_it + called),
                confusion=tuple(tuple(int(count) for count in row) for row in table),
            )
        )
    return rows


def _ratio(above: int, below: int) -> float | None:
    return round(above / below, 4) if below else None


def _groups(block: Block, concern: int) -> list[Group]:
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
        auc=auc_of(block, concern) if min(with_it, without) >= ENOUGH else None,
    )


def _controls(mine: Sequence[Block], main: Block, concern: int) -> list[Control]:
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
            rows.append(
                Control(
                    condition=block.condition,
                    dataset=name,
                    pictures=len(some),
                    patients=len(set(some.patients)),
                    accuracy=share(some, some.answer == some.truth, everything),
                    auc=_auc_if_enough(some, concern),
                    whole_accuracy=share(same, same.answer == same.truth, everything),
                    whole_auc=_auc_if_enough(same, concern),
                )
            )
    return rows


def _auc_if_enough(block: Block, concern: int) -> Estimate | None:
    positive = block.truth == concern
    sides = (len(set(block.patients[side])) for side in (positive, ~positive))
    return auc_of(block, concern) if min(sides) >= ENOUGH else None


def _elsewhere(block: Block, dataset: str, concern: int) -> Elsewhere:
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
        auc=_auc_if_enough(inside, concern) if some else None,
        coverage=share(inside, inside.answered, everything) if some else None,
        confident_wrong=share(inside, wrong & inside.answered, everything) if some else None,
        strangers=len(strangers),
        strangers_answered=share(strangers, strangers.answered, np.ones(len(strangers), dtype=np.bool_))
        if len(strangers)
        else None,
    )


def _same_source(block: Block, concern: int) -> list[SameSource]:
    rows = []
    sources = np.array([picture.source for picture in block.pictures])
    for source in dict.fromkeys(sources.tolist()):
        part = block.only(sources == source)
        positive = part.truth == concern
        if source and positive.any() and not positive.all():
            area = _auc_if_enough(part, concern)
            rows.append(SameSource(source, len(part), int(positive.sum()), len(set(part.patients)), area))
    return rows


def _giveaways(block: Block, concern: int) -> list[Giveaway]:
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
            if len(set(values.tolist())) < 2 or _auc_if_enough(part, concern) is None:
                continue
            _, code = np.unique(values, return_inverse=True)
            shares = np.bincount(code, weights=positive) / np.bincount(code)
            weights = draws(part.patients)
            drawn = np.array([auc(positive, shares[code], row) for row in weights])
            area = bounded(auc(positive, shares[code]), drawn, len(part), len(set(part.patients)))
            rows.append(Giveaway(fact, name, area))
    return rows


def _networks(blocks: Sequence[Block], main: Block) -> list[Named]:
    """One row a network and protocol, int8 where there is, on the pictures that the main block also has."""
    rows: dict[tuple[str, str], Block] = {}
    for block in sorted(_home(blocks), key=lambda block: block.precision == "int8"):
        rows[block.network, block.protocol] = block
    order = dict.fromkeys((block.network, block.protocol) for block in blocks)
    shared = [common(rows[key].inside(), main)[0] for key in order if key in rows]
    return [_named(block) for block in shared if len(block)]


def _differences(blocks: Sequence[Block], main: Block) -> list[Pair]:
    """The subject against every other network, on the same pictures."""
    others: dict[tuple[str, str], Block] = {}
    for block in sorted(_home(blocks), key=lambda block: block.precision == "int8"):
        if block.network != main.network:
            others[block.network, block.protocol] = block
    pairs = (pair(main, other.inside(), main.network, f"{name} ({protocol})") for (name, protocol), other in others.items())
    return [found for found in pairs if found is not None]


def _agreements(blocks: Sequence[Block]) -> list[Pair]:
    """Every precision of a network against its float32."""
    rows = []
    for block in blocks:
        if block.precision == "float32" or block.condition != "whole":
            continue
        kind = (block.network, block.protocol, block.grouped, block.condition)
        for other in blocks:
            if other.precision == "float32" and (other.network, other.protocol, other.grouped, other.condition) == kind:
                found = pair(block, other, f"{block.network} {block.precision}", f"{other.network} float32")
                rows += [found] if found else []
    return rows


def pair(first: Block, second: Block, name: str, other: str) -> Pair | None:
    """Compare two blocks on the pictures that both have; None if there are none."""
    here, there = common(first, second)
    if not len(here):
        return None
    same = share(here, here.answer == there.answer, np.ones(len(here), dtype=np.bool_))
    inside = here.truth >= 0
    right = (here.answer == here.truth).astype(np.float64) - (there.answer == there.truth)
    weights = draws(here.patients) * inside
    drawn = (weights @ right) / np.maximum(weights.sum(axis=1), 1)
    people = len(set(here.patients))
    gap = bounded(float(right[inside].mean()), drawn, int(inside.sum()), people) if inside.any() else None
    return Pair(name, other, len(here), people, gap, same)


def _inflated(blocks: Sequence[Block]) -> list[Inflated]:
    whole = [block.inside() for block in blocks if block.condition == "whole" and not block.elsewhere]
    rows = []
    for name in dict.fromkeys(block.network for block in whole if not block.grouped):
        parts = {
            grouped: max(
                (b for b in whole if b.network == name and b.grouped == grouped and len(b)),
                key=lambda b: (b.precision == "int8", len(b)),
                default=None,
            )
            for grouped in (True, False)
        }
        both = {
            grouped: share(part, part.answer == part.truth, np.ones(len(part), dtype=np.bool_)) if part else None
            for grouped, part in parts.items()
        }
        rows.append(Inflated(name, both[True], both[False]))
    return rows
