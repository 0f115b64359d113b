import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge.pixels.preprocess import INPUT_SIDE, centre_square, preprocess
from tests.golden import generate

sides = st.integers(1, 400)


@pytest.mark.parametrize("name", generate.FRAMES)
def test_golden_frames_give_golden_inputs_to_the_bit(name):
    frame = generate.PIXELS / f"{name}-frame.png"
    golden = np.asarray(Image.open(generate.input_file(frame)))
    assert np.array_equal(generate.input_of(frame), golden)


@given(sides, sides, st.integers(0, 255))
@settings(max_examples=50)
def test_the_shape_of_a_picture_does_not_reach_the_network(width, height, value):
    """The control that sees only the shape is at chance: every shape gives the very same input."""
    assert not preprocess(np.full((height, width), value, np.uint8)).any()


@given(sides, sides)
def test_the_crop_is_the_largest_centred_square(height, width):
    left, upper, right, lower = centre_square(height, width)
    assert right - left == lower - upper == min(height, width)
    assert abs((left + right) - width) <= 1
    assert abs((upper + lower) - height) <= 1
    assert 0 <= left <= right <= width
    assert 0 <= upper <= lower <= height


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(-60, 60))
@settings(max_examples=30)
def test_brightness_and_contrast_of_the_export_hardly_matter(seed, low, shift):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, low + 80, (12, 12), dtype=np.uint8)
    frame = np.kron(coarse, np.ones((32, 32), np.uint8))
    shifted = np.clip(frame.astype(int) + shift, 0, 255).astype(np.uint8)
    if shifted.min() > 0 and shifted.max() < 255:
        assert np.array_equal(preprocess(frame), preprocess(shifted))


@given(st.integers(0, 2**32 - 1), sides, sides)
@settings(max_examples=30)
def test_every_frame_gives_one_input_of_fixed_size_and_does_not_change(seed, width, height):
    frame = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    before = frame.copy()
    picture = preprocess(frame)
    assert picture.shape == (INPUT_SIDE, INPUT_SIDE)
    assert picture.dtype == np.uint8
    assert np.array_equal(frame, before)
    assert np.array_equal(preprocess(np.asfortranarray(frame)), picture)


@pytest.mark.parametrize("frame", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16), np.zeros((0, 5), np.uint8)])
def test_what_is_no_frame_is_a_programming_error(frame):
    with pytest.raises(ValueError, match="two-dimensional uint8"):
        preprocess(frame)
