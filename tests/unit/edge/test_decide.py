"""From scores to an answer: threshold, conformal set, typicality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.reasons import advice
from edge.errors import BundleError
from edge.network.classify import Scores
from edge.network.decide import UNDECIDED, UNFAMILIAR, Rule, decide, heat_summary, softmax
from edge.network.typicality import Typicality, read_typicality

NOTHING = np.empty(0, np.float32)


def scores(*logits: float, traits: np.ndarray = NOTHING) -> Scores:
    return Scores(np.array(logits, np.float32), tuple(0 for _ in logits), np.empty((0, 0, len(logits)), np.float32), traits)


def usual(limit: float = 0.2) -> Typicality:
    return Typicality(np.zeros(2, np.float32), np.eye(2, dtype=np.float32), (1.0, 2.0, 3.0, 4.0), limit)


def test_temperature_and_threshold():
    given_scores = scores(1.0, 0.5, 0.0)
    sharp = decide(given_scores, Rule(("a", "b", "c"), temperature=0.01, threshold=0.5))
    flat = decide(given_scores, Rule(("a", "b", "c"), temperature=1e6, threshold=0.5))
    assert sharp.label == flat.label == "a"
    assert (sharp.abstained, flat.abstained) == (False, True)
    assert max(flat.probabilities.values()) == pytest.approx(1 / 3, abs=1e-3)
    assert softmax(np.array([1e4, 0.0, -1e4])).tolist() == [1.0, 0.0, 0.0]


def test_two_candidates_are_undecided():
    rule = Rule(("a", "b", "c"), temperature=1.0, threshold=0.3, candidate=0.35)
    close = decide(scores(1.0, 0.9, -3.0), rule)
    clear = decide(scores(3.0, 0.9, -3.0), rule)
    assert (close.abstained, close.reasons) == (True, (UNDECIDED,))
    assert (clear.abstained, clear.reasons) == (False, ())


def test_a_picture_of_another_kind_is_unfamiliar_however_sure_the_network_is():
    rule = Rule(("a", "b"), temperature=1.0, threshold=0.5, typicality=usual())
    near = decide(scores(9.0, 0.0, traits=np.array([0.5, 0.0], np.float32)), rule)
    far = decide(scores(9.0, 0.0, traits=np.array([5.0, 0.0], np.float32)), rule)
    assert (near.abstained, near.typicality, near.reasons) == (False, 1.0, ())
    assert (far.abstained, far.typicality) == (False, 0.2)  # at the limit, not below it
    stricter = decide(scores(9.0, 0.0, traits=np.array([5.0, 0.0], np.float32)), Rule(("a", "b"), 1.0, 0.5, 1.0, usual(0.21)))
    assert (stricter.abstained, stricter.reasons) == (True, (UNFAMILIAR,))


@pytest.mark.parametrize("code", [UNFAMILIAR, UNDECIDED, "uid_reused"])
def test_every_code_of_an_answer_has_a_sentence(code):
    assert advice(code).endswith(".")


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.floats(0, 12))
def test_typicality_is_the_share_at_least_as_far(distances, distance):
    measure = Typicality(np.zeros(1, np.float32), np.ones((1, 1), np.float32), tuple(sorted(distances)), 0.1)
    traits = np.array([distance], np.float32)
    found = measure.of(traits)
    beyond = sum(d >= measure.distance(traits) for d in distances)
    assert found == (beyond + 1) / (len(distances) + 1)
    assert 0 < found <= 1


def test_typicality_survives_its_file_and_damage_is_refused():
    rng = np.random.default_rng(0)
    measure = Typicality(rng.normal(size=5).astype(np.float32), rng.normal(size=(5, 5)).astype(np.float32), (1.0, 2.0), 0.1)
    content = measure.to_bytes()
    again = read_typicality(content, [1.0, 2.0], 0.1)
    traits = rng.normal(size=5).astype(np.float32)
    assert again.distance(traits) == measure.distance(traits)
    for damaged in (b"", content[:-1], content[:-4], content + b"\0\0\0\0", b"\xff" * len(content)):
        with pytest.raises(BundleError, match="not of the expected kind"):
            read_typicality(damaged, [1.0], 0.1)


def test_heat_summary():
    heat = np.zeros((12, 12), np.float32)
    heat[0, 0], heat[11, 0], heat[5, 11] = 3.0, -5.0, 1.0
    assert heat_summary(heat) == {
        "image_left_upper": 0.75,
        "image_right_upper": 0.25,
        "image_left_lower": 0.0,
        "image_right_lower": 0.0,
        "image_central": 0.0,
        "image_peripheral": 1.0,
    }
    heat[5, 3] = heat[5, 8] = 2.0
    assert heat_summary(heat)["image_central"] == 0.5
    assert heat_summary(-np.ones((12, 12), np.float32)) == {}
