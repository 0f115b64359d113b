"""`cxr-export adapt` on drawn pictures: who goes where, what is fitted to whom, what is refused, and what the new bundle says."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edge.network.bundle import SHIPPED, load_bundle
from edge.pixels.network_input import INPUT_SIDE
from export import adapt as module
from export import adapt_data
from export.adapt import adapt
from export.adapt_card import PARENT_CARD, adapted_card, remarks_of, version_of
from export.adapt_data import FEWEST, read_hospital
from export.adapt_table import Answers, answers_of, as_json, compare, verdict
from export.cli import main
from export.errors import DataError
from export.phantom import phantom, random_opacities

CLASSES = ("normal", "pneumonia", "covid19")
_OPACITIES = {"normal": 0, "pneumonia": 3, "covid19": 8}
FEW = 4


def hospital(folder: Path, classes=CLASSES, people: int = 10, pictures: int = 1) -> Path:
    """Drawn pictures of so many patients a class, the first of whom has `pictures` more."""
    folder.mkdir(parents=True)
    rows = []
    for number, label in enumerate(classes):
        for person in range(people):
            for again in range(1 + pictures * (person == 0)):
                seed = number * 1000 + person * 10 + again
                name = f"{label}-{person}-{again}.png"
                side = INPUT_SIDE + 16
                opacity = random_opacities(seed, _OPACITIES[label])
                Image.fromarray(phantom(seed, width=side, height=side, opacity=opacity)).save(folder / name)
                rows.append([name, label, f"{label}{person}", "here", ""])
    write(folder, rows)
    return folder


def write(folder: Path, rows) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "patient", "source", "lung_mask"], *rows])


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return hospital(tmp_path_factory.mktemp("hospital") / "st-drawn")


@pytest.fixture(scope="module")
def made(pictures, tmp_path_factory):
    """The shipped bundle, recalibrated, and what was said."""
    out, said = tmp_path_factory.mktemp("made") / "bundle", []
    rows = adapt(SHIPPED, pictures, out, fewest=FEW, say=said.append)
    return out, said, rows


def test_the_device_accepts_the_bundle_and_the_graph_is_the_same(made):
    out, _, _ = made
    bundle, parent = load_bundle(out), load_bundle(SHIPPED)
    assert bundle.manifest.model_sha256 == parent.manifest.model_sha256
    assert bundle.manifest.version.startswith(f"{parent.manifest.version}+recalibrated.")
    assert bundle.manifest.metrics["adapted_from"]["model_sha256"] == parent.manifest.model_sha256
    assert bundle.manifest.threshold == bundle.manifest.candidate
    assert "st-drawn: recalibrated on" in bundle.manifest.trained_on[-1]
    assert (out / PARENT_CARD).read_bytes() == (SHIPPED / "MODEL_CARD.md").read_bytes()
    assert (bundle.typicality.mean == parent.typicality.mean).all()


def test_the_gate_goes_along_with_the_network_whose_traits_it_reads(made):
    out, _, _ = made
    bundle, parent = load_bundle(out), load_bundle(SHIPPED)
    assert bundle.gate.limit == parent.gate.limit
    assert (out / "gate.tflite").read_bytes() == (SHIPPED / "gate.tflite").read_bytes()
    assert (bundle.gate.weights == parent.gate.weights).all()
    assert bundle.manifest.minimum_age == parent.manifest.minimum_age
    assert json.loads((out / "report.json").read_text())["adapted"]["gate"] == "kept"


def test_no_patient_is_in_two_parts_and_every_picture_in_one(pictures):
    for mode in ("recalibrate", "fine-tune"):
        found = read_hospital(pictures, CLASSES, mode, side=32, fewest=1)
        people = [set(part.patients) for part in found.parts.values()]
        assert len(set.union(*people)) == sum(map(len, people)) == 30
        assert sum(len(part.samples) for part in found.parts.values()) == 33
        assert list(found.parts)[-2:] == ["calibration", "test"]
        assert ("training" in found.parts) == (mode == "fine-tune")


def test_what_is_usual_is_of_the_calibration_part(pictures, made):
    bundle = load_bundle(made[0])
    part = read_hospital(pictures, CLASSES, "recalibrate", side=INPUT_SIDE, fewest=FEW).parts["calibration"]
    distances = sorted(bundle.typicality.distance(bundle.classifier.run(picture).traits) for picture in part.pixels)
    assert list(bundle.typicality.distances) == pytest.approx(distances, abs=1e-3)


def test_nothing_is_fitted_to_the_test_part(pictures, made, tmp_path):
    """Other test pictures under the same labels: the device would decide in the same way."""
    folder = shutil.copytree(pictures, tmp_path / "st-drawn")
    test = read_hospital(pictures, CLASSES, "recalibrate", side=32, fewest=FEW).parts["test"]
    for number, sample in enumerate(test.samples):
        other = phantom(5000 + number, width=INPUT_SIDE + 16, height=INPUT_SIDE + 16)
        Image.fromarray(other).save(folder / sample.file.name)
    adapt(SHIPPED, folder, tmp_path / "out", fewest=FEW, say=lambda line: None)
    first, second = (load_bundle(path).manifest for path in (made[0], tmp_path / "out"))
    for name in ("temperature", "candidate", "threshold", "sensitivity", "known"):
        assert getattr(first, name) == getattr(second, name)
    assert first.metrics != second.metrics


def test_the_table_is_what_the_two_bundles_say_of_the_test_patients(pictures, made):
    out, said, rows = made
    part = read_hospital(pictures, CLASSES, "recalibrate", side=INPUT_SIDE, fewest=FEW).parts["test"]
    before, after = (
        answers_of([bundle.classifier.run(picture) for picture in part.pixels], bundle.answer, CLASSES)
        for bundle in (load_bundle(SHIPPED), load_bundle(out))
    )
    again = compare(before, after, part.labels, part.patients)
    assert as_json(again) == as_json(rows)
    report = json.loads((out / "report.json").read_text())
    assert report["adapted"]["test"] == as_json(rows)
    assert said[-2] == report["adapted"]["verdict"] == verdict(rows)
    right = np.array(CLASSES)[before.chances.argmax(axis=1)] == part.labels
    accuracy, answered = rows[0], next(row for row in rows if row.name == "share answered")
    assert accuracy.before.value == pytest.approx(right.mean())
    assert answered.after.value == pytest.approx(after.answered.mean())
    assert {"AUC, covid19 against the rest", "expected calibration error", "confident wrong, of all"} <= {row.name for row in rows}


def test_card_is_a_function_of_the_report_and_says_where_it_comes_from(made):
    out = made[0]
    report, card = json.loads((out / "report.json").read_text()), (out / "MODEL_CARD.md").read_text()
    assert card == adapted_card(report, "chest")
    parent = load_bundle(SHIPPED).manifest
    assert parent.model_sha256 in card
    assert report["adapted"]["parent"]["manifest_sha256"] in card
    assert report["adapted"]["verdict"] in card
    assert "calibration: 17 pictures of 15 patients" in card or "calibration: 16 pictures of 15 patients" in card
    assert "pictures of st-drawn" in (out / "LICENSE").read_text()
    result = CliRunner().invoke(main, ["pages", "--bundle", str(out), "--page", str(out / "page.md")])
    assert result.exit_code == 2
    assert "adapted bundle" in result.stderr


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(pictures, made, tmp_path):
    adapt(SHIPPED, pictures, tmp_path / "again", fewest=FEW, say=lambda line: None)
    assert contents(tmp_path / "again") == contents(made[0])
    adapt(SHIPPED, pictures, tmp_path / "other", fewest=FEW, seed=1, say=lambda line: None)
    assert load_bundle(tmp_path / "other").manifest.version != load_bundle(made[0]).manifest.version


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_class_without_pictures_has_to_be_named_and_keeps_no_threshold(tmp_path):
    folder = hospital(tmp_path / "two", CLASSES[:2])
    with pytest.raises(DataError, match=r"no picture of covid19.*say so: --without covid19"):
        read_hospital(folder, CLASSES, "recalibrate", side=32, fewest=FEW)
    adapt(SHIPPED, folder, tmp_path / "out", without=["covid19"], fewest=FEW, say=lambda line: None)
    bundle = load_bundle(tmp_path / "out")
    assert bundle.manifest.classes == list(CLASSES)
    assert set(bundle.manifest.sensitivity) == {"normal", "pneumonia"}
    assert "how well the network finds that here is not known" in (tmp_path / "out/MODEL_CARD.md").read_text()


def test_pictures_that_the_device_refuses_are_counted_and_left_out(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "st-drawn")
    blank = Image.fromarray(np.full((INPUT_SIDE, INPUT_SIDE), 90, np.uint8))
    blank.save(folder / rows_of(folder)[3][0])
    found = read_hospital(folder, CLASSES, "recalibrate", side=32, fewest=FEW)
    assert found.refused == {"blank": 1}
    assert sum(len(part.samples) for part in found.parts.values()) == 32


def spoilt(folder, what):
    rows = rows_of(folder)
    if what == "label":
        rows[0][1] = "tuberculosis"
    elif what == "empty":
        rows = [row for row in rows if row[1] != "covid19"]
    elif what == "one":
        rows = [[*row[:2], "one", *row[3:]] for row in rows]
    elif what == "missing":
        rows[0][0] = "nowhere.png"
    write(folder, rows)


@pytest.mark.parametrize(
    ("what", "options", "sentence"),
    [
        ("label", [], "has the class tuberculosis, and the bundle knows normal, pneumonia, covid19"),
        ("empty", [], "There is no picture of covid19"),
        ("one", [], "are of one patient"),
        ("missing", [], "names nowhere.png (1 files) that are not there"),
        (
            "nothing",
            [],
            f"which needs {FEWEST} (docs/adapt.md says why). Add patients: recalibrate takes about {2 * FEWEST} of each",
        ),
        ("nothing", ["--fine-tune"], f"fine-tune takes about {4 * FEWEST} of each class"),
        ("nothing", ["--without", "flu"], "--without names flu"),
        ("nothing", ["--without", "covid19"], "--without names covid19, and 11 pictures have that label"),
        ("nothing", ["--layout", "none-such"], "There is no layout none-such"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_before_any_work(pictures, tmp_path, monkeypatch, what, options, sentence):
    folder = shutil.copytree(pictures, tmp_path / "st-drawn")
    spoilt(folder, what)
    monkeypatch.setattr(adapt_data, "_look", lambda *_: pytest.fail("work began"))
    result = CliRunner().invoke(main, ["adapt", str(SHIPPED), str(folder), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert sentence in line
    assert not (tmp_path / "out").exists()


def test_corrupt_files_are_all_named(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "st-drawn")
    (folder / rows_of(folder)[0][0]).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"normal-0-0.png .* cannot be read"):
        read_hospital(folder, CLASSES, "recalibrate", side=32, fewest=FEW)


@pytest.mark.parametrize(("bundle", "out", "sentence"), [("nowhere", "new", "no model at"), ("", "full", "is not an empty folder")])
def test_folders_that_cannot_be_used(pictures, tmp_path, bundle, out, sentence):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    given = [str(tmp_path / bundle) if bundle else str(SHIPPED), str(pictures), "--out", str(tmp_path / out)]
    result = CliRunner().invoke(main, ["adapt", *given])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_run_that_is_stopped_leaves_no_bundle(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        adapt(SHIPPED, pictures, tmp_path / "out", fewest=FEW, say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_version_names_the_parent_the_way_and_the_inputs():
    first = version_of("0.2.0", "recalibrate", ("a", "b"))
    assert first.startswith("0.2.0+recalibrated.")
    assert first != version_of("0.2.0", "recalibrate", ("a", "c"))
    assert version_of(first, "fine-tune", ("a",)).startswith("0.2.0+fine-tuned.")
    assert len(version_of("9" * 40, "fine-tune", ("a",))) == 32


def answers(right: list[bool], sure: float, answered: bool = True) -> Answers:
    """Two classes; the truth is always the first."""
    chances = np.array([[sure, 1 - sure] if one else [1 - sure, sure] for one in right])
    return Answers(("a", "b"), chances, np.full(len(right), answered))


def test_better_worse_and_neither_are_said_plainly():
    people = np.arange(60).astype(str)
    truth = np.array(["a"] * 60)
    bad, good = answers([False] * 40 + [True] * 20, 0.9), answers([True] * 54 + [False] * 6, 0.9)
    assert "is better" in verdict(compare(bad, good, truth, people))
    assert "No figure is worse" in verdict(compare(bad, good, truth, people))
    assert "NOT BETTER: it is worse" in verdict(compare(good, bad, truth, people))
    assert "no figure differs by more than chance" in verdict(compare(good, good, truth, people))
    silent = compare(bad, answers([True] * 54 + [False] * 6, 0.9, answered=False), truth, people)
    assert "WORSE in: share answered" in verdict(silent)
    once = good.chances.copy()
    once[0] = once[0][::-1]
    assert "by more than chance" in verdict(compare(good, replace(good, chances=once), truth, people))


def test_the_difference_is_drawn_in_pairs():
    rng = np.random.default_rng(0)
    right = rng.random(80) < 0.6
    better = right | (rng.random(80) < 0.1)
    rows = compare(answers(list(right), 0.9), answers(list(better), 0.9), np.array(["a"] * 80), np.arange(80).astype(str))
    (accuracy,) = (row for row in rows if row.name.startswith("accuracy, had"))
    assert accuracy.difference.value == pytest.approx(better.mean() - right.mean())
    assert accuracy.difference.low >= 0  # no patient got worse, so no draw of patients can
    assert accuracy.before.low < accuracy.before.value < accuracy.before.high


def test_fewer_classes_than_the_parent_are_compared_by_name():
    before = Answers(("x", "a", "b"), np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]), np.ones(3, bool))
    after = Answers(("a", "b"), np.array([[0.7, 0.3], [0.8, 0.2], [0.4, 0.6]]), np.ones(3, bool))
    rows = {row.name: row for row in compare(before, after, np.array(["a", "a", "b"]), np.array(["1", "2", "3"]))}
    assert rows["accuracy, had it answered all"].before.value == pytest.approx(2 / 3)
    assert rows["accuracy, had it answered all"].after.value == 1
    assert not any("x" in name.split() for name in rows)


def test_remarks_are_of_what_the_pictures_cannot_show():
    facts = {
        "mode": "fine-tuned",
        "without": ["covid19"],
        "fitted": {"temperature": {"before": 1.0, "after": 10.0}},
        "data": {"refused": {"blank": 2}, "patients_known": False, "children": 3},
    }
    text = " ".join(remarks_of(facts))
    for part in (
        "refuses 2 pictures (blank)",
        "of one person may be in two parts",
        "3 pictures are of children",
        "unlearned unseen",
    ):
        assert part in text
    assert "No temperature fits" in text
    quiet = {
        "mode": "recalibrated",
        "without": [],
        "fitted": {"temperature": {"after": 1.0}},
        "data": {"refused": {}, "patients_known": True, "children": 0},
    }
    assert remarks_of(quiet) == []
