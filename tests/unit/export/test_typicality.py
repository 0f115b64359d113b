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
    """A measure is close to what it was made of."""
    rng = np.random.default_rng(0)
    mixing = (np.linalg.qr(rng.normal(size=(96, 96)))[0] * np.sqrt(np.geomspace(0.01, 30, 96))).T

    def many(count):
        return (rng.normal(size=(count, 96)) @ mixing).astype(np.float32)

    def strange(measure):
        distances = np.linalg.norm((new - measure.mean) @ measure.whitening.T, axis=1)
        return np.mean(distances > np.quantile(measure.distances, 1 - measure.limit))

    new, kinds = many(2000), np.zeros(300, np.int64)
    found = []
    for _ in range(5):
        learned = many(300)
        crossed = crossed_typicality(learned, kinds, np.arange(300) % 100, 0.15)
        whole = fit_typicality(learned, kinds, learned, 0.15)
        found.append([strange(crossed), strange(whole)])
        assert (crossed.mean == whole.mean).all()
        assert (crossed.whitening == whole.whitening).all()
    kept, flattered = np.mean(found, axis=0)
    assert kept == pytest.approx(0.15, abs=0.02)
    assert flattered > 0.4
