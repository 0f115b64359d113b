"""Splits by patient: all pictures of a patient, of every data set, are on one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.dataset import Sample
from export.errors import DataError

Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indexes into one list of samples. `validation` may be learned from once all is tuned; `test` is looked at once."""

    train: Indexes
    validation: Indexes
    test: Indexes


def patient_folds(samples: Sequence[Sample], *, folds: int, seed: int, validation: float = 0.125) -> list[Split]:
    """Return one split a fold; the test parts together hold every sample once.

    Args:
        samples: of all data sets at once, so that a patient with pictures in two of them stays whole.
        folds: at least 2.
        seed: of the assignment of patients.
        validation: share of the patients that are not in test.

    Patients are dealt out so that every fold gets a like share of each (label, source).
    """
    fold_of = _deal(samples, folds, np.random.default_rng(seed))
    splits = []
    for fold in range(folds):
        rest = np.flatnonzero(fold_of != fold)
        inner = _deal([samples[int(i)] for i in rest], max(round(1 / validation), 2), np.random.default_rng((seed, fold)))
        splits.append(Split(train=rest[inner != 0], validation=rest[inner == 0], test=np.flatnonzero(fold_of == fold)))
    return splits


def deal(samples: Sequence[Sample], hands: int, seed: int) -> Indexes:
    """Return a hand, 0 .. hands - 1, for each sample: those of a patient in one, in each a like share of every (label, source)."""
    return _deal(samples, hands, np.random.default_rng(seed))


def require_patients(samples: Sequence[Sample], folds: int) -> None:
    """Return if every class has a patient for each test part and one more, for training beside it.

    Raises:
        DataError: naming the class that has too few.
    """
    for label in dict.fromkeys(sample.label for sample in samples):
        count = len({sample.patient for sample in samples if sample.label == label})
        if count <= folds:
            people = "patient" if count == 1 else "patients"
            raise DataError(
                f"The class {label} has pictures of {count} {people}; {folds} folds by patient need at least {folds + 1}. "
                "Add patients, or ask for fewer folds."
            )


def _deal(samples: Sequence[Sample], hands: int, rng: np.random.Generator) -> Indexes:
    """Return a hand (0 .. hands - 1) for each sample.

    Patients come in random order, those with most pictures first, each to the hand that is shortest of that kind of picture.
    """
    pictures: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        pictures.setdefault(sample.patient, []).append(index)
    names = [str(name) for name in rng.permutation(sorted(pictures))]
    names.sort(key=lambda name: -len(pictures[name]))
    held: dict[tuple[str, str], Indexes] = {}
    total = np.zeros(hands, dtype=np.int64)
    result = np.zeros(len(samples), dtype=np.int64)
    for name in names:
        first = samples[pictures[name][0]]
        kind = held.setdefault((first.label, first.source), np.zeros(hands, dtype=np.int64))
        hand = int(np.lexsort((total, kind))[0])
        kind[hand] += len(pictures[name])
        total[hand] += len(pictures[name])
        result[pictures[name]] = hand
    return result
