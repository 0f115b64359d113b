"""`cxr-export bundle`: a training becomes a bundle that the device's own code opens, or one sentence says why not."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from edge.network.bundle import load_bundle
from edge.pixels.preprocess import preprocess
from export.bundle_training import bundle_training, gray
from export.cli import main
from export.legacy_keras import keras
from export.model import UNFAMILIAR
from export.networks.catalog import CATALOG, Network
from export.phantom import phantom
from tests.support.tiny_training import TINY, make
from tests.unit.export.test_adapt import contents
from tests.unit.export.test_cli_training import run, write_recipe


def coloured(classes, weights, side):
    picture = keras.Input((side, side, 3))
    flow = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="first")(picture)
    return keras.Model(picture, keras.layers.Dense(classes, name="head")(keras.layers.GlobalAveragePooling2D()(flow)))


COLOURED = Network("coloured", "nobody", 192, 3, coloured, ())


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch):
    monkeypatch.setattr("export.networks.catalog.CATALOG", (*CATALOG, TINY, COLOURED))


def trained(network, data, folder, **changes):
    recipe = write_recipe(folder, network, **{"side": 192, "epochs": 1, **changes})
    run("train", recipe, "--data", data, "--out", folder / "trained")
    return folder / "trained"


def words(**changes):
    return {"name": "ours", "version": "1", "licence": "none", "fewest": 1, "say": lambda line: None, **changes}


@pytest.mark.parametrize("network", ["tiny", "coloured"])
def test_the_device_opens_what_a_training_became(network, data, tmp_path):
    training, said = trained(network, data, tmp_path), []
    for name in ("one", "two"):
        bundle_training(training, data, ["darkcovid"], tmp_path / name, **words(say=said.append))
    assert any("int8 names the class of float for" in line for line in said)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    bundle = load_bundle(tmp_path / "one")
    assert bundle.manifest.classes == ["normal", "pneumonia", "covid19"]
    assert set(bundle.manifest.sensitivity) == set(bundle.manifest.classes)
    assert "never the only basis of a decision" in bundle.manifest.intended_use
    assert bundle.decide(preprocess(phantom(1))).probabilities.keys() == set(bundle.manifest.classes)
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [192, 192, 1]
    assert "cannot tell that a kind of image is new to it" in card_of(tmp_path / "one")


def test_our_layout_keeps_its_maps_and_its_measure_of_what_it_has_learned(data, tmp_path):
    training = trained("ours", data, tmp_path)
    bundle_training(training, data, ["darkcovid"], tmp_path / "out", **words())
    bundle = load_bundle(tmp_path / "out")
    assert bundle.typicality is not None
    assert bundle.typicality.limit == UNFAMILIAR
    scores = bundle.classifier.run(preprocess(phantom(1)))
    assert scores.heat.shape == (12, 12, 3)
    assert scores.heat.mean(axis=(0, 1)) == pytest.approx(scores.logits, abs=0.3)
    assert "how many of another hospital's pictures that catches was not measured" in card_of(tmp_path / "out")
    decided = bundle.decide(np.full((192, 192), 255, np.uint8))
    assert decided.abstained
    assert "unfamiliar" in decided.reasons


def card_of(folder):
    return " ".join((folder / "MODEL_CARD.md").read_text().lower().split())


def test_a_gray_picture_is_given_three_times():
    model = coloured(3, {}, 32)
    picture = np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    assert np.asarray(gray(model)(picture)) == pytest.approx(np.asarray(model(np.repeat(picture, 3, axis=3))))
    alone = make(3, {}, 32)
    assert gray(alone) is alone


def test_what_cannot_become_a_bundle_is_refused_in_one_sentence(data, tmp_path):
    def refusal(training, out="out", *sets):
        named = [part for name in sets for part in ("--set", name)]
        command = [
            "bundle",
            training,
            "--data",
            data,
            "--out",
            tmp_path / out,
            "--name",
            "a",
            "--version",
            "1",
            "--licence",
            "none",
        ]
        result = CliRunner().invoke(main, [str(part) for part in (*command, *named)])
        assert result.exit_code == 2
        (sentence,) = result.stderr.splitlines()
        return sentence

    assert "holds no finished training" in refusal(tmp_path / "nowhere")
    small = trained("tiny", data, tmp_path, side=32)
    assert "Train it with --side 192" in refusal(small)
    (tmp_path / "large").mkdir()
    large = trained("tiny", data, tmp_path / "large")
    assert "thresholds need at least 20" in refusal(large)
    assert "was trained on other pictures" in refusal(large, "out", "ieee8023")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    assert "is not an empty folder" in refusal(large, "full")
    assert not (tmp_path / "out").exists()
