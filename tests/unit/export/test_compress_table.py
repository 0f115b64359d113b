"""The table of `cxr-export compress`, and what a person sees of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge.network.bundle import SHIPPED
from export.begin import begin, held_out_split, read_begun
from export.cli import main
from export.compress import table as tables
from export.compress.command import load_network
from export.compress.distill import Distiller
from export.compress.formats import Runner, convert, keras_logits
from export.compress.rebuild import duplicate
from export.compress.rows import Table
from export.compress.table import Exam, Variant, compressed, measure, text, write
from export.dataset import CLASSES, Sample
from export.errors import DataError, WeightsError
from export.legacy_keras import keras
from export.networks.catalog import find
from export.networks.ours import BACKBONE
from export.protocols import training_only
from export.recipe import Recipe
from tests.unit.export.small_network import build

SIDE = 32


@pytest.fixture(autouse=True)
def fresh_session():
    keras.backend.clear_session()
    keras.utils.set_random_seed(4)


def small():
    return build(3, SIDE)


def pictures(count=12):
    rng = np.random.default_rng(5)
    return (rng.integers(0, 200, (count, 1, 1, 1)) + rng.integers(0, 56, (count, SIDE, SIDE, 1))).astype(np.uint8)


def test_a_table_measures_what_it_says(monkeypatch, tmp_path):
    model = small()
    given = pictures()
    float32 = convert(model, "float32", given)
    other = duplicate(model)
    kernel, bias = other.get_layer("heat").get_weights()
    other.get_layer("heat").set_weights([kernel, bias + np.array([0, 9, 0])])  # names the second class always
    monkeypatch.setattr(tables, "_reference", lambda: (Runner(float32), given[0]))
    monkeypatch.setattr(tables, "peak_memory", len)
    monkeypatch.setattr(tables, "interleaved", lambda *_, **__: {"float32": 2.0, "wrong": 6.0, "p3": 4.0})
    truth = keras_logits(model, given).argmax(axis=1)
    truth[0] = (truth[0] + 1) % 3
    exam = Exam(given, truth, np.array([f"p{i}" for i in range(len(given))]))
    first = Variant("float32", "float32", 0.0, float32, model)
    wrong = replace(first, name="wrong", graph=convert(other, "float32", given), left_in_float=("a", "b"))
    table = measure("small", [first, wrong], exam, 3, trained=False, rounds=5)
    good, bad = table.rows
    assert good.accuracy.value == pytest.approx(11 / 12, abs=1e-4)
    assert good.accuracy.low < good.accuracy.value <= good.accuracy.high
    assert (good.accuracy.pictures, good.accuracy.patients) == (12, 12)
    assert good.agreement == good.agreement_own == 1.0
    assert good.logit_difference < 1e-5
    assert bad.agreement < 1.0
    assert bad.logit_difference == pytest.approx(3.0, abs=0.01)
    assert good.bytes == len(float32) > good.compressed_bytes == compressed(float32) > 1000
    assert (good.milliseconds, good.ratio_to_p3, bad.ratio_to_p3, table.p3_milliseconds) == (2.0, 0.5, 1.5, 4.0)
    lines = text(table).splitlines()
    assert "0.917 (" in lines[1]
    assert "wrong: left in float: a, b" in lines
    assert lines[-1].startswith("The weights are random")
    write(tmp_path / "deep/table.json", table)
    assert msgspec.json.decode((tmp_path / "deep/table.json").read_bytes(), type=Table) == table


@pytest.mark.soak
def test_a_network_learns_what_its_teacher_says():
    teacher, pupil = small(), small()
    pupil.get_layer("heat").set_weights([value * 0 for value in pupil.get_layer("heat").get_weights()])
    tuner = Distiller(teacher, pictures(32), epochs=12, rate=1e-2, batch=8)
    assert tuner.steps == 48

    def distance():
        return np.abs(keras_logits(pupil, pictures()) - keras_logits(teacher, pictures())).mean()

    before, weights = distance(), teacher.get_weights()
    tuner(keras.Model(pupil.input, pupil.output["scores"]), ())
    assert distance() < before / 2
    for old, new in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_fine_tuning_leaves_the_statistics_of_normalization_alone():
    teacher, pupil = small(), small()
    norm = pupil.get_layer("stem0_norm")
    before, kernel = [value.copy() for value in norm.get_weights()], pupil.get_layer("heat").get_weights()[0]
    Distiller(teacher, pictures(16), epochs=1, batch=8)(keras.Model(pupil.input, pupil.output["scores"]), ())
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert norm.trainable
    assert (pupil.get_layer("heat").get_weights()[0] != kernel).any()


def said(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    return sentence


def test_what_is_no_network_is_named(data, tmp_path):
    assert "There is no network and no file 'p9'" in said("compress", "p9", "--data", data)
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    assert "bad.keras is not a network that Keras saved" in said("compress", tmp_path / "bad.keras", "--data", data)
    other = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(7)])
    other.save(tmp_path / "seven.keras")
    assert "does not give scores of the 3 classes" in said("onnx", tmp_path / "seven.keras", "--out", tmp_path / "x.onnx")
    other.save_weights(tmp_path / "weights.h5")
    arguments = ("onnx", "ours", "--weights", tmp_path / "weights.h5", "--out", tmp_path / "x.onnx")
    assert "does not hold weights of ours" in said(*arguments)
    assert not (tmp_path / "x.onnx").exists()


def test_a_training_is_looked_at_on_what_it_held_out(tmp_path):
    kinds = [("normal", 9), ("pneumonia", 9), ("covid19", 9)]
    samples = [
        Sample(Path(f"set/{label}{i}.png"), label, f"{label}{i}", "s", "set") for label, count in kinds for i in range(count)
    ]
    recipe = Recipe(network="ours", classes=list(CLASSES), epochs=1, batch=4, optimizer="adam", rate=0.1, side=32)
    begin(tmp_path / "out", recipe, samples)
    begun = read_begun(tmp_path / "out")
    split = held_out_split(tmp_path / "out", begun, samples)
    expected = training_only(samples, CLASSES, seed=recipe.split_seed, validation=recipe.validation)
    assert split.validation.tolist() == expected.validation.tolist()
    with pytest.raises(DataError, match="was trained on other pictures"):
        held_out_split(tmp_path / "out", begun, samples[1:])
    with pytest.raises(WeightsError, match=r"weights\.h5 does not hold weights of ours"):
        load_network(str(tmp_path / "out"))
    find("ours").build(3, side=32).save_weights(tmp_path / "out/weights.h5")
    model, trained = load_network(str(tmp_path / "out"))
    assert trained
    assert model.input_shape == (None, 32, 32, 1)
    assert read_begun(tmp_path) is None


def test_a_training_that_began_with_lent_weights_is_read_again(tmp_path):
    """Our network has other layers with them than without."""
    file = tmp_path / "lent.weights.h5"
    keras.applications.MobileNetV2((224, 224, 3), alpha=0.35, include_top=False, weights=None).save_weights(file)
    recipe = Recipe(
        network="ours", classes=list(CLASSES), epochs=1, batch=4, optimizer="adam", rate=0.1, side=32, weights={BACKBONE: str(file)}
    )
    begin(tmp_path / "out", recipe, [])
    made = find("ours").build(3, {BACKBONE: file}, 32)
    made.get_layer("signs").set_weights([value + 1 for value in made.get_layer("signs").get_weights()])
    made.save_weights(tmp_path / "out/weights.h5")
    model, _ = load_network(str(tmp_path / "out"))
    assert [value.tolist() for value in model.get_weights()] == [value.tolist() for value in made.get_weights()]


def test_an_onnx_file_is_written_and_compared(tmp_path):
    small().save(tmp_path / "small.keras")
    result = CliRunner().invoke(main, ["onnx", str(tmp_path / "small.keras"), "--out", str(tmp_path / "deep/small.onnx")])
    assert result.exit_code == 0, result.output
    assert "onnxruntime names the same class for 100% of 9 drawn pictures" in result.output
    assert (tmp_path / "deep/small.onnx").stat().st_size > 1000


@pytest.mark.soak
def test_the_whole_command(data, tmp_path):
    small().save(tmp_path / "small.keras")
    arguments = ["compress", str(tmp_path / "small.keras"), "--data", str(data), "--epochs", "1", "--out", str(tmp_path / "t.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "t.json").read_bytes())
    names = [row["name"] for row in table["rows"]]
    assert len(names) == len(set(names)) == 9
    by_name = {row["name"]: row for row in table["rows"]}
    assert by_name["80% zeros, int8, close"]["zeros"] > by_name["50% zeros, int8, close"]["zeros"] > 0.2
    assert all(not row.get("left_in_float") for row in table["rows"])
    assert table["trained"]


def test_a_bundle_opens_as_a_network_that_can_be_fine_tuned():
    model, trained = load_network(str(SHIPPED))
    assert trained
    assert model.count_params() == 90_772
    assert {weight.name.split("/")[0] for weight in model.trainable_variables} >= {"Conv1", "block_6_project", "signs"}
