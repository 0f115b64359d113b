from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from export.cli import main
from export.dataset import Sample, read_manifest
from export.errors import DataError
from export.manifest_file import write_manifest
from export.requirements import require_bundle_classes, require_trainable


@pytest.fixture
def folder(data, tmp_path):
    """A copy of one set that a test may spoil: 12 pictures of 12 patients."""
    shutil.copytree(data / "kermany", tmp_path / "kermany")
    return tmp_path / "kermany"


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_what_is_in_a_folder(folder):
    images = folder / "images"
    Image.open(images / "003.png").save(images / "copy.jpg", quality=60)
    with (folder / "manifest.csv").open("a") as file:
        file.write("images/copy.jpg,pneumonia,k99,kermany,\n")
    said = run(folder)
    assert said.exit_code == 0
    assert "manifest: a folder with a manifest.csv" in said.output
    assert "pneumonia             7 pictures       7 codes" in said.output
    assert "images/003.png and images/copy.jpg (1.00)" in said.output.split("near duplicates of two patients: ")[1]
    found = json.loads(run(folder, "--json").output)
    assert (found["pictures"], found["patients"], found["patients_known"], found["lung_masks"]) == (13, 13, 13, 12)
    assert found["labels"] == {"pneumonia": 7, "normal": 6}


def test_the_digest_tells_whether_a_set_is_the_same(folder):
    digest = json.loads(run(folder, "--json").output)["sha256"]
    assert run(folder, "--expect", digest).exit_code == 0
    shutil.copy(folder / "images/001.png", folder / "images/000.png")
    said = run(folder, "--expect", digest)
    assert said.exit_code == 2
    assert f"not {digest}. It is another release, or files were changed." in said.output
    assert json.loads(run(folder, "--json").output)["identical"] == 1


def test_bad_input_gives_one_sentence(folder):
    whole = (folder / "images/002.png").read_bytes()
    (folder / "images/002.png").write_bytes(whole[:500])
    said = run(folder)
    assert said.exit_code == 2
    assert "unreadable  1: kermany/002.png" in said.output
    assert "cxr-export: 1 files cannot be read, such as kermany/002.png" in said.output
    (folder / "images/002.png").unlink()
    said = run(folder)
    assert said.exit_code == 2
    assert "cxr-export: 1 files are not there, such as images/002.png. Copy the set whole." in said.output
    assert run(folder / "images").exit_code == 2
    assert run(folder, "--label", "covid").exit_code == 2


def test_one_patient_is_not_enough(folder):
    lines = (folder / "manifest.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    (folder / "manifest.csv").write_text("\n".join([lines[0], *(",".join([r[0], r[1], "k1", *r[3:]]) for r in rows)]))
    said = run(folder)
    assert said.exit_code == 2
    assert "cxr-export: All 12 pictures are of one patient." in said.output


def test_class_folders_become_a_manifest(folder, tmp_path):
    for name, numbers in (("Normal", "024"), ("strange", "135")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(folder / f"images/00{number}.png", tmp_path / "set" / name)
    said = run(
        tmp_path / "set", "--label", "strange=covid19", "--layout", "class-folders", "--manifest", tmp_path / "set/manifest.csv"
    )
    assert said.exit_code == 0
    assert "6 codes, 0 of them persons" in said.output
    samples = read_manifest(tmp_path / "set/manifest.csv")
    assert [sample.label for sample in samples] == ["normal"] * 3 + ["covid19"] * 3
    assert all(sample.file.is_file() and not sample.patient_known for sample in samples)


def test_a_manifest_says_what_the_samples_say(tmp_path):
    full = Sample(
        file=tmp_path / "a.png",
        label="normal",
        patient="p, 1",
        source="s",
        dataset=tmp_path.name,
        lung_mask=Path("/elsewhere/mask.png"),
        age=57.5,
        sex="F",
        view="AP SUPINE",
        finding='said "so"',
        group="adult",
        patient_known=False,
    )
    bare = Sample(file=tmp_path / "sub/b.png", label="covid19", patient="q", source="s", dataset=tmp_path.name)
    write_manifest(tmp_path / "manifest.csv", [full, bare])
    assert read_manifest(tmp_path / "manifest.csv") == [full, bare]


def people(*pairs):
    return [Sample(file=Path(f"{n}"), label=label, patient=who, source="s", dataset="d") for n, (label, who) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (people(("normal", "a"), ("normal", "b")), "There is no picture of covid19 among 2"),
        (people(("normal", "a"), ("covid19", "a")), "All 2 pictures are of one patient"),
        (people(("normal", "a"), ("normal", "b"), ("covid19", "c")), "The class covid19 has pictures of 1 patient"),
        ([], "There is no picture of normal and none of covid19 among 0"),
    ],
)
def test_what_cannot_be_trained_on(samples, sentence):
    with pytest.raises(DataError, match=sentence):
        require_trainable(samples, ("normal", "covid19"))


def test_what_can_be_trained_on():
    four = people(("normal", "a"), ("normal", "b"), ("covid19", "c"), ("covid19", "d"), ("other", "e"))
    require_trainable(four, ("normal", "covid19"))
    with pytest.raises(DataError, match="2 folds by patient need at least 3"):
        require_trainable(four, ("normal", "covid19"), folds=2)


def test_classes_that_a_bundle_does_not_have():
    require_bundle_classes(["normal", "covid19"], ["normal", "pneumonia", "covid19"])
    with pytest.raises(DataError, match="The data has the class lung_opacity, other, and the bundle knows normal, covid19"):
        require_bundle_classes(["normal", "lung_opacity", "other", "other"], ["normal", "covid19"])
