"""What an int8 file says in the runtime of 32-bit ARM, of patients that it has not seen (ADR 0012)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.contract.bundle import Runtime
from edge.network.bundle import load_bundle
from edge.network.typicality import Typicality
from export.dataset import Pixels, Sample, patients
from export.errors import ReportError
from export.evaluate import agreement, confident, three_classes
from export.model import run
from export.report.bench import make_bench
from export.runtimes import RUNTIMES
from export.unseen import Judge, answers, truth_of

OTHER_RUNTIME: Runtime = "tflite-runtime"
"""All is fitted and measured in LiteRT; devices of 32-bit ARM have this one."""


@dataclass(frozen=True)
class _Shipped:
    """What turns a bundle's scores into answers, see `export.model.Finished`."""

    temperature: float
    candidate: float
    typicality: Typicality


def in_other_runtime(graph: bytes, model: Judge, pixels: Pixels, samples: list[Sample]) -> dict[str, Any]:
    """Return accuracy there, and how often class and answer are those of LiteRT.

    Args:
        graph: the int8 file.
        model: what turns its scores into answers.
        pixels: of n pictures that it has not seen, shape (n, side, side), uint8.
        samples: what they are, each of a class that it knows.
    """
    here, there = run(graph, pixels), run(graph, pixels, RUNTIMES[OTHER_RUNTIME])
    people, truth = patients(samples), truth_of(samples)
    answered, elsewhere = answers(here, model)[1], answers(there, model)[1]
    same_class = here.logits.argmax(axis=1) == there.logits.argmax(axis=1)
    return {
        "name": OTHER_RUNTIME,
        "accuracy": three_classes(there.logits, truth, people)["accuracy"],
        "same_answer": confident(np.asarray((answered == elsewhere) & (same_class | ~answered)), people),
        **agreement(there.logits, here.logits),
    }


def of_bundle(folder: Path, data: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the same of a bundle that `cxr-export chest` has made of `data`.

    Raises:
        BundleError: if the bundle is damaged.
        DataError: if the sets cannot be used.
        ReportError: if it is not known which of these pictures the bundle has not seen, or it does not say what is familiar.
    """
    bundle = load_bundle(folder)
    bench = make_bench(data, folder, bundle, say)
    manifest, measure = bundle.manifest, bundle.typicality
    if measure is None or manifest.candidate is None:
        raise ReportError(f"The bundle in {folder} does not say what is familiar to it: `cxr-export chest` makes one that does.")
    model = _Shipped(manifest.temperature, manifest.candidate, measure)
    test = bench.split.test
    graph = (folder / manifest.model_file).read_bytes()
    return in_other_runtime(graph, model, bench.pixels[test], [bench.samples[int(place)] for place in test])
