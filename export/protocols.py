"""The publications' protocols as lists of named splits, by patient or, as the publications have it, by picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from export.dataset import Sample
from export.errors import DataError
from export.requirements import require_people
from export.splits import Indexes, Split, patient_folds, require_patients

Protocol = Literal["holdout", "p3", "nested5", "tenfold", "fivefold"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

_FOLDS = {"nested5": 5, "tenfold": 10, "fivefold": 5}
_FIFTH = 0.2
P3_DRAWN = {"covid19": (200, 89), "pneumonia": (250, 250), "normal": (250, 250)}
"""P3's first procedure: 700 pictures to train and validate with, and 589 others to test on."""


@dataclass(frozen=True)
class NamedSplit:
    """name: such as "fold-3"."""

    name: str
    split: Split


@dataclass(frozen=True)
class Plan:
    """splits: one after the other. remarks: sentences on what could not be done as published."""

    protocol: Protocol
    grouped: bool
    splits: list[NamedSplit]
    remarks: list[str]


def make_plan(
    samples: Sequence[Sample], classes: Sequence[str], protocol: Protocol, *, grouped: bool, seed: int, validation: float
) -> Plan:
    """Return the splits of a protocol.

    `holdout` tests on a fifth (P1, P4, P5). `p3` is P3's first procedure, `nested5` its second: five folds, of each training part a
    fifth held out. `tenfold` is P2's, `fivefold` that of Ozturk et al.

    Args:
        samples: all of them.
        classes: each has to be in every part.
        protocol: which.
        grouped: whether all pictures of a patient are on one side; if not, every picture counts as a patient.
        seed: who goes where.
        validation: share of the training part that is held out, where the protocol does not say.

    Raises:
        DataError: if there are too few patients, or too few of a class.
    """
    require_people(samples)
    people = list(samples) if grouped else [replace(sample, patient=str(i)) for i, sample in enumerate(samples)]
    remarks: list[str] = []
    if protocol == "holdout":
        named = [NamedSplit("holdout", patient_folds(people, folds=5, seed=seed, validation=validation)[0])]
    elif protocol == "p3":
        split, remarks = _p3(people, classes, seed)
        named = [NamedSplit("p3", split)]
    else:
        folds = _FOLDS[protocol]
        require_patients(people, folds)
        share = _FIFTH if protocol == "nested5" else validation
        splits = patient_folds(people, folds=folds, seed=seed, validation=share)
        named = [NamedSplit(f"fold-{number}", split) for number, split in enumerate(splits, 1)]
    _require_classes_in_parts(named, samples, classes)
    return Plan(protocol, grouped, named, remarks)


def training_only(samples: Sequence[Sample], classes: Sequence[str], *, seed: int, validation: float) -> Split:
    """Return a split by patient without a test part, for a training whose result is tested elsewhere.

    Raises:
        DataError: as `make_plan`.
    """
    require_people(samples)
    fold = patient_folds(samples, folds=max(round(1 / validation), 2), seed=seed)[0]
    split = Split(train=np.sort(np.concatenate([fold.train, fold.validation])), validation=fold.test, test=fold.test[:0])
    _require_classes_in_parts([NamedSplit("training", split)], samples, classes)
    return split


def shared_patients(samples: Sequence[Sample], splits: Sequence[NamedSplit]) -> float:
    """Return the share of the tested pictures whose patient is also in their training or validation part, 0..1."""
    tested = shared = 0
    for named in splits:
        seen = {samples[i].patient for part in (named.split.train, named.split.validation) for i in part}
        tested += len(named.split.test)
        shared += sum(samples[i].patient in seen for i in named.split.test)
    return shared / max(tested, 1)


def _p3(people: Sequence[Sample], classes: Sequence[str], seed: int) -> tuple[Split, list[str]]:
    if set(classes) != set(P3_DRAWN):
        raise DataError(f"P3's procedure is for the classes {', '.join(P3_DRAWN)}, not {', '.join(classes)}. Take holdout.")
    rng = np.random.default_rng(seed)
    drawn: list[int] = []
    remarks = []
    taken: set[str] = set()
    for name, (published, tested) in P3_DRAWN.items():
        mine = [i for i, sample in enumerate(people) if sample.label == name]
        wanted = min(published, round(len(mine) * published / (published + tested)))
        if wanted < published:
            remarks.append(
                f"P3 draws {published} pictures of {name} and tests on {tested} others; of the {len(mine)} here {wanted} are drawn."
            )
        held = sum(people[i].patient in taken for i in mine)
        for patient in rng.permutation(sorted({people[i].patient for i in mine} - taken)):
            if held >= wanted:
                break
            taken.add(str(patient))
            held += sum(people[i].patient == patient for i in mine)
    drawn = [i for i, sample in enumerate(people) if sample.patient in taken]
    places = np.array(drawn, dtype=np.int64)
    # 80/20 of what was drawn: the first of five folds is for validation.
    inner = patient_folds([people[i] for i in drawn], folds=5, seed=seed)[0]
    rest = np.array([i for i, sample in enumerate(people) if sample.patient not in taken], dtype=np.int64)
    return Split(places[np.sort(np.concatenate([inner.train, inner.validation]))], places[inner.test], rest), remarks


def _require_classes_in_parts(splits: Sequence[NamedSplit], samples: Sequence[Sample], classes: Sequence[str]) -> None:
    for named in splits:
        for part in ("train", "validation", "test"):
            indexes: Indexes = getattr(named.split, part)
            lacking = sorted(set(classes) - {samples[i].label for i in indexes})
            if lacking and (part != "test" or named.name != "training"):
                raise DataError(
                    f"The {part} part of {named.name} has no picture of {' and none of '.join(lacking)}. "
                    "Add patients, or ask for fewer folds."
                )


class RecordedSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Files as DATASET/PATH, with `/` between the parts."""

    name: str
    train: list[str]
    validation: list[str]
    test: list[str]


class RecordedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan by file names, so that another network can be put to the same test."""

    protocol: Protocol
    grouped: bool
    classes: list[str]
    remarks: list[str]
    splits: list[RecordedSplit]


def record_plan(plan: Plan, samples: Sequence[Sample], classes: Sequence[str]) -> RecordedPlan:
    """Return the plan by file names."""

    def names(indexes: Indexes) -> list[str]:
        return [samples[i].key for i in indexes]

    splits = [
        RecordedSplit(name=n.name, train=names(n.split.train), validation=names(n.split.validation), test=names(n.split.test))
        for n in plan.splits
    ]
    return RecordedPlan(protocol=plan.protocol, grouped=plan.grouped, classes=list(classes), remarks=plan.remarks, splits=splits)


def replay_plan(recorded: RecordedPlan, samples: Sequence[Sample], classes: Sequence[str]) -> Plan:
    """Return the plan for these samples again.

    Raises:
        DataError: if it is for other classes, or names files that are not among the samples.
    """
    if recorded.classes != list(classes):
        raise DataError(f"The recorded splits are for the classes {', '.join(recorded.classes)}, not {', '.join(classes)}.")
    place = {sample.key: i for i, sample in enumerate(samples)}
    named = [name for split in recorded.splits for part in (split.train, split.validation, split.test) for name in part]
    missing = sorted({name for name in named if name not in place})
    if missing:
        raise DataError(
            f"The recorded splits name {len(missing)} pictures that are not in the data, such as {missing[0]}. "
            "Give the data that they were made of."
        )

    def indexes(names: list[str]) -> Indexes:
        return np.array([place[name] for name in names], dtype=np.int64)

    splits = [NamedSplit(s.name, Split(indexes(s.train), indexes(s.validation), indexes(s.test))) for s in recorded.splits]
    return Plan(recorded.protocol, recorded.grouped, splits, recorded.remarks)


def read_plan(file: Path) -> RecordedPlan:
    """Read a recorded plan.

    Raises:
        DataError: if the file cannot be read or is of another kind.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=RecordedPlan)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). `cxr-export crossval` writes splits.json.") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{file} does not hold recorded splits: {error}. `cxr-export crossval` writes splits.json.") from None
