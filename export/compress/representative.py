"""Which pictures the ranges of an int8 network are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.dataset import Sample

REPRESENTATIVE = 100
"""Pictures for one network, where nothing speaks for another number."""


def representative_by_patient(samples: Sequence[Sample], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indexes, in rising order, of at most `count` samples: one a patient at most, every (label, source) as often.

    Groups take turns, each giving a patient of its own who has not been taken; one that has no patient left drops out, so a small
    group is taken whole. Patients and their pictures are drawn at random.

    Args:
        samples: of the training part only: what a network is tested on must not shape it.
        count: how many at most; fewer come where there are fewer patients.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    waiting: dict[tuple[str, str], list[int]] = {}
    for index in rng.permutation(len(samples)):
        sample = samples[int(index)]
        waiting.setdefault((sample.label, sample.source), []).append(int(index))
    groups = [waiting[name] for name in sorted(waiting)]
    taken: list[int] = []
    people: set[str] = set()
    while groups and len(taken) < count:
        for group in list(groups):
            while group and samples[group[-1]].patient in people:
                group.pop()
            if not group:
                groups.remove(group)
            elif len(taken) < count:
                chosen = group.pop()
                people.add(samples[chosen].patient)
                taken.append(chosen)
    return np.array(sorted(taken), dtype=np.int64)
