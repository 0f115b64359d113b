"""One file from decoding to decision, for a person or a script at the command line."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge.contract.reasons import NOT_SURE, advice
from edge.errors import Refused
from edge.names import on_one_line, printable
from edge.network.bundle import Bundle, load_bundle
from edge.network.manifest import SHIPPED
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import Answer, NotReady


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What `cxr-edge classify --json` prints for one file."""

    file: str
    status: str
    reasons: list[str] = []
    probabilities: dict[str, float] = {}
    label: str | None = None
    abstained: bool | None = None
    threshold: float | None = None
    heat: dict[str, float] = {}
    typicality: float | None = None
    model: str


def classify_files(paths: Sequence[Path], decoder: Decoder, folder: Path | None, threshold: float | None) -> Iterator[Reading]:
    """Yield the reading of each file; bad input becomes a status and reasons, never an error.

    Args:
        paths: files to read, each once.
        decoder: turns a file into a network input.
        folder: model bundle, None for the shipped one; loaded while the first file is decoded.
        threshold: abstain below this probability; None for the bundle's own.

    Raises:
        BundleError: if the model cannot be used.
    """
    load = functools.cache(lambda: load_bundle(folder or SHIPPED))
    for path in paths:
        answer: Answer | None
        try:
            answer, bundle = decoder.decode_while(path, load)
        except OSError:
            answer, bundle = None, load()
        yield _reading(printable(str(path)), answer, bundle, threshold)


def _reading(name: str, answer: Answer | None, bundle: Bundle, threshold: float | None) -> Reading:
    manifest = bundle.manifest
    model = manifest.model_sha256
    if answer is None:
        return Reading(file=name, status="failed", reasons=["not_found"], model=model)
    if isinstance(answer, NotReady):
        return Reading(file=name, status="refused" if answer.refused else "failed", reasons=[answer.reason], model=model)
    side = manifest.input_side
    try:
        scores = bundle.scores(np.frombuffer(answer.pixels, np.uint8).reshape(side, side), answer.headers)
    except Refused as refused:
        return Reading(file=name, status="refused", reasons=[refused.reason], model=model)
    decision = bundle.answer(scores, threshold)
    return Reading(
        file=name,
        status="ok",
        reasons=list(decision.reasons),
        probabilities=decision.probabilities,
        label=decision.label,
        abstained=decision.abstained,
        threshold=decision.threshold,
        heat=decision.heat,
        typicality=decision.typicality,
        model=model,
    )


def to_json(reading: Reading) -> str:
    """Return one line of JSON."""
    return msgspec.json.encode(reading).decode()


def to_text(reading: Reading) -> str:
    """Return one line for a person."""
    file = on_one_line(reading.file)
    if reading.status != "ok":
        return f"{file}: {reading.status} - {' '.join(advice(reason) for reason in reading.reasons)}"
    chances = ", ".join(f"{name} {value:.0%}" for name, value in reading.probabilities.items())
    why = "".join(f" {advice(reason)}" for reason in reading.reasons)
    return f"{file}: {NOT_SURE if reading.abstained else reading.label} ({chances}){why}"
