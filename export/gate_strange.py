"""Pictures from nowhere near a chest, of kinds that no gate has learned: drawn ones, and the test files of pydicom."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import pydicom.data
from PIL import Image, ImageDraw, ImageFont

import edge.pixels.dicom_pixels
from edge.errors import ImageError, Refused
from edge.network.classify import Classifier
from edge.network.gate import Gate
from edge.pixels.decode import Decoded, decode_file
from edge.pixels.preprocess import preprocess_image
from edge.pixels.quality import check_quality
from export.phantom import phantom

_EACH = 20
_SIDE = 512
_PHANTOMS = 90_000
"""Seed; none of these is learned from."""


def strange_things(classifier: Classifier, gate: Gate) -> dict[str, dict[str, int]]:
    """Return kind -> number of pictures, how many the device refuses, and how many of these by the gate.

    Drawn chests the right way up are among them; those are not to be refused.
    """
    rows: dict[str, Counter[str]] = {}
    for kind, picture in _things():
        row = rows.setdefault(kind, Counter(pictures=0, refused=0, by_gate=0))
        row["pictures"] += 1
        try:
            check_quality(picture)
        except Refused:
            row["refused"] += 1
            continue
        given = np.asarray(preprocess_image(picture.image))
        try:
            gate.check(given, classifier.run(given).traits)
        except Refused:
            row.update(refused=1, by_gate=1)
    return {kind: dict(row) for kind, row in rows.items()}


def _things() -> Iterator[tuple[str, Decoded]]:
    rng = np.random.default_rng(0)
    for number in range(_EACH):
        drawn = Image.fromarray(phantom(_PHANTOMS + number, width=_SIDE, height=_SIDE))
        yield "drawn chest, upright", Decoded(drawn)
        yield "drawn chest, upside down", Decoded(drawn.transpose(Image.Transpose.ROTATE_180))
        yield "drawn chest, on its side", Decoded(drawn.transpose(Image.Transpose.ROTATE_90))
        yield "noise", Decoded(Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)))
        yield "clouds", Decoded(_clouds(rng))
        yield "gradient", Decoded(_gradient(rng))
        yield "page of text", Decoded(_page(rng))
    # Those that come with the package; pydicom's own function would fetch further ones.
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm")):
        if (found := _of_pydicom(path)) is not None:
            yield found


def _of_pydicom(path: Path) -> tuple[str, Decoded] | None:
    """Return modality and picture of a test file as if its modality were not looked at; None if the device cannot decode it."""
    any_modality = mock.MagicMock(__contains__=lambda _self, _name: True)
    logging.disable(logging.CRITICAL)  # many of these files are damaged on purpose
    try:
        with warnings.catch_warnings(), mock.patch.object(edge.pixels.dicom_pixels, "_RADIOGRAPHS", any_modality):
            warnings.simplefilter("ignore")
            picture = decode_file(path)
            modality = str(pydicom.dcmread(path, stop_before_pixels=True).get("Modality", "")) or "none"
    except ImageError:
        return None
    finally:
        logging.disable(logging.NOTSET)
    return f"pydicom test file, modality {modality}", picture


def _clouds(rng: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    return coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _gradient(rng: np.random.Generator) -> Image.Image:
    across, down = rng.uniform(-1, 1, 2)
    y, x = np.mgrid[0:1:512j, 0:1:512j]
    plane = across * x + down * y
    return Image.fromarray(((plane - plane.min()) / np.ptp(plane) * 255).astype(np.uint8))


def _page(rng: np.random.Generator) -> Image.Image:
    page = Image.new("L", (_SIDE, _SIDE), 250)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=16)
    for line in range(int(rng.integers(8, 24))):
        words = " ".join("".join(rng.choice(list("etaoinshrdlu"), int(rng.integers(2, 9)))) for _ in range(9))
        draw.text((30, 30 + 20 * line), words, fill=20, font=font)
    return page
