"""A quality gate as files of a bundle: what `cxr-export gate` adds to a manifest and `cxr-export adapt` takes over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge.contract import bundle as contract
from edge.contract.bundle import MANIFEST_NAME, Golden, Manifest
from edge.network.bundle import Bundle
from edge.network.classify import Classifier
from edge.network.gate import Floats32, Gate
from edge.pixels.network_input import read_pgm
from export.runtimes import RUNTIMES

GATE_NAME = "gate.tflite"
WEIGHTS_NAME = "gate.f32"
GATE_REPORT_NAME = "gate.json"


@dataclass(frozen=True)
class MadeGate:
    """graph: int8 file. weights: shape (reasons, traits + 1). reasons, limit: of `edge.network.gate.Gate`, see `on_device`."""

    graph: bytes
    weights: Floats32
    reasons: tuple[str, ...]
    limit: float

    def on_device(self) -> Gate:
        """Return the gate as a device has it."""
        return Gate(Classifier(self.graph), self.weights, self.reasons, self.limit)


def write_gate(folder: Path, made: MadeGate, report: Mapping[str, Any] | None = None) -> None:
    """Write a gate into the bundle in `folder`, whose manifest then names it.

    Args:
        folder: of a bundle with the network whose traits the gate reads.
        made: the gate.
        report: of its measurement; None where it was not measured with this bundle.
    """
    weights = made.weights.astype("<f4").tobytes()
    (folder / GATE_NAME).write_bytes(made.graph)
    (folder / WEIGHTS_NAME).write_bytes(weights)
    path = folder / MANIFEST_NAME
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    gate = contract.Gate(
        file=GATE_NAME,
        sha256=_sha256(made.graph),
        weights=WEIGHTS_NAME,
        weights_sha256=_sha256(weights),
        reasons=list(made.reasons),
        limit=made.limit,
        golden=[_golden(folder, golden, made.graph) for golden in manifest.golden],
    )
    parts = manifest.parts
    if report is not None:
        _write_json(folder / GATE_REPORT_NAME, report)
        parts = dict(sorted({**parts, GATE_REPORT_NAME: _sha256((folder / GATE_REPORT_NAME).read_bytes())}.items()))
    _write_json(path, msgspec.structs.replace(manifest, gate=gate, parts=parts))


def read_gate(folder: Path, bundle: Bundle) -> MadeGate | None:
    """Return the gate of the bundle that was loaded from `folder`."""
    told, gate = bundle.manifest.gate, bundle.gate
    if told is None or gate is None:
        return None
    return MadeGate((folder / told.file).read_bytes(), gate.weights, gate.reasons, gate.limit)


def fits(first: Classifier, second: Classifier, pictures: np.ndarray) -> bool:
    """Return whether two networks have the same traits, to the bit, for all of these inputs; a gate of one then is of the other."""
    return all(np.array_equal(first.run(picture).traits, second.run(picture).traits) for picture in pictures)


def _golden(folder: Path, golden: Golden, graph: bytes) -> Golden:
    picture = read_pgm((folder / golden.file).read_bytes())
    scores = {name: list(Classifier(graph, new=new).run(picture).steps) for name, new in RUNTIMES.items()}
    return msgspec.structs.replace(golden, scores=scores)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
