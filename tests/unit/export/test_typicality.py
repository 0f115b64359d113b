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
    """A measure is close to what it was made of; and most traits hardly vary, so that shrinking the covariance changes much."""
    rng = np.random.default_rng(0)
    mixed = np.geomspace(30, 0.01, 60)[:, np.newaxis] * np.linalg.qr(rng.normal(size=(60, 60)))[0]

    def many(count):
        return (rng.normal(size=(count, 60)) @ mixed).astype(np.float32)

    def strange(learned, hands):
        measure = crossed_typicality(learned, np.zeros(len(learned), np.int64), hands, 0.2)
        return np.mean([measure.of(row) < measure.limit for row in new])

    new = many(500)
    sets = [many(250) for _ in range(4)]
    alone, fifths = (np.mean([strange(learned, hands) for learned in sets]) for hands in (np.arange(250), np.arange(250) % 5))
    assert alone == pytest.approx(0.2, abs=0.03)
    assert fifths > alone + 0.02
    learned, kinds = sets[0], np.zeros(250, np.int64)
    crossed, flattered = crossed_typicality(learned, kinds, np.arange(250), 0.2), fit_typicality(learned, kinds, learned, 0.2)
    assert np.mean([flattered.of(row) < flattered.limit for row in new]) > 0.3
    assert (crossed.mean == flattered.mean).all()
    assert (crossed.whitening == flattered.whitening).all()
