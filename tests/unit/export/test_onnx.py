"""ONNX files decide as their networks do, and come out the same from any process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.network.bundle import SHIPPED
from edge.pixels.preprocess import preprocess
from export.compress.formats import convert
from export.errors import ConversionError
from export.legacy_keras import keras
from export.onnx import INPUT_NAME, OPSET, PRODUCER, agreement, run_onnx, to_onnx
from export.phantom import phantom, random_opacities
from export.reopen import reopened_bundle
from tests.unit.export.small_network import build

ROOT = Path(__file__).parents[3]
DIGESTS = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from test_onnx import pictures, small
from export.compress.formats import convert
from export.compress.ranges import close_int8
from export.onnx import to_onnx
print(hashlib.sha256(to_onnx(small())).hexdigest())
for kind in sys.argv[1:]:
    data = close_int8(small(), pictures()) if kind == "close" else convert(small(), kind, pictures())
    print(hashlib.sha256(data).hexdigest())
"""


def small():
    keras.backend.clear_session()
    keras.utils.set_random_seed(4)
    return build(3, 32)


def pictures(count=6):
    return np.random.default_rng(5).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)


def test_the_file_says_what_the_network_says_on_every_output():
    model = small()
    data = to_onnx(model)
    found = agreement(data, model, pictures())
    assert found.pictures == 6
    assert found.same_class == 1.0
    assert found.largest_difference < 1e-5
    expected = model(pictures() / np.float32(255), training=False)
    got = run_onnx(data, pictures())
    assert set(got) == {"scores", "heat"}
    for name, values in got.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_a_difference_between_file_and_network_is_seen():
    model = small()
    kernel, bias = model.get_layer("heat").get_weights()
    model.get_layer("heat").set_weights([kernel * 0, bias + np.array([1, 0, 0])])
    data = to_onnx(model)
    model.get_layer("heat").set_weights([kernel * 0, bias + np.array([1, 0, 9])])
    found = agreement(data, model, pictures())
    assert found.same_class == 0.0
    assert found.largest_difference == pytest.approx(9, abs=1e-3)


def test_what_a_jetson_reads_is_in_it_and_nothing_of_the_machine_that_made_it():
    import onnx

    made = onnx.load_model_from_string(to_onnx(small()))
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", OPSET)]
    assert (made.producer_name, made.producer_version, made.doc_string) == (PRODUCER, "", "")
    assert [value.name for value in made.graph.input] == [INPUT_NAME]
    assert [value.name for value in made.graph.output] == ["heat", "scores"]
    assert [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == [1, 32, 32, 1]
    assert {node.op_type for node in made.graph.node} <= {
        "Conv",
        "Relu",
        "Add",
        "Transpose",
        "GlobalAveragePool",
        "Reshape",
        "Squeeze",
    }


def test_a_network_with_one_output_calls_it_scores():
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2, name="anything")])
    data = to_onnx(model)
    given = pictures()[:, :8, :8]
    assert set(run_onnx(data, given)) == {"scores"}
    assert agreement(data, model, given).same_class == 1.0


def test_a_network_of_any_size_is_refused_with_a_sentence():
    with pytest.raises(ConversionError, match="one input of a fixed size"):
        to_onnx(build(3, None))


def digests(seed, *kinds):
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DIGESTS.format(folder=str(Path(__file__).parent)), *kinds]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_two_processes_write_the_same_bytes():
    # This process is the other one: its strings have hashes of their own.
    here = [to_onnx(small()), convert(small(), "int8", pictures())]
    assert digests("1", "int8") == [hashlib.sha256(data).hexdigest() for data in here]


@pytest.mark.soak
def test_two_processes_write_the_same_bytes_in_every_format():
    kinds = ("float32", "float16", "dynamic", "int8", "close")
    assert digests("2", *kinds) == digests("3", *kinds)


def test_the_file_beside_the_shipped_bundle_has_its_weights():
    model = reopened_bundle(SHIPPED)
    data = (SHIPPED.parent / "chest.onnx").read_bytes()
    assert to_onnx(model) == data, "run cxr-export onnx edge/models/chest --out edge/models/chest.onnx"
    drawn = np.stack([preprocess(phantom(seed, opacity=random_opacities(seed, seed))) for seed in range(6)])[..., np.newaxis]
    found = agreement(data, model, drawn)
    assert found.same_class == 1.0
    assert found.largest_difference < 1e-3
