from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.dataset import Sample
from export.near_duplicates import (
    AUGMENTED,
    COPIED,
    RECROPPED,
    Pair,
    across_patients,
    clusters,
    near_duplicates,
    pairs_across,
    tied,
)
from export.phantom import phantom, random_opacities
from export.splits import Split

SIDE = 192


@pytest.fixture(scope="module")
def originals():
    return [phantom(seed, width=SIDE, height=SIDE, opacity=random_opacities(seed, seed % 7)) for seed in range(12)]


def again(picture, quality=40):
    held = io.BytesIO()
    Image.fromarray(picture).save(held, "JPEG", quality=quality)
    return np.asarray(Image.open(held))


def darker(picture):
    return (255 * (picture / 255.0) ** 1.5).astype(np.uint8)


def trimmed(picture, share=0.03):
    cut = int(SIDE * share)
    return np.asarray(Image.fromarray(picture).crop((cut, cut, SIDE - cut, SIDE - cut)).resize((SIDE, SIDE)))


def sample(number, patient):
    return Sample(file=Path(f"{number}.png"), label="normal", patient=patient, source="s", dataset="d")


@pytest.mark.parametrize("change", [again, darker, trimmed])
def test_a_copy_is_found_and_nothing_else(originals, change):
    pixels = np.stack([*originals, change(originals[4])])
    pairs = near_duplicates(pixels)
    assert [(pair.first, pair.second) for pair in pairs] == [(4, 12)]
    assert 0.9 <= pairs[0].likeness <= 1.0


def test_two_flat_pictures_are_no_pair():
    assert near_duplicates(np.zeros((3, SIDE, SIDE), np.uint8)) == []


def test_only_pairs_of_two_patients_or_two_sides_count(originals):
    pixels = np.stack([originals[0], again(originals[0]), originals[1], again(originals[1]), originals[2], again(originals[2])])
    samples = [sample(number, patient) for number, patient in enumerate(["a", "a", "b", "c", "d", "e"])]
    assert [(pair.first, pair.second) for pair in sorted(across_patients(samples, pixels), key=lambda pair: pair.first)] == [
        (2, 3),
        (4, 5),
    ]
    split = Split(train=np.array([0, 1, 2]), validation=np.array([], np.int64), test=np.array([3, 4, 5]))
    assert [(pair.first, pair.second) for pair in pairs_across(split, samples, pixels)] == [(2, 3)]
    with pytest.raises(ValueError, match="6 samples and 5 pictures"):
        pairs_across(split, samples, pixels[:5])


def test_an_augmented_copy_is_tied_to_its_original(originals):
    # Under turning and flipping some of the drawn chests come out alike; grain of its own makes each one a person.
    rng = np.random.default_rng(0)
    grain = [np.asarray(Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).resize((SIDE, SIDE))) for _ in range(6)]
    people = [(0.7 * picture + 0.3 * mine).astype(np.uint8) for picture, mine in zip(originals, grain, strict=False)]
    turned = np.asarray(Image.fromarray(people[3]).rotate(10, Image.Resampling.BILINEAR))
    pixels = np.stack([*people, turned, np.fliplr(people[1])])
    groups = clusters(len(pixels), near_duplicates(pixels, (AUGMENTED,)))
    assert groups == [0, 1, 2, 3, 4, 5, 3, 1]


def test_a_picture_that_was_cropped_anew_is_found_by_the_thorough_search(originals):
    part = np.asarray(Image.fromarray(originals[5]).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(0, 11, 170, 181)))
    pixels = np.stack([originals[5], originals[8], part])
    assert near_duplicates(pixels) == []
    assert [(pair.first, pair.second) for pair in near_duplicates(pixels, (COPIED, RECROPPED))] == [(0, 2)]


def test_patients_that_share_an_exposure_become_one():
    samples = [sample(number, patient) for number, patient in enumerate("abacdd")]
    assert [one.patient for one in tied(samples, [Pair(2, 3, 0.95)])] == ["a", "b", "a", "a", "d", "d"]
    assert tied(samples, []) == samples


def test_clusters_join_over_several_steps():
    assert clusters(5, [Pair(3, 4, 1.0), Pair(1, 3, 1.0)]) == [0, 1, 2, 1, 1]
