"""The manifest of a model bundle: what `cxr-export` writes and a device verifies before it loads anything."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge.contract.types import ClassName, Digest, Probability

BUNDLE_SCHEMA = 2
"""2: golden scores for each runtime, the hashes of all other parts."""
MANIFEST_NAME = "manifest.json"

Runtime = Literal["ai-edge-litert", "tflite-runtime"]
Steps = Annotated[list[Annotated[int, Meta(ge=-128, le=127)]], Meta(min_length=2, max_length=32)]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A network input and the int8 scores that it must give in each runtime.

    The runtimes round otherwise inside the network, several steps apart in the end (ADR 0012), so each has scores of its own. From
    those it may be one step away, for a processor whose kernels were not at hand.
    """

    file: Annotated[str, Meta(pattern=r"^golden/[a-z0-9_-]+\.pgm$", description="binary PGM, 8 bits, of the input size")]
    sha256: Digest
    scores: dict[Runtime, Steps]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the network has learned, by which a device tells a picture of another kind (see `edge.network.typicality`)."""

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\.f32$", description="mean and whitening matrix, little-endian float32")]
    sha256: Digest
    distances: Annotated[list[float], Meta(min_length=1, description="of pictures that it has not learned from, ascending")]
    limit: Annotated[Probability, Meta(description="below this typicality the device abstains")]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What tells a whole frontal chest radiograph, the right way up, from other pictures (see `edge.network.gate`).

    golden: the inputs of `Manifest.golden` with the int8 scores of this graph.
    """

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\.tflite$", description="int8 graph of the picture")]
    sha256: Digest
    weights: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\.f32$", description="of the traits; a row a reason, its bias last")]
    weights_sha256: Digest
    reasons: Annotated[
        list[Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$")]],
        Meta(min_length=2, max_length=32, description="reason codes in the order of the scores, `good` first"),
    ]
    limit: Annotated[Probability, Meta(description="below this probability of `good` the device refuses")]
    golden: Annotated[list[Golden], Meta(min_length=1)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a device needs to know about a network, and what people should know before they trust it."""

    schema: int = BUNDLE_SCHEMA
    name: Annotated[str, Meta(max_length=64)]
    version: Annotated[str, Meta(max_length=32)]
    minimum_software: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+$", description="oldest version that applies all of this")] = (
        "0.1.0"
    )
    model_file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\.tflite$")]
    model_sha256: Digest
    input_side: Annotated[int, Meta(ge=1, le=2048)]
    preprocessing: Annotated[int, Meta(ge=1)]
    classes: Annotated[list[ClassName], Meta(min_length=2, max_length=32)]
    temperature: Annotated[float, Meta(gt=0.0, description="divides the logits before the softmax")]
    threshold: Annotated[Probability, Meta(description="below this highest probability the device abstains")]
    candidate: Annotated[
        Probability,
        Meta(description="a class of at least this probability is in the conformal set; with two in it the device abstains"),
    ] = 1.0
    miscoverage: Annotated[Probability | None, Meta(description="share of pictures whose class may be outside the set")] = None
    sensitivity: Annotated[
        dict[ClassName, dict[str, Probability]],
        Meta(description='class -> "0.90" -> probability from which that share of its held-out pictures is found'),
    ] = {}
    known: Known | None = None
    gate: Gate | None = None
    minimum_age: Annotated[int, Meta(ge=0, le=130, description="years; the network has not learned from younger patients")] = 0
    golden: Annotated[list[Golden], Meta(min_length=1)]
    parts: Annotated[
        dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")], Digest],
        Meta(description="every file of the folder that is not named above: card, report, licence"),
    ] = {}
    trained_on: list[str]
    licence: str
    intended_use: str
    metrics: dict[str, Any]
