from __future__ import annotations

import numpy as np
import pytest

from export.typicality import crossed_typicality, fit_typicality

RNG = np.random.default_rng(0)
SCALES = np.array([0.01, 1.0, 10.0, 1.0])


def pictures(count: int, shift: float = 0.0) -> np.ndarray:
    return ((RNG.normal(size=(count, 4)) + shift) * SCALES).astype(np.float32)


def test_known_pictures_keep_the_promised_share_and_strange_ones_fall():
    measure = fit_typicality(pictures(500), np.zeros(500, np.int64), pictures(400), 0.1)
    known = np.array([measure.of(row) for row in pictures(1000)])
    strange = np.array([measure.of(row) for row in pictures(300, shift=4.0)])
    assert (known < measure.limit).mean() == pytest.approx(0.1, abs=0.04)
    assert (strange < measure.limit).mean() > 0.99
    assert len(measure.distances) == 200
    assert list(measure.distances) == sorted(measure.distances)


def test_every_source_counts_alike_however_many_pictures_it_has():
    many, few = pictures(900), pictures(60, shift=3.0)
    learned, kinds = np.concatenate([many, few]), np.array([0] * 900 + [1] * 60)
    measure = fit_typicality(learned, kinds, learned[::7], 0.1)
    middle = (many.mean(axis=0) + few.mean(axis=0)) / 2
    assert measure.mean / SCALES == pytest.approx(middle / SCALES, abs=0.1)


def test_pictures_that_were_learned_from_keep_the_promise_when_left_out_in_turn():
    """Of 40 traits and 150 pictures a measure is close to what it was made of, and far from everything else."""

    mixed = RNG.normal(size=(40, 40))

    def many(count):
        return (RNG.normal(size=(count, 40)) @ mixed).astype(np.float32)

    learned, kinds = many(150), np.zeros(150, np.int64)
    crossed, flattered = crossed_typicality(learned, kinds, np.arange(150) % 5, 0.2), fit_typicality(learned, kinds, learned, 0.2)
    strange = [np.mean([measure.of(row) < measure.limit for row in many(1000)]) for measure in (crossed, flattered)]
    assert strange[0] == pytest.approx(0.2, abs=0.1)
    assert strange[1] > 0.4
    assert (crossed.mean == flattered.mean).all()
    assert (crossed.whitening == flattered.whitening).all()
