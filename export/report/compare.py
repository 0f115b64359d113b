"""Networks beside each other, precisions beside each other, and numbers with patients kept apart beside those without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.metrics import Estimate, bounded, draws
from export.report.blocks import Block, common
from export.report.score import Score, score, share


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


def home(blocks: Sequence[Block], condition: str = "whole") -> list[Block]:
    """Blocks of what a network should know, with patients kept apart."""
    return [block for block in blocks if block.condition == condition and block.grouped and not block.elsewhere]


def named(block: Block, dataset: str = "") -> Named:
    """Return the score of a block with its name."""
    return Named(block.network, block.protocol, block.grouped, block.precision, block.condition, dataset, score(block))


def networks(blocks: Sequence[Block], main: Block, precision: str = "int8") -> list[Named]:
    """One row a network and protocol, of that precision where there is, on the pictures that the main block also has."""
    rows: dict[tuple[str, str], Block] = {}
    for block in sorted(home(blocks), key=lambda block: block.precision == precision):
        rows[block.network, block.protocol] = block
    order = dict.fromkeys((block.network, block.protocol) for block in blocks)
    shared = [common(rows[key].inside(), main)[0] for key in order if key in rows]
    return [named(block) for block in shared if len(block)]


def differences(blocks: Sequence[Block], main: Block) -> list[Pair]:
    """The subject against every other network, on the same pictures."""
    others: dict[tuple[str, str], Block] = {}
    for block in sorted(home(blocks), key=lambda block: block.precision == "int8"):
        if block.network != main.network:
            others[block.network, block.protocol] = block
    pairs = (pair(main, other.inside(), main.network, f"{name} ({protocol})") for (name, protocol), other in others.items())
    return [found for found in pairs if found is not None]


def agreements(blocks: Sequence[Block]) -> list[Pair]:
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


def inflated(blocks: Sequence[Block]) -> list[Inflated]:
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
