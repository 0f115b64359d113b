"""A bundle scored on labelled pictures by the device's own code: its quality gate, preprocessing, network and thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import ImageError, Refused
from edge.network.bundle import Bundle
from edge.pixels.decode import decode_file
from edge.pixels.preprocess import preprocess_image
from edge.pixels.quality import check_quality
from export import controls
from export.dataset import Pixels, Sample, load_lungs
from export.errors import DataError
from export.layouts.registry import find_layout, read_all, read_folder
from export.predictions import Condition, Predictions, as_picture

EXTERNAL = "external"


@dataclass(frozen=True)
class Seen:
    """Pictures as the device sees them.

    samples: those that it accepts, in order. pixels: shape (n, side, side). sizes: (width, height) of the files.
    refused: reason code -> how many it refuses or cannot read.
    """

    samples: list[Sample]
    pixels: Pixels
    sizes: list[tuple[int, int]]
    refused: dict[str, int]


def read_all_labels(folder: Path) -> list[Sample]:
    """Return all samples of a folder, in any layout, also those whose label no network here knows.

    Raises:
        DataError: as `export.layouts.registry.read_folder`.
    """
    labels = dict.fromkeys(sample.label for sample in read_all(folder, find_layout(folder)))
    return read_folder(folder, tuple(label for label in labels if label))


def look(samples: Sequence[Sample], side: int) -> Seen:
    """Decode, check and preprocess as the device does.

    Raises:
        DataError: if it accepts none of the pictures.
    """
    kept, pixels, sizes, refused = [], [], [], Counter[str]()
    for sample in samples:
        try:
            picture = decode_file(sample.file)
            check_quality(picture)
        except ImageError as error:
            refused[error.reason] += 1
            continue
        kept.append(sample)
        sizes.append(picture.image.size)
        pixels.append(np.asarray(preprocess_image(picture.image, side)))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.items()) or "there are none"
        raise DataError(f"The device would accept none of the labelled pictures ({reasons}).")
    return Seen(kept, np.stack(pixels), sizes, dict(refused))


def behind_gate(bundle: Bundle, seen: Seen) -> Seen:
    """Return the pictures that the bundle's own gate lets through; the others are among the refused."""
    if bundle.gate is None:
        return seen
    kept, refused = [], Counter(seen.refused)
    for place, picture in enumerate(seen.pixels):
        try:
            bundle.gate.check(picture, bundle.classifier.run(picture).traits)
        except Refused as error:
            refused[error.reason] += 1
        else:
            kept.append(place)
    return Seen([seen.samples[i] for i in kept], seen.pixels[kept], [seen.sizes[i] for i in kept], dict(refused))


def conditions(seen: Seen) -> dict[Condition, tuple[list[Sample], Pixels]]:
    """Return the whole pictures and those with less in them; without the lungs only where there are masks."""
    masked = [place for place, sample in enumerate(seen.samples) if sample.lung_mask is not None]
    result: dict[Condition, tuple[list[Sample], Pixels]] = {
        "whole": (seen.samples, seen.pixels),
        "centre_out": (seen.samples, controls.centre_out(seen.pixels)),
        "border_only": (seen.samples, controls.border_only(seen.pixels)),
        "shape_only": (seen.samples, controls.shape_only(seen.sizes, seen.pixels.shape[1])),
    }
    if masked:
        chosen = [seen.samples[place] for place in masked]
        result["lungs_out"] = (chosen, controls.lungs_out(seen.pixels[masked], load_lungs(chosen)))
    return result


def score_bundle(bundle: Bundle, seen: Seen, *, protocol: str, fold: int = 0, network: str = "") -> list[Predictions]:
    """Return the answers of a bundle under every condition. Nothing is tuned: temperature and threshold are the bundle's own.

    Args:
        bundle: of `edge.network.bundle.load_bundle`.
        seen: the pictures.
        protocol: what is said of them; EXTERNAL for a place that nothing was learned from.
        fold: number of the model.
        network: what it is called; the bundle's name and version if empty.
    """
    manifest = bundle.manifest
    result = []
    for condition, (samples, pixels) in conditions(seen).items():
        scores = [bundle.classifier.run(picture) for picture in pixels]
        result.append(
            Predictions(
                network=network or f"{manifest.name} {manifest.version}",
                classes=list(manifest.classes),
                protocol=protocol,
                grouped=True,
                precision="int8",
                condition=condition,
                pictures=[as_picture(sample) for sample in samples],
                fold=[fold] * len(samples),
                logits=[one.logits.astype(np.float64).tolist() for one in scores],
                temperature=[manifest.temperature] * len(samples),
                threshold=[manifest.threshold] * len(samples),
                answered=[not bundle.answer(one).abstained for one in scores],
            )
        )
    return result
