from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.baseline import linear_scores, shape_only_inputs
from export.calibrate import fit_candidate, fit_temperature, fit_threshold, probabilities, sensitivity_threshold
from export.evaluate import (
    abstention,
    accuracy_difference,
    agreement,
    calibration_error,
    coverage,
    covid_against_rest,
    fold_rows,
    patched,
)
from export.metrics import accuracy, accuracy_interval, auc, confusion, interval, macro_recall

TRUTH = np.array([0, 0, 0, 1, 1, 2])
ANSWER = np.array([0, 0, 1, 1, 2, 2])


def test_confusion_accuracy_and_macro_recall_by_hand():
    table = confusion(TRUTH, ANSWER, 3)
    assert table.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert accuracy(table) == pytest.approx(4 / 6)
    assert macro_recall(table) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert macro_recall(confusion(TRUTH[:5], ANSWER[:5], 3)) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_weights_count_pictures_several_times():
    table = confusion(TRUTH, ANSWER, 3, np.array([1.0, 1, 4, 0, 0, 2]))
    assert accuracy(table) == pytest.approx(4 / 8)


def test_auc_by_hand_with_a_tie():
    positive = np.array([True, True, False, False])
    assert auc(positive, np.array([0.9, 0.4, 0.4, 0.1])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert math.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30))
def test_weighted_auc_equals_auc_of_repeated_pictures(rows):
    positive, score, times = (np.array(column) for column in zip(*rows, strict=True))
    again = np.repeat(np.arange(len(rows)), times)
    weighted = auc(positive, score.astype(float), times.astype(float))
    repeated = auc(positive[again], score[again].astype(float)) if len(again) else float("nan")
    assert weighted == pytest.approx(repeated, nan_ok=True)


def test_the_interval_resamples_patients_not_pictures():
    right = np.tile([1.0, 0.0], 50)
    one_each = np.array([f"p{i}" for i in range(100)])
    two_people = np.array(["a", "b"] * 50)
    statistic = lambda weights: float(np.sum(weights * right) / np.sum(weights))  # noqa: E731
    narrow, wide = interval(statistic, one_each), interval(statistic, two_people)
    assert (narrow.value, narrow.pictures, narrow.patients) == (0.5, 100, 100)
    assert 0.39 < narrow.low < 0.42 < 0.58 < narrow.high < 0.61  # 0.5 -+ 1.96 * sqrt(0.25 / 100)
    assert (wide.low, wide.high, wide.patients) == (0.0, 1.0, 2)


def test_accuracy_interval_of_a_perfect_answer_is_a_point():
    estimate = accuracy_interval(TRUTH, TRUTH, 3, np.array(list("abcdef")))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_temperature_undoes_a_known_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    chances = probabilities(logits, 1.0)
    truth = np.array([rng.choice(3, p=row) for row in chances])
    assert fit_temperature(logits * 3, truth) == pytest.approx(3.0, rel=0.1)
    assert calibration_error(chances, truth) < 0.03
    assert calibration_error(probabilities(logits * 3, 1.0), truth) > 0.1


def test_threshold_answers_the_asked_share():
    logits = np.random.default_rng(1).normal(0, 2, (1000, 3))
    threshold = fit_threshold(logits, 1.5, answered=0.7)
    assert np.mean(probabilities(logits, 1.5).max(axis=1) >= threshold) == pytest.approx(0.7, abs=0.005)


def test_abstention_by_hand():
    chances = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.4, 0.3, 0.3], [0, 0.5, 0.5]])
    answered = np.array([True, True, False, False])
    found = abstention(chances, np.array([0, 1, 1, 1]), np.array(list("abcd")), answered)
    assert found["declined_share"] == 0.5
    assert found["accuracy"]["answered"]["value"] == 1.0
    assert found["accuracy"]["declined"]["value"] == 0.5
    # Bins 9, 9, 4 and 5: |0.9 + 1 - 2| + |0.4 - 0| + |0.5 - 1|, over four pictures.
    assert found["expected_calibration_error"]["value"] == pytest.approx(0.25)


def test_weighted_calibration_error_equals_that_of_repeated_pictures():
    rng = np.random.default_rng(0)
    chances, truth, times = rng.dirichlet(np.ones(3), 40), rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    again = np.repeat(np.arange(40), times)
    weighted = calibration_error(chances, truth, weights=times.astype(float))
    assert weighted == pytest.approx(calibration_error(chances[again], truth[again]))


def test_conformal_sets_cover_what_they_promise():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        # The network is overconfident, which the sets do not mind.
        chances = rng.dirichlet(np.full(3, 0.3), 160)
        truth = np.array([rng.choice(3, p=0.5 * row + 0.5 / 3) for row in chances])
        candidate = fit_candidate(chances[:80], truth[:80], 0.2)
        inside = coverage(chances[80:], truth[80:], np.arange(80).astype(str), np.full(80, candidate))
        shares.append(inside["share"]["value"])
    assert np.mean(shares) == pytest.approx(0.8, abs=0.02)
    assert fit_candidate(chances[:3], truth[:3], 0.2) == 0.0  # too few pictures to promise anything but all classes


def test_sensitivity_threshold_by_hand():
    chances = np.zeros((6, 2))
    chances[:, 1] = [0.9, 0.8, 0.6, 0.4, 0.7, 0.1]
    truth = np.array([1, 1, 1, 1, 0, 0])
    assert sensitivity_threshold(chances, truth, 1, 1.0) == 0.4
    assert sensitivity_threshold(chances, truth, 1, 0.75) == 0.6
    assert sensitivity_threshold(chances, truth, 1, 0.76) == 0.4
    assert sensitivity_threshold(chances, np.zeros(6, np.int64), 1, 0.9) == 0.0


def test_covid_against_rest_counts_other_diseases_among_the_rest():
    logits = np.array([[9.0, 0, 1], [0, 0, 1], [0, 1, 0]])
    found = covid_against_rest(logits, np.array([-1, 2, 1]), np.array(list("abc")))
    assert (found["auc"]["value"], found["auc"]["pictures"], found["covid19"], found["rest"]) == (1.0, 3, 1, 2)


def test_difference_agreement_and_rows_by_hand():
    ours, theirs = np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[0, 0, 0, 2]]
    truth, people = np.array([0, 1, 2, 0]), np.array(list("abcd"))
    assert accuracy_difference(ours, theirs, truth, people)["value"] == 0.5
    assert agreement(ours, theirs) == {"pictures": 4, "same_class": 0.5, "largest_logit_difference": 1.0}
    rows = fold_rows(ours, theirs, truth, np.array([0, 0, 1, 1]))
    assert rows == [
        {"fold": 0, "pictures": 2, "accuracy": 1.0, "linear": 0.5},
        {"fold": 1, "pictures": 2, "accuracy": 0.5, "linear": 0.0},
    ]


def test_the_patch_is_61_percent_of_the_area_and_leaves_the_rest():
    white = np.full((1, 192, 192), 255, np.uint8)
    black = patched(white, 0)
    assert np.mean(black == 0) == pytest.approx(0.61, abs=0.005)
    assert black[0, 0, 0] == black[0, -1, -1] == 255
    assert white.min() == 255


def test_the_shape_of_a_file_does_not_reach_the_network_input():
    inputs = shape_only_inputs([(300, 300), (200, 500), (500, 220), (1024, 768)])
    assert all(np.array_equal(inputs[0], other) for other in inputs[1:])


def test_the_linear_model_learns_what_is_linear():
    rng = np.random.default_rng(0)
    targets = np.arange(60) % 3
    pixels = rng.integers(0, 80, (60, 192, 192), dtype=np.uint8)
    for picture, target in zip(pixels, targets, strict=True):
        picture[target * 64 : target * 64 + 64] += 100
    scores = linear_scores(pixels[:45], targets[:45], pixels[45:])
    assert np.array_equal(scores.argmax(axis=1), targets[45:])
