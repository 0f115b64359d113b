"""The two regressions: their slopes and curvatures against differences, and where their steps end."""

from __future__ import annotations

import numpy as np
import pytest

from export.regression import Examples, binary, descend, multinomial


@pytest.fixture(params=["certain", "open", "chances"])
def problem(request):
    rng = np.random.default_rng(0)
    wanted = {
        "certain": np.eye(3)[rng.integers(0, 3, 40)],
        "open": np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]])[rng.integers(0, 3, 40)],
        "chances": rng.dirichlet(np.ones(3), 40),
    }[request.param].astype(np.float64)
    examples = Examples(rng.normal(size=(40, 5)), wanted, np.full(40, request.param != "chances"), rng.uniform(0.5, 2, 40))
    return multinomial(examples, rng.normal(size=(4, 5)), 3.0, rng.normal(size=(5, 3)), 0.7), 15


@pytest.fixture
def two_sided():
    rng = np.random.default_rng(1)
    given = np.concatenate([rng.normal(size=(40, 4)), np.ones((40, 1))], axis=1)
    return binary(given, rng.uniform(size=40)), 5


def _differences(function, place, step=1e-5):
    rows = [(np.asarray(function(place + step * unit)) - function(place - step * unit)) / (2 * step) for unit in np.eye(len(place))]
    return np.array(rows)


def _check(problem, size):
    loss, (curvature, *careful) = problem
    place = np.random.default_rng(2).normal(size=size)
    assert loss(place)[1] == pytest.approx(_differences(lambda point: loss(point)[0], place), abs=1e-5)
    # What cannot be divided by is raised a little (1e-3).
    assert curvature(place) == pytest.approx(_differences(lambda point: loss(point)[1], place), abs=2e-3)
    for seed in range(5):
        there = np.random.default_rng(seed).normal(size=size, scale=seed)
        for more in careful:
            assert np.linalg.eigvalsh(more(there) - curvature(there)).min() > -1e-9
        assert (careful[-1](there) == careful[-1](place)).all()
    found = descend(*problem, place)
    assert np.abs(loss(found)[1]).max() < 1e-2
    assert loss(found)[0] <= min(loss(place)[0], loss(np.zeros(size))[0])


def test_slope_and_curvature_of_many_classes(problem):
    _check(*problem)


def test_slope_and_curvature_of_two_sides(two_sided):
    _check(*two_sided)


def test_where_most_classes_are_left_open_the_exact_curvature_saves_steps():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 3
    wanted = np.eye(3)[label]
    wanted[30:] = np.where(label[30:, np.newaxis] == 2, [0.0, 0.0, 1.0], [1.0, 1.0, 0.0])
    features = rng.normal(size=(200, 6)) + 2 * np.eye(6)[label]
    loss, curvatures = multinomial(
        Examples(features, wanted, np.full(200, True), np.ones(200)), np.zeros((1, 6)), 3.0, np.zeros((6, 3)), 1.0
    )
    asked = []

    def counted(curvature):
        def asking(place):
            asked.append(place)
            return curvature(place)

        return asking

    steps = []
    for some in (curvatures, curvatures[1:]):
        asked.clear()
        found = descend(loss, tuple(map(counted, some)), np.zeros((6, 3)))
        assert np.abs(loss(found.ravel())[1]).max() < 0.1
        steps.append(len(asked))
    assert steps[0] < 0.85 * steps[1]
