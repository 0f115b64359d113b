"""Writes a model bundle: the int8 file, golden inputs with their scores, the manifest, the licence of the weights, the card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge.classify import Classifier
from edge.contract.bundle import MANIFEST_NAME, Golden, Known, Manifest
from edge.network_input import INPUT_SIDE, PREPROCESS_VERSION, write_pgm
from edge.preprocess import preprocess
from export.card import INTENDED_USE, LICENCE, TRAINED_ON, headline, model_card
from export.phantom import phantom, random_opacities

if TYPE_CHECKING:
    from export.model import Finished

MODEL_NAME = "model.tflite"
KNOWN_NAME = "known.f32"
MINIMUM_SOFTWARE = "0.1.0"
"""The first version whose devices apply typicality and conformal sets."""
REPORT_NAME = "report.json"
CARD_NAME = "MODEL_CARD.md"

_GOLDEN = {"clear": (11, 0), "opacities": (12, 3), "dense": (13, 9)}
"""Name of a golden input: seed of its phantom, number of opacities."""


def write_bundle(folder: Path, model: Finished, report: dict[str, Any], *, version: str) -> None:
    """Write a whole bundle into `folder`, which is made; files of an earlier bundle are replaced.

    Args:
        folder: where to write.
        model: the network and its calibration.
        report: of `export.chest.make_chest`; the manifest's metrics and the card are written from it.
        version: of the model.
    """
    golden_folder = folder / "golden"
    golden_folder.mkdir(parents=True, exist_ok=True)
    for earlier in golden_folder.glob("*.p*"):
        earlier.unlink()
    graph, known = model.graph, model.typicality.to_bytes()
    (folder / MODEL_NAME).write_bytes(graph)
    (folder / KNOWN_NAME).write_bytes(known)
    manifest = Manifest(
        name="chest",
        version=version,
        model_file=MODEL_NAME,
        model_sha256=hashlib.sha256(graph).hexdigest(),
        input_side=INPUT_SIDE,
        preprocessing=PREPROCESS_VERSION,
        classes=list(report["classes"]),
        minimum_software=MINIMUM_SOFTWARE,
        temperature=model.temperature,
        threshold=model.candidate,
        candidate=model.candidate,
        miscoverage=report["miscoverage"],
        sensitivity=model.sensitivity,
        known=Known(
            file=KNOWN_NAME,
            sha256=hashlib.sha256(known).hexdigest(),
            distances=list(model.typicality.distances),
            limit=model.typicality.limit,
        ),
        golden=[_golden(golden_folder, name, graph) for name in sorted(_GOLDEN)],
        trained_on=list(TRAINED_ON),
        licence="see LICENSE: research use only, not a medical device",
        intended_use=INTENDED_USE,
        metrics=headline(report),
    )
    _write_json(folder / MANIFEST_NAME, manifest)
    _write_json(folder / REPORT_NAME, report)
    (folder / "LICENSE").write_text(LICENCE, encoding="utf-8")
    (folder / CARD_NAME).write_text(model_card(report), encoding="utf-8")


def _golden(folder: Path, name: str, graph: bytes) -> Golden:
    seed, opacities = _GOLDEN[name]
    picture = preprocess(phantom(seed, opacity=random_opacities(seed, opacities)))
    path = folder / f"{name}.pgm"
    path.write_bytes(write_pgm(picture))
    scores = Classifier(graph).run(picture).steps
    return Golden(file=f"golden/{path.name}", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), scores=list(scores))


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
