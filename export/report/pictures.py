"""Sample pictures with what a network looked at laid over them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from export.metrics import Floats
from export.report.inputs import HeatMap, SamplePicture
from export.report.words import class_name

_HOT = np.array([255.0, 120.0, 0.0])
"""Orange over gray is seen with every kind of colour vision, and printed in gray it is still brighter."""
_STRONGEST = 0.65


@dataclass(frozen=True)
class Panel:
    """One picture of a sample: the film itself, or the film with heat."""

    title: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Shown:
    """One sample, ready for a page. outcome: right, wrong or not sure."""

    outcome: str
    sentence: str
    dataset: str
    panels: tuple[Panel, ...]
    files: dict[str, bytes]


def show(sample: SamplePicture, number: int) -> Shown:
    """Return the film and one overlay for each heat."""
    right = sample.answer == sample.label
    outcome = "not sure" if sample.abstained else "right" if right else "wrong"
    chances = ", ".join(f"{class_name(name)} {chance:.0%}" for name, chance in sample.probabilities.items())
    said = (
        f"hands it to a radiologist (would have said {class_name(sample.answer)})"
        if sample.abstained
        else class_name(sample.answer)
    )
    sentence = f"Its label is {class_name(sample.label)}; the network says: {said}. {chances}."
    panels = [Panel("the picture", f"Chest radiograph. {sentence}", sample.picture)]
    for heat in sample.heat:
        where = f"{heat.method}, {heat.network}"
        panels.append(
            Panel(where, f"The same radiograph; orange is where the network looked ({where}).", overlay(sample.picture, heat))
        )
    files = {f"sample-{number}-{place}.png": panel.png for place, panel in enumerate(panels)}
    return Shown(outcome, sentence, sample.dataset, tuple(panels), files)


def overlay(picture: bytes, heat: HeatMap) -> bytes:
    """Return the picture with the positive heat in orange, strongest where it is highest; PNG."""
    with Image.open(io.BytesIO(picture)) as film:
        gray = np.asarray(film.convert("L"), dtype=np.float64)
    strength = stretched(np.array(heat.values, dtype=np.float64), gray.shape[1], gray.shape[0])[..., np.newaxis] * _STRONGEST
    mixed = gray[..., np.newaxis] * (1 - strength) + _HOT * strength
    out = io.BytesIO()
    Image.fromarray(np.asarray(mixed.round(), dtype=np.uint8)).save(out, format="PNG", optimize=True)
    return out.getvalue()


def stretched(heat: Floats, width: int, height: int) -> Floats:
    """Return the positive part of a map, 0..1, at the size of a picture; all 0 where nothing is positive."""
    positive = np.maximum(heat, 0.0)
    if positive.max() > 0:
        positive = positive / positive.max()
    image = Image.fromarray(positive.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(image, dtype=np.float64), 0.0, 1.0)


def png(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Return a gray picture, shape (height, width), as PNG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG", optimize=True)
    return out.getvalue()
