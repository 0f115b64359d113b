from __future__ import annotations

import shutil

import numpy as np
import pytest

from edge.pixels.decode import decode_file
from edge.pixels.preprocess import INPUT_SIDE, preprocess_image
from export.dataset import class_of, facts, load_lungs, load_pixels, patients, read_dataset, require_classes, targets
from export.errors import DataError


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


@pytest.fixture
def spoilt(data, tmp_path):
    """A copy of one set that a test may spoil."""
    shutil.copytree(data / "darkcovid", tmp_path / "darkcovid")
    return tmp_path


def test_files_that_are_not_there_are_named(spoilt):
    for number in range(5):
        (spoilt / f"darkcovid/images/{number:03}.png").unlink()
    with pytest.raises(DataError, match=r"images/000.png, images/001.png, images/002.png and 2 more \(5 files\) that are not"):
        read_dataset(spoilt, "darkcovid")


def test_pictures_that_cannot_be_read_are_all_named(spoilt):
    (spoilt / "darkcovid/images/001.png").write_bytes(b"no picture")
    whole = (spoilt / "darkcovid/images/003.png").read_bytes()
    (spoilt / "darkcovid/images/003.png").write_bytes(whole[: len(whole) // 2])
    samples = read_dataset(spoilt, "darkcovid")
    with pytest.raises(DataError, match=r"001.png \(not_an_image\), darkcovid/003.png \(\w+\) \(2 files\) cannot be read"):
        load_pixels(samples)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"file,label,source\n", "lacks the column patient, lung_mask"),
        (b"", "lacks the column file, label, patient, source, lung_mask"),
        (b"\xff\xfe\x00", "is not a table of comma-separated UTF-8 text"),
        (None, "cannot be read"),
    ],
)
def test_a_manifest_that_is_none(spoilt, content, sentence):
    manifest = spoilt / "darkcovid/manifest.csv"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_dataset(spoilt, "darkcovid")


def test_a_class_without_a_picture_is_named(data):
    samples = [sample for sample in read_dataset(data, "darkcovid") if sample.label == "normal"]
    with pytest.raises(DataError, match="no picture of pneumonia and none of covid19 among 20"):
        require_classes(samples, ("normal", "pneumonia", "covid19"))
    require_classes(samples, ("normal",))


def test_lungs_need_a_mask(data):
    assert load_lungs(read_dataset(data, "kermany")[:1]).dtype == np.bool_
    with pytest.raises(ValueError, match="no lung mask"):
        load_lungs(read_dataset(data, "darkcovid")[:1])


def test_classes_are_a_choice(data):
    two = read_dataset(data, "ieee8023", ("normal", "covid19"))
    assert len(two) == 12
    assert list(targets(two, ("normal", "covid19"))) == [1, 0] * 6
    against = ("non_covid19", "covid19")
    rest = read_dataset(data, "ieee8023", against)
    assert len(rest) == 24
    assert list(targets(rest, against)) == [1, 0, 0, 0] * 6
    with pytest.raises(DataError, match="label non_covid19 is none of the classes normal, pneumonia, covid19"):
        targets(rest)


def test_which_class_takes_a_label():
    assert class_of("covid19", ("normal", "covid19")) == "covid19"
    assert class_of("other", ("normal", "covid19")) == ""
    assert class_of("other", ("covid19", "non_covid19")) == "non_covid19"
    assert class_of("", ("covid19", "non_covid19")) == ""


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"age": "57", "sex": "f", "view": "AP  Supine"}, (57.0, "F", "AP SUPINE", "adult")),
        ({"age": "child"}, (None, "", "", "child")),
        ({"age": "7.5", "sex": "Male"}, (7.5, "M", "", "child")),
        ({"age": "414", "sex": "?"}, (None, "", "", "")),
        ({"age": "nan"}, (None, "", "", "")),
    ],
)
def test_facts_that_make_no_sense_are_unknown(row, expected):
    found = facts(row)
    assert (found["age"], found["sex"], found["view"], found["group"]) == expected


def test_facts_come_from_the_columns_that_are_there(data, tmp_path):
    shutil.copytree(data / "kermany", tmp_path / "kermany")
    manifest = tmp_path / "kermany" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([f"{lines[0]},age,finding,patient_known", *(f"{line},child,virus,no" for line in lines[1:])]))
    sample = read_dataset(tmp_path, "kermany")[0]
    assert (sample.group, sample.finding, sample.age, sample.patient_known) == ("child", "virus", None, False)
    assert read_dataset(data, "kermany")[0].patient_known
