"""A film whose pixels are not square is looked at as it was taken, and what makes no sense of it changes nothing."""

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge.errors import Unreadable
from edge.pixels.decode import Limits, decode_file
from edge.pixels.square import aspect, squared
from export.phantom import phantom
from tests.support.dicom_files import dicom

WHOLE = Image.fromarray(phantom(3, width=300, height=240))
SPACINGS = ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"]


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize(("size", "said"), [((300, 120), (2, 1)), ((150, 240), (1, 2)), ((300, 240), (1, 1))])
def test_a_squashed_film_is_put_right(tmp_path, name, size, said):
    stored = np.asarray(WHOLE.resize(size, Image.Resampling.BOX))
    image = decode_file(dicom(tmp_path / "film", stored, **{name: list(said)})).image
    assert image.size == WHOLE.size
    assert np.abs(np.asarray(image, int) - np.asarray(WHOLE, int)).mean() < 3


def test_the_distance_counts_before_the_ratio(tmp_path):
    film = dicom(tmp_path / "film", np.asarray(WHOLE), PixelSpacing=[0.14, 0.14], PixelAspectRatio=[1, 2])
    assert decode_file(film).image.size == WHOLE.size


@pytest.mark.parametrize("said", [[0, 1], [-1, 2], [1], [1, 2, 3], [], [0.1399, 0.14]])
def test_what_makes_no_sense_changes_nothing(tmp_path, said):
    film = dicom(tmp_path / "film", np.asarray(WHOLE), PixelSpacing=said)
    assert np.array_equal(np.asarray(decode_file(film).image), np.asarray(WHOLE))


def test_a_ratio_that_no_film_has_is_damage_and_a_large_one_is_bounded(tmp_path):
    with pytest.raises(Unreadable, match="damaged"):
        decode_file(dicom(tmp_path / "long", np.asarray(WHOLE), PixelAspectRatio=[1, 1000]))
    with pytest.raises(Unreadable, match="too_large"):
        decode_file(dicom(tmp_path / "large", np.asarray(WHOLE), PixelAspectRatio=[1, 3]), Limits(max_pixels=100_000))


@given(st.lists(st.floats(0.0001, 1e4), min_size=2, max_size=2))
def test_no_picture_gets_more_pixels_than_allowed(said):
    data = pydicom.Dataset()
    data.PixelSpacing = [f"{value:.6g}" for value in said]
    try:
        image = squared(WHOLE, data, 4 * 300 * 240)
    except Unreadable:
        assert not 0.25 <= aspect(data) <= 4
        return
    assert min(image.size[0] / 300, image.size[1] / 240) == 1
    assert abs(image.size[1] / 240 / (image.size[0] / 300) / aspect(data) - 1) < 0.015
