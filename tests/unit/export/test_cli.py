"""What a person sees of `cxr-export` when something is wrong: one sentence, exit status 2, no traceback."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from click.testing import CliRunner

from edge.network.manifest import SHIPPED
from export.cli import main


def said(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (sentence,) = result.stderr.splitlines()
    return sentence


def test_data_that_is_not_there(tmp_path):
    sentence = said("chest", "--data", tmp_path, "--out", tmp_path / "out")
    assert sentence.startswith("cxr-export: ")
    assert "Each data set is a folder with a manifest.csv" in sentence
    assert not (tmp_path / "out").exists()


def test_a_class_of_too_few_patients_ends_before_any_training(data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "data")
    for name in ("darkcovid", "ieee8023"):
        manifest = tmp_path / "data" / name / "manifest.csv"
        head, *rows = manifest.read_text().splitlines()
        kept = [row for row in rows if ",covid19," not in row] + [row for row in rows if ",covid19," in row][:1]
        manifest.write_text("\n".join([head, *kept]) + "\n")
    monkeypatch.setattr("export.material.eyes", lambda *_: pytest.fail("work began"))
    sentence = said("chest", "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "The class covid19 has pictures of 2 patients" in sentence


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot be read"),
        (b"{", "is damaged"),
        (json.dumps({"classes": ["normal", "tuberculosis"]}).encode(), "with the classes ['normal', 'tuberculosis']"),
    ],
)
def test_a_bundle_whose_report_is_none(tmp_path, content, part):
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    (tmp_path / "bundle/report.json").unlink()
    if content is not None:
        (tmp_path / "bundle/report.json").write_bytes(content)
    card = (tmp_path / "bundle/MODEL_CARD.md").read_bytes()
    assert part in said("pages", "--bundle", tmp_path / "bundle", "--page", tmp_path / "page.md")
    assert (tmp_path / "bundle/MODEL_CARD.md").read_bytes() == card


def test_a_network_is_tried_on_labelled_pictures(data):
    arguments = ["try", "p3", "--data", str(data), "--pictures", "9", "--steps", "2", "--side", "96"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    trial = json.loads(result.stdout)
    assert trial["name"] == "p3"
    assert trial["steps"] == 2
    assert trial["pictures"] == 9


def test_weights_for_what_no_network_has_are_refused(data):
    assert "None of the chosen networks has a backbone VGG19" in said("try", "p3", "--data", data, "--weights", "VGG19=x.h5")
    assert "There is no network 'p9'" in said("try", "p9", "--data", data)


def test_a_machine_without_the_export_extra_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "export.chest", None)
    sentence = said("chest", "--data", tmp_path, "--out", tmp_path / "out")
    assert "export.chest is not installed. Run: pip install 'cxr-edge[export]'" in sentence
