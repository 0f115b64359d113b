"""Loading a model bundle: nothing runs before its hash is right, and no image is accepted before its golden inputs are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge.contract.bundle import Golden, Manifest
from edge.errors import BundleError
from edge.network.classify import Classifier, Scores, runtime
from edge.network.decide import Decision, Rule, decide
from edge.network.gate import GOOD, Gate, check_headers, read_weights
from edge.network.manifest import REPAIR, SHIPPED, read_manifest
from edge.network.typicality import Typicality, read_typicality
from edge.pixels.headers import NO_HEADERS, Headers
from edge.pixels.network_input import INPUT_SIDE, PREPROCESS_VERSION, Frame, read_pgm


@dataclass(frozen=True)
class Bundle:
    """A verified network and what its manifest says about it."""

    manifest: Manifest
    classifier: Classifier
    typicality: Typicality | None = None
    gate: Gate | None = None

    def decide(self, picture: Frame, threshold: float | None = None) -> Decision:
        """Return what the network makes of one network input, also of one that the device would refuse; see `scores`.

        Args:
            picture: shape (side, side), uint8, as `edge.pixels.preprocess.preprocess` gives.
            threshold: of the site; None for the bundle's own.
        """
        return self.answer(self.classifier.run(picture), threshold)

    def scores(self, picture: Frame, headers: Headers = NO_HEADERS) -> Scores:
        """Return what the network gives for a picture that it may answer: what the device does before every answer.

        Args:
            picture: as `edge.pixels.preprocess.preprocess` gives.
            headers: of the picture.

        Raises:
            Refused: if it is none that the network may answer; see `edge.network.gate`.
        """
        check_headers(headers, self.manifest.minimum_age)
        scores = self.classifier.run(picture)
        if self.gate is not None:
            self.gate.check(picture, scores.traits)
        return scores

    def answer(self, scores: Scores, threshold: float | None = None) -> Decision:
        """Return the answer to what the network gave, whatever the gate says; see `decide`."""
        manifest = self.manifest
        return decide(
            scores,
            Rule(
                classes=tuple(manifest.classes),
                temperature=manifest.temperature,
                threshold=manifest.threshold if threshold is None else threshold,
                candidate=manifest.candidate,
                typicality=self.typicality,
            ),
        )


def load_bundle(folder: Path = SHIPPED, *, threads: int = 1) -> Bundle:
    """Verify and load a bundle.

    Raises:
        BundleError: if a file is missing or changed, the bundle is for another software, or a golden input gives other scores.
    """
    manifest = read_manifest(folder)
    if manifest.preprocessing != PREPROCESS_VERSION or manifest.input_side != INPUT_SIDE:
        raise BundleError(
            f"The model in {folder} wants preprocessing {manifest.preprocessing} at {manifest.input_side} pixels, this "
            f"software has {PREPROCESS_VERSION} at {INPUT_SIDE}. Use the bundle that came with this software."
        )
    model = _verified(folder / manifest.model_file, manifest.model_sha256)
    classifier = Classifier(model, threads=threads)
    if (classifier.input_side, classifier.classes) != (manifest.input_side, len(manifest.classes)):
        raise BundleError(f"The model in {folder} does not fit its manifest (input size or number of classes). {REPAIR}")
    for name, sha256 in manifest.parts.items():
        _verified(folder / name, sha256)
    for golden in manifest.golden:
        _require_golden(folder, golden, classifier, "model")
    typicality = _typicality(folder, manifest)
    if typicality is not None and typicality.mean.size != classifier.traits:
        raise BundleError(f"The model in {folder} does not fit its file of what it has learned. {REPAIR}")
    return Bundle(manifest, classifier, typicality, _gate(folder, manifest, classifier.traits))


def _require_golden(folder: Path, golden: Golden, classifier: Classifier, what: str) -> None:
    here = runtime()
    wanted = golden.scores.get(here)
    if wanted is None:
        raise BundleError(f"The {what} in {folder} was never tried in {here}, the runtime of this machine. Install another one.")
    steps = classifier.run(read_pgm(_verified(folder / golden.file, golden.sha256))).steps
    if len(steps) != len(wanted) or max(abs(a - b) for a, b in zip(steps, wanted, strict=True)) > 1:
        raise BundleError(
            f"The {what} in {folder} gives {list(steps)} for {golden.file} instead of {wanted}: "
            f"this machine's {here} computes differently. Do not use it; report the runtime's version."
        )


def _typicality(folder: Path, manifest: Manifest) -> Typicality | None:
    known = manifest.known
    if known is None:
        return None
    return read_typicality(_verified(folder / known.file, known.sha256), known.distances, known.limit)


def _gate(folder: Path, manifest: Manifest, traits: int) -> Gate | None:
    told = manifest.gate
    if told is None:
        return None
    # One thread: it takes a fraction of a millisecond, and a second one would only have to be woken.
    classifier = Classifier(_verified(folder / told.file, told.sha256))
    if (classifier.input_side, classifier.classes, told.reasons[0]) != (manifest.input_side, len(told.reasons), GOOD):
        raise BundleError(f"The quality gate in {folder} does not fit its manifest (input size or reasons). {REPAIR}")
    for golden in told.golden:
        _require_golden(folder, golden, classifier, "quality gate")
    weights = read_weights(_verified(folder / told.weights, told.weights_sha256), len(told.reasons), traits)
    return Gate(classifier, weights, tuple(told.reasons), told.limit)


def _verified(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). {REPAIR}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path} is not the file that its manifest names (SHA-256 differs). {REPAIR}")
    return content
