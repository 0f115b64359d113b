"""The shipped bundle on a labelled folder, and the quick report of phantoms."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge.network.bundle import SHIPPED, load_bundle
from export import controls
from export.cli import main
from export.compress.rows import Table
from export.dataset import read_dataset
from export.errors import ReportError
from export.history import Epoch
from export.predictions import read_predictions
from export.report import page
from export.report.bench import SETS, shipped_split
from export.report.external import behind_gate, conditions, look, read_all_labels, score_bundle
from export.report.inputs import read_part
from export.report.quick import quick_report
from export.report.stages.shipped import children, no_chests, pick, shipped
from export.splits import patient_folds


@pytest.fixture(autouse=True, scope="module")
def _no_charts():
    """Drawing is most of the time, and the charts are tested with the page."""
    before, page.charts = page.charts, lambda *_: iter(())
    yield
    page.charts = before


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_controls_leave_what_they_say():
    white = np.full((1, 192, 192), 255, np.uint8)
    assert np.mean(controls.centre_out(white) == 0) == pytest.approx(0.61, abs=0.005)
    assert np.mean(controls.border_only(white) == 255) == pytest.approx(1 - (1 - 2 / 16) ** 2, abs=0.01)
    lungs = np.zeros((1, 192, 192), bool)
    lungs[0, 50:90, 40:80] = True
    assert np.array_equal(controls.lungs_out(white, lungs) == 0, lungs)
    flat = controls.shape_only([(300, 200), (500, 900)], 192)
    assert np.array_equal(flat[0], flat[1])


def test_all_labels_of_a_folder_are_scored_and_strangers_kept(data):
    samples = read_all_labels(data / "ieee8023")
    assert {sample.label for sample in samples} == {"covid19", "pneumonia", "normal", "other"}
    seen = look(samples, 192)
    bundle = load_bundle()
    found = {one.condition: one for one in score_bundle(bundle, seen, protocol="external")}
    assert set(found) == {"whole", "lungs_out", "centre_out", "border_only", "shape_only"}
    whole = found["whole"]
    assert whole.logits[3] == pytest.approx(bundle.classifier.run(seen.pixels[3]).logits.tolist())
    assert (whole.truth() == -1).sum() == sum(sample.label == "other" for sample in samples)
    assert set(whole.threshold) == {bundle.manifest.threshold}


def test_masks_bring_the_control_without_lungs(data):
    seen = look(read_all_labels(data / "kermany")[:3], 192)
    samples, pixels = conditions(seen)["lungs_out"]
    assert len(samples) == 3
    assert (pixels == 0).mean() > (seen.pixels == 0).mean()


def test_an_external_folder_is_reported_apart(data, tmp_path):
    made = run("evaluate", "--out", tmp_path / "alone", "--external", data / "ieee8023")
    assert made.exit_code == 0, made.output
    text = (tmp_path / "alone/report.html").read_text()
    assert "nothing was tuned on it" in text
    assert "Research and teaching aid" in text
    numbers = json.loads((tmp_path / "alone/figures.json").read_text())
    (row,) = numbers["figures"]["elsewhere"]
    assert row["dataset"] == "ieee8023"
    assert row["strangers"] == row["labels"]["other"] > 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--external", "nowhere"], "There is no folder nowhere."),
        (["--external", "{data}", "--bundle", "nowhere"], "There is no model at nowhere"),
        ([], "nothing to report on"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(data, tmp_path, arguments, part):
    given = [argument.format(data=data / "darkcovid") for argument in arguments]
    result = run("evaluate", "--out", tmp_path / "out", *given)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert part in sentence


def test_what_the_gate_of_a_bundle_refuses_is_no_longer_scored(data):
    bundle, upright = load_bundle(), look(read_all_labels(data / "darkcovid")[:4], 192)
    turned = replace(upright, pixels=np.concatenate([upright.pixels[:2], upright.pixels[2:, ::-1, ::-1]]), refused={"colour": 1})
    found = behind_gate(bundle, turned)
    assert [sample.path for sample in found.samples] == [sample.path for sample in upright.samples[:2]]
    assert len(found.pixels) == len(found.sizes) == 2
    assert found.refused == {"colour": 1, "upside_down": 2}
    assert behind_gate(replace(bundle, gate=None), turned) is turned


def test_labels_that_a_bundle_has_no_word_for_are_refused(data, tmp_path):
    shutil.copytree(data / "kermany", tmp_path / "odd")
    manifest = tmp_path / "odd/manifest.csv"
    with manifest.open() as file:
        rows = list(csv.DictReader(file))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": "tuberculosis"} for row in rows)
    result = run("evaluate", "--out", tmp_path / "out", "--external", tmp_path / "odd")
    assert result.exit_code == 2
    assert "are labelled tuberculosis" in result.stderr


def fitting_bundle(data, folder):
    """Copy the shipped bundle as if it had been made from these phantoms."""
    shutil.copytree(SHIPPED, folder)
    samples = [sample for name in SETS for sample in read_dataset(data, name)]
    test = patient_folds(samples, folds=5, seed=7)[4].test
    report = json.loads((folder / "report.json").read_text())
    report["shipped"]["test"]["accuracy"] |= {"pictures": len(test), "patients": len({samples[i].patient for i in test})}
    (folder / "report.json").write_text(json.dumps(report))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parts"]["report.json"] = hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return samples, test


def test_only_pictures_that_the_bundle_has_not_seen_are_used(data, tmp_path):
    samples, test = fitting_bundle(data, tmp_path / "bundle")
    said = []
    found = quick_report(
        data,
        tmp_path / "out",
        bundle=tmp_path / "bundle",
        say=said.append,
        stages=(shipped, children, no_chests),
    )
    whole = read_predictions(tmp_path / "out/predictions.json")[0]
    assert [picture.file for picture in whole.pictures] == [samples[i].path for i in test]
    assert found.main.score.pictures == len(test)
    learned = {samples[i].patient for i in range(len(samples)) if i not in set(test.tolist())}
    assert not learned & set(whole.patients())
    # Pictures of other diseases have taught the network something: none of them may be scored.
    assert all(
        "other" not in {picture.label for picture in one.pictures} for one in read_predictions(tmp_path / "out/predictions.json")
    )
    text = (tmp_path / "out/report.html").read_text()
    assert "None of these is in any figure." in text
    assert "class activation map" in text
    again = run(
        "evaluate", tmp_path / "out/predictions.json", "--out", tmp_path / "again", "--card", tmp_path / "out/card.json",
        "--samples", tmp_path / "out/samples.json",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    first, second = (json.loads((tmp_path / name / "figures.json").read_text())["figures"] for name in ("out", "again"))
    assert first == second


def test_a_bundle_of_other_data_is_not_reported_on(data):
    samples = [sample for name in SETS for sample in read_dataset(data, name)]
    with pytest.raises(ReportError, match="It is not known which of these it has seen"):
        shipped_split(SHIPPED, samples)


def test_a_bundle_without_a_report_is_not_reported_on(data, tmp_path):
    with pytest.raises(ReportError, match="does not say which pictures"):
        shipped_split(tmp_path, [])


def test_samples_are_of_each_outcome(data):
    part = score_bundle(load_bundle(), look(read_all_labels(data / "darkcovid"), 192), protocol="x")[0]
    sure = msgspec.structs.replace(part, answered=[True] * len(part.pictures))
    right = part.scores().argmax(axis=1) == part.truth()
    chosen = pick(sure, 3)
    assert [bool(right[place]) for place in chosen] == [True] * 3 + [False] * 3
    assert chosen == pick(sure, 3)
    assert len(pick(msgspec.structs.replace(part, answered=[False] * len(part.pictures)), 3)) == 3
    by_threshold = msgspec.structs.replace(part, answered=[], threshold=[0.0] * len(part.pictures))
    assert pick(by_threshold, 3) == chosen


@pytest.mark.soak
def test_the_stages_that_train(data, tmp_path, monkeypatch):
    from export.report.stages import linear, trained

    fitting_bundle(data, tmp_path / "bundle")
    monkeypatch.setattr(trained, "OURS_EPOCHS", 1)
    monkeypatch.setattr(trained, "P3_EPOCHS", 1)
    stages = (shipped, linear.linear_model, trained.ours_briefly, trained.p3_briefly)
    found = quick_report(data, tmp_path / "out", bundle=tmp_path / "bundle", say=lambda line: None, stages=stages)
    assert [row.network for row in found.networks] == [
        f"chest {load_bundle().manifest.version}",
        linear.LINEAR,
        trained.OURS,
        trained.P3,
    ]
    assert len(found.agreements) == 1
    assert len(found.inflated) == 1
    samples = json.loads((tmp_path / "out/samples.json").read_text())
    assert all(len(sample["heat"]) == 3 for sample in samples)
    table = read_part(tmp_path / f"out/compression {trained.OURS}.json", Table, "it")
    assert [row.precision for row in table.rows] == ["float32", "int8"]
    assert len(read_part(tmp_path / "out/history p3.json", list[Epoch], "it")) == 1
