from __future__ import annotations

import numpy as np
import pytest

from export.augment import Strength, distort, exchange_borders, middle, without_middle

STILL = Strength(rotation=0, shift=0, zoom=0, contrast=0, brightness=0, gamma=0, noise=0)


def test_no_strength_changes_nothing():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    lungs = (rng.random((3, 32, 32)) > 0.5).astype(np.float32)
    changed, moved = distort(pictures, lungs, STILL, rng)
    assert changed == pytest.approx(pictures / 255, abs=1e-5)
    assert moved == pytest.approx(lungs, abs=1e-5)


def test_the_lungs_move_with_the_picture_and_keep_their_brightness():
    rng = np.random.default_rng(0)
    lungs = np.zeros((4, 64, 64), np.float32)
    lungs[:, 20:44, 12:30] = 1
    pictures = (lungs * 255).astype(np.uint8)
    changed, moved = distort(pictures, lungs, Strength(contrast=0, brightness=0, gamma=0, noise=0), rng)
    assert changed == pytest.approx(moved, abs=1e-5)
    assert np.abs(moved - lungs).max() > 0.5
    exposed, still = distort(pictures, lungs, Strength(rotation=0, shift=0, zoom=0), rng)
    assert still == pytest.approx(lungs, abs=1e-5)
    assert np.abs(exposed - lungs).mean() > 0.01
    assert 0 <= exposed.min() <= exposed.max() <= 1


def test_a_border_comes_from_the_same_group_and_hides_the_lungs_under_it():
    rng = np.random.default_rng(0)
    values = np.array([0.1, 0.2, 0.6, 0.7], np.float32)
    pictures = np.broadcast_to(values[:, None, None], (4, 64, 64)).copy()
    lungs = np.ones((4, 64, 64), np.float32)
    mixed, hidden = exchange_borders(pictures, lungs, np.array([0, 0, 1, 1]), 1.0, rng)
    assert mixed[:, 32, 32].tolist() == values.tolist()
    assert mixed[:, 0, 0].tolist() == values[[1, 0, 3, 2]].tolist()
    assert (hidden[:, 32, 32] == 1).all()
    assert (hidden[:, 0, 0] == 0).all()
    alone, _ = exchange_borders(pictures, lungs, np.arange(4), 1.0, rng)
    assert np.array_equal(alone, pictures)


def test_a_middle_has_the_asked_area_and_lies_in_the_middle():
    rng = np.random.default_rng(0)
    for _ in range(100):
        rows, columns = middle(192, 0.5, 0.75, rng)
        area = (rows.stop - rows.start) * (columns.stop - columns.start) / 192**2
        assert 0.48 < area < 0.77
        assert 0 <= rows.start < 96 < rows.stop <= 192
        assert 0 <= columns.start < 96 < columns.stop <= 192


def test_without_a_middle_only_the_border_is_left():
    rng = np.random.default_rng(0)
    pictures = rng.random((20, 64, 64)).astype(np.float32)
    emptied = without_middle(pictures, rng)
    kept = (emptied == pictures).mean(axis=(1, 2))
    assert ((kept > 0.15) & (kept < 0.55)).all()
    assert (np.abs(emptied[:, 24:40, 24:40] - pictures[:, 24:40, 24:40]).mean(axis=(1, 2)) > 0.05).all()
