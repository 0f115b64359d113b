"""`cxr-export train`, `crossval` and `choose` from end to end on drawn pictures, and what they refuse before any training."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from export import crossval
from export.cli import main
from export.crossval import SCORES, SPLITS, PlanScores
from export.dataset import read_dataset
from export.history import Epoch
from export.legacy_keras import keras
from export.near_duplicates import Pair
from export.networks import borrowed
from export.networks.catalog import CATALOG, find
from export.outcome import INT8, RESULT, WEIGHTS, Result, learned_ratio
from export.predictions import read_predictions
from export.protocols import RecordedPlan, make_plan, read_plan
from export.training import Trained
from tests.support.tiny_training import PLAIN, TINY, make

CLASSES = ["normal", "pneumonia", "covid19"]
TABLE = {"classes": CLASSES, "side": 32, "epochs": 2, "batch": 8, "optimizer": "adam", "rate": 0.01}


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch):
    monkeypatch.setattr("export.networks.catalog.CATALOG", (*CATALOG, TINY, PLAIN))


def write_recipe(folder, network, **changes):
    path = folder / f"{network}.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in {"network": network, **TABLE, **changes}.items()))
    return path


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, "tiny")


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(monkeypatch, *arguments):
    for module in ("train_one", "crossval"):
        monkeypatch.setattr(f"export.{module}.train_network", lambda *_, **__: pytest.fail("training began"))
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (sentence,) = result.stderr.splitlines()
    return sentence.removeprefix("cxr-export: ")


def test_train_leaves_all_that_it_promises(data, recipe, tmp_path):
    out = tmp_path / "out"
    command = ("train", recipe, "--data", data, "--out", out, "--set", "darkcovid", "--set", "ieee8023")
    said = run(*command)
    assert "tiny: 54 pictures to learn from, 14 of other patients held out" in said
    assert said.count("\nepoch ") == 2
    assert "held-out pictures as float does" in said
    history = msgspec.json.decode((out / "history.json").read_bytes(), type=list[Epoch])
    assert [row.epoch for row in history] == [1, 2]
    with Image.open(out / "curves.png") as picture:
        assert picture.width > 1000
    result = msgspec.json.decode((out / RESULT).read_bytes(), type=Result)
    assert result.int8_bytes == (out / INT8).stat().st_size
    assert f"decides {result.agreed} of 14 held-out pictures as float does" in said
    assert float(re.search(r"logits differ by ([0-9.]+)% of their range", said)[1]) < 10
    loaded = make(3, {}, 32)
    loaded.load_weights(out / WEIGHTS)
    # No decoded picture of a patient stays, nor a checkpoint.
    assert {path.name for path in out.iterdir()} == {"begun.json", "curves.png", "history.json", INT8, RESULT, WEIGHTS}
    assert "is finished: nothing to do" in run(
        "train", recipe, "--data", data, "--out", out, "--set", "darkcovid", "--set", "ieee8023"
    )


def test_five_folds_by_patient_of_which_the_finished_ones_are_kept(data, recipe, tmp_path, monkeypatch):
    out, trained = tmp_path / "out", []

    def untrained(recipe, network, pictures, train, validation, folder, **_):
        trained.append(folder.name)
        keras.utils.set_random_seed(int(folder.name[-1]))
        row = Epoch(epoch=1, frozen=False, rate=1, loss=1, accuracy=1, val_loss=1, val_accuracy=1, seconds=0)
        return Trained(make(3, {}, 32), [row], [])

    monkeypatch.setattr(crossval, "train_network", untrained)
    monkeypatch.setattr("export.outcome.draw_curves", lambda *_: None)
    arguments = ("crossval", recipe, "--data", data, "--out", out, "--epochs", 1, "--no-int8")
    assert "tiny, fivefold; epochs 1 instead of 2, float32, by patient\n" in run(*arguments)
    found = read_predictions(out / "predictions.json")
    assert [(part.grouped, part.precision, len(part.pictures)) for part in found] == [(True, "float32", 50)]
    assert found[0].protocol == "fivefold; epochs 1 instead of 2"
    labels = {f"images/{sample.file.name}": sample.label for sample in read_dataset(data, "darkcovid")}
    assert {picture.file: picture.label for picture in found[0].pictures} == labels
    assert sorted(set(found[0].fold)) == [0, 1, 2, 3, 4]
    (scores,) = msgspec.json.decode((out / SCORES).read_bytes(), type=list[PlanScores])
    assert [row.name for row in scores.rows] == [*(f"fold-{i}" for i in range(1, 6)), "all"]
    tables = np.array([row.confusion for row in scores.rows])
    assert tables[:-1].sum(axis=0).tolist() == tables[-1].tolist()
    right = found[0].scores().argmax(axis=1) == found[0].truth()
    assert scores.accuracy["value"] == pytest.approx(right.mean())

    (out / "by-patient/fold-3/predictions.json").unlink()
    trained.clear()
    assert run(*arguments).count("finished before") == 4
    assert trained == ["fold-3"]
    assert read_predictions(out / "predictions.json") == found


def test_the_inflated_split_stands_beside_and_folds_can_be_used_again(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("export.crossval.near_duplicates", lambda _: [Pair(0, other, 0.95) for other in range(1, 50)])
    out, other = tmp_path / "out", tmp_path / "other"
    arguments = ("crossval", recipe, "--data", data, "--out", out, "--epochs", 1, "--protocol", "holdout")
    said = run(*arguments, "--also-ungrouped")
    assert "tiny, holdout; epochs 1 instead of 2, int8, by patient\n" in said
    assert "by picture, INFLATED:" in said
    assert said.count("\ninflated accuracy") == 2
    found = read_predictions(out / "predictions.json")
    kinds = [(True, "float32"), (True, "int8"), (False, "float32"), (False, "int8")]
    assert [(part.grouped, part.precision) for part in found] == kinds
    assert np.abs(found[0].scores() - found[1].scores()).max() < 0.1 * np.ptp(found[0].scores())
    scores = msgspec.json.decode((out / SCORES).read_bytes(), type=list[PlanScores])
    assert [plan.shared > 0.3 for plan in scores] == [False, False, True, True]
    assert (scores[0].shared, scores[0].positive) == (0, "covid19")

    page = tmp_path / "page"
    run("evaluate", out / "predictions.json", "--out", page, "--history", out / "by-patient/holdout/history.json")
    assert "Learning curves: holdout" in (page / "report.html").read_text()
    assert len(json.loads((page / "figures.json").read_text())["histories"]["holdout"]) == 1

    splits = out / "by-patient" / SPLITS
    parts = read_plan(splits).splits[0]
    mine = next(part for part in (parts.train, parts.validation, parts.test) if "darkcovid/images/000.png" in part)
    assert len(scores[0].near_duplicates) == 50 - len(mine)
    assert f"by-patient: {50 - len(mine)} pairs of pictures look like one exposure" in said
    again = ("--epochs", 1, "--no-int8", "--splits", splits)
    run("crossval", write_recipe(tmp_path, "plain"), "--data", data, "--out", other, *again)
    assert (other / "by-patient" / SPLITS).read_bytes() == splits.read_bytes()
    theirs = read_predictions(other / "predictions.json")[0]
    assert theirs.pictures == found[0].pictures
    assert theirs.logits != found[0].logits

    assert "was begun with other splits (holdout)" in refused(monkeypatch, *arguments, "--protocol", "fivefold")
    assert "with other pictures" in refused(monkeypatch, *arguments, "--set", "kermany", "--set", "darkcovid")
    assert "holds something else than a training" in refused(monkeypatch, "train", recipe, "--data", data, "--out", tmp_path)
    write_recipe(tmp_path, "tiny", rate=0.5)
    assert "was begun with another recipe (rate differs)" in refused(monkeypatch, *arguments)


def test_the_choice_never_opens_the_test_part(data, recipe, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    samples = read_dataset(tmp_path / "data", "darkcovid", CLASSES)
    (held_back,) = make_plan(samples, CLASSES, "holdout", grouped=True, seed=7, validation=0.2).splits
    for index in held_back.split.test:
        samples[index].file.write_bytes(b"this is no picture %d" % index)
    out = tmp_path / "out"
    said = run("choose", recipe, write_recipe(tmp_path, "plain"), "--data", tmp_path / "data", "--out", out)
    first, second = msgspec.json.decode((out / "choice.json").read_bytes(), type=list[Result])
    assert (first.val_accuracy, -first.val_loss) >= (second.val_accuracy, -second.val_loss)
    assert {first.network, second.network} == {"tiny", "plain"}
    assert f"{first.network} " in next(line for line in said.splitlines() if line.endswith("<- chosen"))
    recorded = msgspec.json.decode((out / SPLITS).read_bytes(), type=RecordedPlan)
    assert len(recorded.splits[0].test) == len(held_back.split.test) > 5


def test_the_learned_ratio_of_the_fusion_is_told():
    image = borrowed.picture(8)
    maps = borrowed.layers.GlobalAveragePooling2D()(image)
    layer = borrowed.LearnedRatio()
    model = borrowed.keras.Model(image, layer([maps, maps]))
    layer.logit.assign(1.0)
    assert learned_ratio(model, find("p4-fusion")) == pytest.approx({"ResNet101": 0.7311, "ResNet152": 0.2689}, abs=1e-4)
    assert learned_ratio(make(3, {}, 32), TINY) == {}


def test_what_is_refused_before_training(data, recipe, tmp_path, monkeypatch):
    def train(which, *more):
        return refused(monkeypatch, "train", which, "--data", data, "--out", tmp_path / "out", *more)

    assert train("p33") == "There is no recipe 'p33', and no such file; the nearest name is p3."
    assert "There is no network 'huge'" in train(write_recipe(tmp_path, "huge"))
    assert "no picture of lung_opacity" in train("p4-covidnet")
    assert "has no backbone VGG19" in train(recipe, "--weights", "VGG19=x.h5")
    assert "There is no file of weights at /nowhere.h5" in train(recipe, "--weights", "Tiny=/nowhere.h5")
    assert "has pictures of 10 patients; 10 folds by patient need at least 11" in refused(
        monkeypatch, "crossval", recipe, "--data", data, "--out", tmp_path / "out", "--protocol", "tenfold"
    )
    shutil.copytree(data, tmp_path / "data")
    manifest = tmp_path / "data/darkcovid/manifest.csv"
    lines = [line.split(",") for line in manifest.read_text().splitlines()]
    manifest.write_text(
        "\n".join(",".join([*row[:2], row[2] if number == 0 else "p", *row[3:]]) for number, row in enumerate(lines))
    )
    assert "of one patient" in refused(monkeypatch, "train", recipe, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_shape_end_before_the_first_step(data, tmp_path, monkeypatch):
    make(3, {}, 32).save_weights(tmp_path / "tiny.h5")
    monkeypatch.setattr("export.training._compile", lambda *_: pytest.fail("training began"))
    small = ("--side", 64, "--pictures", 30, "--weights", f"MobileNetV2={tmp_path / 'tiny.h5'}")
    result = CliRunner().invoke(
        main, ["train", "mobilenet-v2-0.35", "--data", str(data), "--out", str(tmp_path / "o"), *map(str, small)]
    )
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert "tiny.h5 does not hold weights of MobileNetV2 without its top" in sentence
