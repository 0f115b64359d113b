from __future__ import annotations

import shutil

import numpy as np
import pytest

from edge.decode import decode_file
from edge.preprocess import INPUT_SIDE, preprocess_image
from export.dataset import load_lungs, load_pixels, patients, read_dataset, targets


def test_labels_outside_the_classes_are_left_out(data):
    samples = read_dataset(data, "ieee8023")
    assert len(samples) == 18
    assert {sample.label for sample in samples} == {"normal", "pneumonia", "covid19"}
    assert list(targets(samples)[:3]) == [2, 1, 0]
    assert list(patients(samples)[:3]) == ["c5", "c6", "c7"]


def test_of_byte_identical_files_one_is_kept(data, tmp_path):
    shutil.copytree(data / "kermany", tmp_path / "kermany")
    images = tmp_path / "kermany" / "images"
    shutil.copy(images / "000.png", images / "004.png")
    kept = [sample.file.name for sample in read_dataset(tmp_path, "kermany")]
    assert kept == [f"{i:03}.png" for i in range(12) if i != 4]


def test_pixels_are_what_the_device_would_see(data):
    samples = read_dataset(data, "darkcovid")[:2]
    pixels = load_pixels(samples)
    assert pixels.shape == (2, INPUT_SIDE, INPUT_SIDE)
    assert np.array_equal(pixels[1], preprocess_image(decode_file(samples[1].file).image))


def test_lungs_need_a_mask(data):
    assert load_lungs(read_dataset(data, "kermany")[:1]).dtype == np.bool_
    with pytest.raises(ValueError, match="no lung mask"):
        load_lungs(read_dataset(data, "darkcovid")[:1])
