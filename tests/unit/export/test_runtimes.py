"""Each runtime of a device, on this machine: the shipped network's golden scores to the bit, and the kernels of the old runtime."""

from __future__ import annotations

import subprocess
import sys
import venv

import numpy as np
import pytest

from edge.network.bundle import load_bundle
from edge.network.classify import Classifier
from edge.network.manifest import SHIPPED, read_manifest
from edge.pixels.network_input import read_pgm
from edge.pixels.preprocess import preprocess
from export.model import run
from export.phantom import phantom
from export.runtimes import RUNTIMES, reference_kernels

GRAPH = SHIPPED / "model.tflite"

WHEEL = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType
pictures = np.load(sys.argv[2])
network = Interpreter(sys.argv[1], num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
network.allocate_tensors()
(taken,) = network.get_input_details()
rows = {str(number): [] for number, _ in enumerate(network.get_output_details())}
for picture in pictures:
    network.set_tensor(taken["index"], (picture ^ np.uint8(128)).view(np.int8)[np.newaxis, :, :, np.newaxis])
    network.invoke()
    for number, output in enumerate(network.get_output_details()):
        rows[str(number)].append(network.get_tensor(output["index"])[0].copy())
np.savez(sys.argv[3], **rows)
"""


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_golden_scores_of_each_runtime_are_those_of_the_shipped_file(name):
    classifier = Classifier(GRAPH.read_bytes(), new=RUNTIMES[name])
    for golden in read_manifest(SHIPPED).golden:
        assert list(classifier.run(read_pgm((SHIPPED / golden.file).read_bytes())).steps) == golden.scores[name]


def test_threads_change_nothing():
    picture = preprocess(phantom(3))
    one, two = (Classifier(GRAPH.read_bytes(), threads=threads).run(picture) for threads in (1, 2))
    assert one.steps == two.steps
    assert (one.heat == two.heat).all()


def test_two_runtimes_are_near_each_other():
    pixels = np.stack([preprocess(phantom(seed)) for seed in range(8)])
    here, there = (run(GRAPH.read_bytes(), pixels, new) for new in RUNTIMES.values())
    chances = [[load_bundle().answer(score).probabilities for score in _scores(pixels, new)] for new in RUNTIMES.values()]
    assert np.abs(here.logits - there.logits).max() < 0.5
    assert max(abs(a[name] - b[name]) for a, b in zip(*chances, strict=True) for name in a) < 0.15


def _scores(pixels, new):
    classifier = Classifier(GRAPH.read_bytes(), new=new)
    return [classifier.run(picture) for picture in pixels]


@pytest.mark.soak
def test_the_reference_kernels_of_the_old_runtime_are_those_of_the_new_one(tmp_path):
    """On x86, where its other kernels differ from them; that on 32-bit ARM all of them round alike is seen by `make armhf`."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"], check=True)
    pictures = np.stack([preprocess(phantom(seed)) for seed in range(30)])
    np.save(tmp_path / "pictures.npy", pictures)
    given = [GRAPH, tmp_path / "pictures.npy", tmp_path / "outputs.npz"]
    subprocess.run([python, "-c", WHEEL, *given], check=True, capture_output=True)
    wheel = np.load(tmp_path / "outputs.npz")
    network = reference_kernels(GRAPH.read_bytes(), 1)
    network.allocate_tensors()
    (taken,) = network.get_input_details()
    for place, picture in enumerate(pictures):
        network.set_tensor(taken["index"], (picture ^ np.uint8(128)).view(np.int8)[np.newaxis, :, :, np.newaxis])
        network.invoke()
        for number, output in enumerate(network.get_output_details()):
            assert (network.get_tensor(output["index"])[0] == wheel[str(number)][place]).all(), (sys.version, number, place)
