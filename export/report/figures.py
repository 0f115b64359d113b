"""Every number of a report, from predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.errors import ReportError
from export.metrics import confusion
from export.predictions import Predictions
from export.report.blocks import Block, to_blocks
from export.report.compare import Inflated, Named, Pair, agreements, differences, inflated, named, networks
from export.report.subsets import (
    Control,
    Elsewhere,
    Giveaway,
    Group,
    SameSource,
    controls,
    elsewhere,
    giveaways,
    groups,
    same_source,
)


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
    as_published: tuple[Named, ...]
    differences: tuple[Pair, ...]
    agreements: tuple[Pair, ...]
    inflated: tuple[Inflated, ...]


def concern_of(classes: Sequence[str]) -> str:
    """Return the class that a page asks about first: covid where there is one, else the last that is not normal."""
    covid = [name for name in classes if "covid" in name and not name.startswith("non")]
    return (covid or [name for name in classes if name != "normal"][-1:] or list(classes))[0]


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
    mine = _one_precision([block for block in same_classes if block.network == name], main.precision)
    away = [block for block in mine if block.elsewhere and block.condition == "whole"]
    counts = np.bincount(main.truth, minlength=len(main.classes))
    return Figures(
        subject=name,
        concern=concern,
        classes=main.classes,
        main=named(main),
        by_dataset=tuple(named(main.of_dataset(part), part) for part in main.datasets) if len(main.datasets) > 1 else (),
        chance_accuracy=round(float(counts.max() / counts.sum()), 4),
        scores=tuple(round(float(value), 4) for value in main.chances[:, number]),
        positives=tuple(bool(value) for value in main.truth == number),
        folds=tuple(_folds(main, number)),
        groups=tuple(groups(main, number)),
        controls=tuple(controls(mine, main, number)),
        elsewhere=tuple(elsewhere(block, part, number) for block in away for part in block.datasets),
        same_source=tuple(same_source(main)),
        giveaways=tuple(giveaways(main, number)),
        networks=tuple(networks(same_classes, main)),
        as_published=tuple(networks(same_classes, main, "float32")),
        differences=tuple(differences(same_classes, main)),
        agreements=tuple(agreements(blocks)),
        inflated=tuple(inflated(blocks)),
    )


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


def _one_precision(blocks: Sequence[Block], precision: str) -> list[Block]:
    """Return one block a protocol and condition: of that precision where there is one, else of what there is."""
    chosen: dict[tuple[str, bool, str], Block] = {}
    for block in blocks:
        key = (block.protocol, block.grouped, block.condition)
        if key not in chosen or block.precision == precision:
            chosen[key] = block
    return list(chosen.values())


def _folds(block: Block, concern: int) -> list[Fold]:
    rows = []
    for fold in np.unique(block.fold):
        part = block.only(block.fold == fold)
        table = confusion(part.truth, part.answer, len(block.classes)).astype(np.int64)
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
