"""Size, zeros and time of a TFLite graph."""

from __future__ import annotations

import time

import numpy as np

from edge.classify import new_interpreter
from export.dataset import Pixels
from export.metrics import bounded, draws
from export.predictions import Predictions
from export.report.inputs import Compressed, Span

_TIMED = 40


def form_of(graph: bytes, pixels: Pixels, found: Predictions, agreement: float | None = None) -> Compressed:
    """Return one row of the table of sizes and speeds.

    Args:
        graph: int8 or float32, with one gray picture as its input.
        pixels: shape (n, side, side); the median time of some of them is taken, with one thread, on this machine.
        found: its predictions, for the accuracy.
        agreement: with float32, where that was compared.
    """
    truth = found.truth()
    right = (found.scores().argmax(axis=1) == truth).astype(np.float64)
    weights = draws(found.patients())
    share = bounded(float(right.mean()), weights @ right / weights.sum(axis=1), len(right), len(set(found.patients())))
    return Compressed(
        precision=f"{found.network}, {found.precision}",
        sparsity=zero_share(graph),
        bytes=len(graph),
        accuracy=Span(value=share.value, low=share.low, high=share.high) if share else None,
        agreement=agreement,
        milliseconds=milliseconds(graph, pixels),
    )


def zero_share(graph: bytes) -> float:
    """Return the share of zeros among the weights of convolutions (not those of one channel each) and dense layers, 0..1."""
    interpreter = new_interpreter(graph, 1)
    interpreter.allocate_tensors()
    outside = {detail["index"] for detail in (*interpreter.get_input_details(), *interpreter.get_output_details())}
    zeros = total = 0
    for detail in interpreter.get_tensor_details():
        constant = len(detail["shape"]) in (2, 4) and detail["shape"][0] != 1  # values between layers are batches of 1
        weights = constant and (detail["dtype"] == np.float32 or len(detail["quantization_parameters"]["scales"]) > 1)
        if weights and detail["index"] not in outside:
            values = interpreter.get_tensor(detail["index"])
            zeros += int((values == 0).sum())
            total += values.size
    return zeros / total if total else 0.0


def milliseconds(graph: bytes, pixels: Pixels) -> float:
    """Return the median time of one picture with one thread."""
    interpreter = new_interpreter(graph, 1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    times = []
    for picture in pixels[:_TIMED]:
        if given["dtype"] == np.int8:
            value = (picture.astype(np.int16) - 128).astype(np.int8)
        else:
            value = picture.astype(np.float32) / np.float32(255)
        interpreter.set_tensor(given["index"], np.broadcast_to(value[np.newaxis, :, :, np.newaxis], given["shape"]).copy())
        began = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e3
