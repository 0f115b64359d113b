"""The shipped file in the runtime of 32-bit ARM: what is counted, and that it can be counted again without a training."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.network.bundle import load_bundle
from edge.network.manifest import SHIPPED
from edge.pixels.preprocess import preprocess
from export import second_runtime
from export.bundle import write_report
from export.dataset import CLASSES, Sample
from export.model import run
from export.phantom import phantom
from export.runtimes import RUNTIMES
from export.second_runtime import in_other_runtime
from export.unseen import answers

COUNT = 12
GRAPH = (SHIPPED / "model.tflite").read_bytes()
PIXELS = np.stack([preprocess(phantom(seed)) for seed in range(COUNT)])
SAMPLES = [Sample(Path(f"{n}.png"), CLASSES[n % 3], f"p{n}", "drawn", "drawn") for n in range(COUNT)]


def judge(candidate: float | None = None) -> Any:
    bundle = load_bundle()
    assert bundle.typicality is not None
    assert bundle.manifest.candidate is not None
    # What is drawn looks unfamiliar to the network; for here all of it is familiar, so that there are answers to compare.
    measure = dataclasses.replace(bundle.typicality, limit=0.0)
    return second_runtime._Shipped(bundle.manifest.temperature, candidate or bundle.manifest.candidate, measure)


def test_what_is_counted_is_what_the_two_runtimes_say() -> None:
    model = judge()
    found = in_other_runtime(GRAPH, model, PIXELS, SAMPLES)
    here, there = (run(GRAPH, PIXELS, new) for new in RUNTIMES.values())
    truth = np.arange(COUNT) % 3
    said = [(answers(seen, model)[1], seen.logits.argmax(axis=1)) for seen in (here, there)]
    same = [(a, c if a else None) == (b, d if b else None) for a, c, b, d in zip(*said[0], *said[1], strict=True)]
    assert found["pictures"] == COUNT
    assert found["accuracy"]["value"] == pytest.approx((there.logits.argmax(axis=1) == truth).mean(), abs=1e-4)
    assert found["same_answer"]["value"] == pytest.approx(np.mean(same), abs=1e-4)
    assert found["largest_logit_difference"] == pytest.approx(np.abs(here.logits - there.logits).max(), abs=1e-4)
    assert found["largest_logit_difference"] > 0, "the runtimes round otherwise"


def test_one_answers_and_the_other_does_not_is_another_answer() -> None:
    """The candidate's limit lies between what the two give for one picture."""
    here, there = (answers(run(GRAPH, PIXELS, new), judge())[0].max(axis=1) for new in RUNTIMES.values())
    at = int(np.abs(here - there).argmax())
    model = judge(float(here[at] + there[at]) / 2)
    found = in_other_runtime(GRAPH, model, PIXELS, SAMPLES)
    assert found["same_answer"]["value"] < 1


def test_of_one_runtime_with_itself_everything_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_runtime, "RUNTIMES", {second_runtime.OTHER_RUNTIME: RUNTIMES["ai-edge-litert"]})
    found = in_other_runtime(GRAPH, judge(), PIXELS, SAMPLES)
    assert (found["same_answer"]["value"], found["same_class"], found["largest_logit_difference"]) == (1.0, 1.0, 0.0)


def test_a_report_that_is_written_again_leaves_a_bundle_that_a_device_takes(tmp_path: Path) -> None:
    folder = tmp_path / "chest"
    shutil.copytree(SHIPPED, folder)
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    write_report(folder, report)
    assert (folder / "report.json").read_bytes() == (SHIPPED / "report.json").read_bytes(), "it is written in one way"
    report["shipped"]["other_runtime"]["name"] = "another"
    write_report(folder, report)
    assert load_bundle(folder).manifest.parts["report.json"] != load_bundle().manifest.parts["report.json"]
