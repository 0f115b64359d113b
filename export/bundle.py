"""Writes a model bundle: the int8 file, golden inputs with their scores, the manifest, the licence of the weights, the card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edge.contract.bundle import MANIFEST_NAME, Golden, Known, Manifest
from edge.network.classify import Classifier
from edge.network.typicality import Typicality
from edge.pixels.network_input import INPUT_SIDE, PREPROCESS_VERSION, write_pgm
from edge.pixels.preprocess import preprocess
from export.card import INTENDED_USE, LICENCE, TRAINED_ON, headline, model_card
from export.dataset import ADULT
from export.gate_files import GATE_NAME, GATE_REPORT_NAME, WEIGHTS_NAME
from export.phantom import phantom, random_opacities
from export.runtimes import RUNTIMES

MODEL_NAME = "model.tflite"
KNOWN_NAME = "known.f32"
MINIMUM_SOFTWARE = "0.1.0"
"""The first version whose devices apply typicality and conformal sets."""
REPORT_NAME = "report.json"
CARD_NAME = "MODEL_CARD.md"
LICENCE_NAME = "LICENSE"

_GOLDEN = {"clear": (11, 0), "opacities": (12, 3), "dense": (13, 9)}
"""Name of a golden input: seed of its phantom, number of opacities."""


class Calibrated(Protocol):
    """A network's int8 file and what turns its scores into answers; see `edge.contract.bundle.Manifest`."""

    @property
    def graph(self) -> bytes:
        """The int8 file."""
        ...

    @property
    def temperature(self) -> float:
        """Of the softmax."""
        ...

    @property
    def candidate(self) -> float:
        """Of the conformal sets."""
        ...

    @property
    def sensitivity(self) -> dict[str, dict[str, float]]:
        """Thresholds."""
        ...

    @property
    def typicality(self) -> Typicality | None:
        """None where the network gives no traits."""
        ...


@dataclass(frozen=True)
class Words:
    """What a bundle says of itself.

    metrics: of the manifest. licence: one line of it; licence_text: the whole, empty where there is none. card: MODEL_CARD.md.
    report: report.json. beside: further text files, name -> content. minimum_age: in years, of patients that it has learned from.
    """

    name: str
    version: str
    classes: Sequence[str]
    miscoverage: float
    trained_on: Sequence[str]
    licence: str
    licence_text: str
    intended_use: str
    metrics: dict[str, Any]
    card: str
    report: Mapping[str, Any]
    beside: Mapping[str, str] = field(default_factory=dict)
    minimum_age: int = 0


def write_bundle(folder: Path, model: Calibrated, report: dict[str, Any], *, version: str) -> None:
    """Write the chest bundle into `folder`, which is made; files of an earlier bundle are replaced.

    Args:
        folder: where to write.
        model: the network and its calibration.
        report: of `export.chest.make_chest`; the manifest's metrics and the card are written from it.
        version: of the model.
    """
    words = Words(
        name="chest",
        version=version,
        classes=report["classes"],
        miscoverage=report["miscoverage"],
        trained_on=TRAINED_ON,
        minimum_age=ADULT,
        licence="see LICENSE: research use only, not a medical device",
        licence_text=LICENCE,
        intended_use=INTENDED_USE,
        metrics=headline(report),
        card=model_card(report),
        report=report,
    )
    write_files(folder, model, words)


def write_files(folder: Path, model: Calibrated, words: Words) -> None:
    """Write a whole bundle into `folder`, which is made; files of an earlier bundle are replaced, and its gate is removed."""
    golden_folder = folder / "golden"
    golden_folder.mkdir(parents=True, exist_ok=True)
    for earlier in golden_folder.glob("*.p*"):
        earlier.unlink()
    for name in (GATE_NAME, WEIGHTS_NAME, GATE_REPORT_NAME):
        (folder / name).unlink(missing_ok=True)
    (folder / MODEL_NAME).write_bytes(model.graph)
    _write_json(folder / REPORT_NAME, words.report)
    texts = {CARD_NAME: words.card, LICENCE_NAME: words.licence_text, **words.beside}
    for name, text in texts.items():
        if text:
            (folder / name).write_text(text, encoding="utf-8")
    manifest = Manifest(
        name=words.name,
        version=words.version,
        model_file=MODEL_NAME,
        model_sha256=hashlib.sha256(model.graph).hexdigest(),
        input_side=INPUT_SIDE,
        preprocessing=PREPROCESS_VERSION,
        classes=list(words.classes),
        minimum_software=MINIMUM_SOFTWARE,
        temperature=model.temperature,
        threshold=model.candidate,
        candidate=model.candidate,
        miscoverage=words.miscoverage,
        sensitivity=model.sensitivity,
        known=_known(folder, model.typicality) if model.typicality is not None else None,
        minimum_age=words.minimum_age,
        golden=[_golden(golden_folder, name, model.graph) for name in sorted(_GOLDEN)],
        parts={name: _sha256(folder / name) for name in sorted([REPORT_NAME, *(name for name in texts if texts[name])])},
        trained_on=list(words.trained_on),
        licence=words.licence,
        intended_use=words.intended_use,
        metrics=words.metrics,
    )
    _write_json(folder / MANIFEST_NAME, manifest)


def write_card(folder: Path, card: str) -> None:
    """Write another MODEL_CARD.md into a bundle, whose manifest then names it."""
    (folder / CARD_NAME).write_text(card, encoding="utf-8")
    _name_part(folder, CARD_NAME)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write another report.json into a bundle, whose manifest then names it."""
    _write_json(folder / REPORT_NAME, report)
    _name_part(folder, REPORT_NAME)


def _name_part(folder: Path, name: str) -> None:
    manifest = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=Manifest)
    parts = manifest.parts | {name: _sha256(folder / name)}
    _write_json(folder / MANIFEST_NAME, msgspec.structs.replace(manifest, parts=parts))


def _known(folder: Path, typicality: Typicality) -> Known:
    content = typicality.to_bytes()
    (folder / KNOWN_NAME).write_bytes(content)
    return Known(
        file=KNOWN_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        distances=list(typicality.distances),
        limit=typicality.limit,
    )


def _golden(folder: Path, name: str, graph: bytes) -> Golden:
    seed, opacities = _GOLDEN[name]
    picture = preprocess(phantom(seed, opacity=random_opacities(seed, opacities)))
    path = folder / f"{name}.pgm"
    path.write_bytes(write_pgm(picture))
    scores = {name: list(Classifier(graph, new=new).run(picture).steps) for name, new in RUNTIMES.items()}
    return Golden(file=f"golden/{path.name}", sha256=_sha256(path), scores=scores)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
