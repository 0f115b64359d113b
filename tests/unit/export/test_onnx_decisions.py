"""The ONNX file of the network decides in onnxruntime as the int8 file of the devices does; so has an engine made from it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.network.bundle import load_bundle
from edge.network.classify import Scores
from edge.network.decide import Rule, decide
from edge.network.manifest import SHIPPED
from edge.pixels.network_input import read_pgm
from edge.pixels.preprocess import preprocess
from export.onnx import run_onnx
from export.phantom import phantom, random_opacities
from tests.golden.generate import ENGINE_SCORES, engine_scores_now

JETSON = ENGINE_SCORES.parent
ONNX = SHIPPED.with_name("chest.onnx")
GOLDEN = sorted((SHIPPED / "golden").glob("*.pgm"))
_CLOSE = 0.3
"""Of scores before the softmax, whose int8 step is 0.05: what eight bits in all layers together may move."""


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.fixture(scope="module")
def both(bundle):
    """(what the int8 file gives, what the ONNX file gives) for each golden input and 60 drawn pictures."""
    drawn = [preprocess(phantom(seed, opacity=random_opacities(seed, seed) if seed % 2 else ())) for seed in range(60)]
    pictures = [*(read_pgm(path.read_bytes()) for path in GOLDEN), *drawn]
    given = run_onnx(ONNX.read_bytes(), np.stack(pictures)[..., np.newaxis])
    by_onnx = [
        Scores(*(given[name][i].astype(np.float32) if name else () for name in ("scores", "", "heat", "traits")))
        for i in range(len(pictures))
    ]
    return list(zip([bundle.classifier.run(picture) for picture in pictures], by_onnx, strict=True))


def test_what_is_shown_is_the_same_for_every_picture(both, bundle):
    def shown(scores):
        decision = bundle.answer(scores)
        return None if decision.abstained else decision.label

    assert [shown(one) for one, _ in both] == [shown(other) for _, other in both]


def test_the_class_is_the_same_wherever_it_is_no_close_call(both, bundle):
    # Drawn pictures are strange to the network, so all answers above are "not sure"; the rule without that says more.
    rule = Rule(tuple(bundle.manifest.classes), bundle.manifest.temperature, bundle.manifest.threshold)
    clear = [pair for pair in both if np.subtract(*np.sort(pair[0].logits)[:-3:-1]) > _CLOSE]
    assert len(clear) > 40
    labels = [(decide(one, rule).label, decide(other, rule).label) for one, other in clear]
    assert all(one == other for one, other in labels)
    assert len({one for one, _ in labels}) > 1, "not one class for everything"
    assert max(float(np.abs(one.logits - other.logits).max()) for one, other in both) < _CLOSE


def test_the_scores_that_an_engine_has_to_give_are_those_of_the_file():
    kept = json.loads(ENGINE_SCORES.read_text())
    now = engine_scores_now()
    assert list(kept) == list(now) == [path.name for path in GOLDEN]
    np.testing.assert_allclose(list(kept.values()), list(now.values()), atol=1e-3, err_msg="make reference writes them")


TRTEXEC = """#!{python}
import json, os, sys
import numpy as np
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
assert "noTF32" in options
if "onnx" in options:
    open(options["saveEngine"], "wb").write(open(options["onnx"], "rb").read())
    sys.exit(int(os.environ.get("FAILS", "0")))
picture = np.frombuffer(open(options["loadInputs"].partition(":")[2], "rb").read(), np.float32).reshape(1, 192, 192, 1)
import onnxruntime
session = onnxruntime.InferenceSession(open(options["loadEngine"], "rb").read(), providers=["CPUExecutionProvider"])
(scores,) = session.run(["scores"], {{"picture": picture}})
values = (scores[0] + float(os.environ.get("OFF", "0"))).tolist()
json.dump([{{"name": "scores", "dimensions": "1x3", "values": values}}], open(options["exportOutput"], "w"))
print("[I] GPU Compute Time: mean = 0.5 ms")
"""


@pytest.fixture
def build(tmp_path):
    """Runs build-engine.sh where programs say that this is a Jetson, and trtexec is one of ours around onnxruntime."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def program(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(*arguments, machine="aarch64", release="36.4.3-20250107174145", trtexec=True, **environment):
        program("uname", f"#!/bin/sh\necho {machine}\n")
        program("dpkg-query", f"#!/bin/sh\n{f'echo {release}' if release else 'exit 1'}\n")
        if trtexec:
            program("trtexec", TRTEXEC.format(python=sys.executable))
        return subprocess.run(
            [JETSON / "build-engine.sh", *map(str, arguments)],
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_an_engine_is_kept_when_it_answers_as_the_network_does(build, tmp_path):
    target = tmp_path / "engines"
    target.mkdir()
    done = build(ONNX, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as on the other devices") == len(GOLDEN) == 3
    assert "GPU Compute Time" in done.stdout
    assert [path.name for path in target.iterdir()] == ["chest.engine"]


def test_an_engine_that_answers_otherwise_or_is_not_built_is_not_kept(build, tmp_path):
    target = tmp_path / "engines"
    target.mkdir()
    done = build(ONNX, target, OFF="0.02")
    assert (done.returncode, "was not kept" in done.stderr) == (2, True)
    done = build(ONNX, target, FAILS="1")
    assert (done.returncode, "could not build the engine" in done.stderr) == (2, True)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"machine": "x86_64"}, "this machine is x86_64"),
        ({"release": ""}, "this is no Jetson with JetPack"),
        ({"release": "32.7.6-20241104234540"}, "the file needs JetPack 6"),
        ({"trtexec": False}, "trtexec is not there. Install it"),
    ],
)
def test_where_no_engine_can_be_built_one_sentence_says_why(build, tmp_path, options, says):
    assert shutil.which("trtexec") is None
    done = build(ONNX, tmp_path, **options)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.engine"))


def test_what_is_missing_is_named(build, tmp_path):
    assert "give the ONNX file and the folder" in build().stderr
    assert "gone.onnx is not there" in build(tmp_path / "gone.onnx", tmp_path).stderr
    assert f"the folder {tmp_path}/none is not there" in build(ONNX, tmp_path / "none").stderr
    shutil.copyfile(ONNX, tmp_path / "alone.onnx")
    assert "is to lie beside the network's folder" in build(tmp_path / "alone.onnx", tmp_path).stderr


def test_the_script_is_one_that_a_plain_shell_reads():
    assert subprocess.run(["dash", "-n", JETSON / "build-engine.sh"], check=False).returncode == 0
    assert Path(JETSON / "golden.py").read_text().count("import ") == 4, "the standard library alone"
