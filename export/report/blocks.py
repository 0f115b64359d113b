"""Predictions as columns: files of one network, protocol, precision and condition belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from export.errors import ReportError
from export.metrics import Floats, Ints
from export.predictions import Condition, Picture, Precision, Predictions

Bools = npt.NDArray[np.bool_]

ELSEWHERE = ("external", "leave", "other hospital")
"""How a protocol's name begins whose pictures come from where nothing was learned."""


@dataclass(frozen=True)
class Block:
    """Predictions of one kind, n of them.

    truth: shape (n,), class indexes, -1 for a label that is none of the classes. logits: shape (n, classes).
    chances: likewise, after temperature. answer: shape (n,), the likeliest class. answered: shape (n,), whether the network
    gives that answer, or hands the picture to a person. patients: shape (n,).
    """

    network: str
    classes: tuple[str, ...]
    protocol: str
    grouped: bool
    precision: Precision
    condition: Condition
    pictures: tuple[Picture, ...]
    truth: Ints
    fold: Ints
    logits: Floats
    chances: Floats
    answer: Ints
    answered: Bools
    patients: npt.NDArray[np.str_]

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.pictures)

    @property
    def elsewhere(self) -> bool:
        """Whether the pictures come from where nothing was learned."""
        return self.protocol.lower().startswith(ELSEWHERE)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """What tells a picture from another."""
        return [(picture.dataset, picture.file) for picture in self.pictures]

    def only(self, chosen: Bools) -> Block:
        """Return the chosen pictures' predictions, in order."""
        return self.take(np.flatnonzero(chosen))

    def take(self, places: npt.NDArray[np.intp]) -> Block:
        """Return the predictions at these places."""
        columns = ("truth", "fold", "logits", "chances", "answer", "answered", "patients")
        return replace(
            self, pictures=tuple(self.pictures[int(i)] for i in places), **{name: getattr(self, name)[places] for name in columns}
        )

    def inside(self) -> Block:
        """Return the pictures whose label is one of the classes."""
        return self.only(self.truth >= 0)

    def of_dataset(self, name: str) -> Block:
        """Return the pictures of one data set."""
        return self.only(np.array([picture.dataset == name for picture in self.pictures], dtype=np.bool_))

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in order of appearance."""
        return list(dict.fromkeys(picture.dataset for picture in self.pictures))


def to_blocks(predictions: Iterable[Predictions]) -> list[Block]:
    """Return one block a kind, in order of appearance.

    Raises:
        ReportError: if parts of a block have other classes, or one picture stands in a block twice.
    """
    kinds: dict[tuple[object, ...], list[Predictions]] = {}
    for part in predictions:
        if part.pictures:
            kinds.setdefault((part.network, part.protocol, part.grouped, part.precision, part.condition), []).append(part)
    return [_block(parts) for parts in kinds.values()]


def common(first: Block, second: Block) -> tuple[Block, Block]:
    """Return the two blocks' predictions of the pictures that both have, in one order."""
    places = {key: place for place, key in enumerate(second.keys)}
    pairs = [(place, places[key]) for place, key in enumerate(first.keys) if key in places]
    here, there = (np.array([pair[side] for pair in pairs], dtype=np.intp) for side in (0, 1))
    return first.take(here), second.take(there)


def _block(parts: Sequence[Predictions]) -> Block:
    first = parts[0]
    name = f"{first.network}, {first.protocol}, {first.precision}, {first.condition}"
    if any(part.classes != first.classes for part in parts):
        raise ReportError(f"The predictions of {name} have different classes in different files. Report on one of them at a time.")
    pictures = tuple(picture for part in parts for picture in part.pictures)
    if len({(picture.dataset, picture.file) for picture in pictures}) < len(pictures):
        raise ReportError(
            f"The predictions of {name} hold a picture twice. Give each file once, and repeated runs other protocols."
        )
    logits = np.concatenate([part.scores() for part in parts])
    temperature = np.concatenate([np.array(part.temperature) for part in parts])
    threshold = np.concatenate([np.array(part.threshold) for part in parts])
    typicality = np.concatenate([np.array(part.typicality or [0.0] * len(part.pictures)) for part in parts])
    scaled = logits / temperature[:, np.newaxis]
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chances = powers / powers.sum(axis=1, keepdims=True)
    return Block(
        network=first.network,
        classes=tuple(first.classes),
        protocol=first.protocol,
        grouped=first.grouped,
        precision=first.precision,
        condition=first.condition,
        pictures=pictures,
        truth=np.concatenate([part.truth() for part in parts]),
        fold=np.concatenate([np.array(part.fold, dtype=np.int64) for part in parts]),
        logits=logits,
        chances=chances,
        answer=np.asarray(logits.argmax(axis=1), dtype=np.int64),
        answered=np.concatenate([np.array(part.answered, dtype=np.bool_) for part in parts])
        if all(part.answered for part in parts)
        else (chances.max(axis=1) >= threshold) & (typicality <= 1),
        patients=np.concatenate([part.patients() for part in parts]),
    )
