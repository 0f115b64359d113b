"""Pictures that a device is to refuse, made of good ones, and harmless changes of good ones that it is not to refuse.

What is wrong is what clinics send: films scanned on their side or upside down, exported inverted, cut off, blurred by a moving
patient, badly exposed or windowed, with annotations burned in. What is harmless is what another console or sender would do.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from edge.network.gate import GOOD

Rng = np.random.Generator
Transpose = Image.Transpose

REASON_OF = {
    GOOD: GOOD,
    "harmless": GOOD,
    "ct": "not_a_chest",
    "photo": "not_a_chest",
    "rot90": "on_its_side",
    "rot270": "on_its_side",
    "rot180": "upside_down",
    "inverted": "inverted",
    "crop": "cut_off",
    "cut": "cut_off",
    "blur": "blurred",
    "dark": "too_dark",
    "text": "text_over_lungs",
}
"""Kind of view -> reason code."""

REASONS = tuple(dict.fromkeys(REASON_OF.values()))
"""In the order of the gate's scores."""

HARMLESS = 3
"""Harmless views of each good picture."""

_LONGER_SIDE = 512
"""Pixels; the network's input has fewer on a side, and larger pictures only take longer to change."""
_LETTERS = list("ABCDEFGHKLMNOPRSTUVW0123456789 :/")


@dataclass(frozen=True)
class View:
    """One picture of a kind in REASON_OF, mode L, bone white where it is good."""

    kind: str
    image: Image.Image


def views_of(image: Image.Image, rng: Rng) -> Iterator[View]:
    """Yield a good picture as it is, changed harmlessly, and wrong in every way.

    Args:
        image: mode L.
        rng: of all changes.
    """
    image = _limited(image)
    yield View(GOOD, image)
    for _ in range(HARMLESS):
        yield View("harmless", harmless(image, rng))

    def base() -> Image.Image:
        return harmless(image, rng) if rng.random() < 0.5 else image

    for kind, way in (("rot90", Transpose.ROTATE_90), ("rot180", Transpose.ROTATE_180), ("rot270", Transpose.ROTATE_270)):
        yield View(kind, base().transpose(way))
    yield View("inverted", ImageOps.invert(base()))
    yield View("crop", _window(base(), rng, rng.uniform(0.35, 0.6)))
    yield View("cut", _cut(base(), rng))
    yield View("blur", image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0.012, 0.04))))
    yield View("dark", _gamma(image, rng.uniform(4, 8)))
    yield View("text", _written_over(base(), rng))


def views_of_no_chest(kind: str, image: Image.Image, rng: Rng, count: int = HARMLESS) -> Iterator[View]:
    """Yield a picture of something else as it is, and `count` times cut, turned and lit otherwise."""
    image = _limited(image)
    yield View(kind, image)
    for _ in range(count):
        part = _window(image, rng, rng.uniform(0.6, 1.0))
        for chance, change in ((0.5, ImageOps.mirror), (0.3, _upright), (0.3, ImageOps.invert)):
            part = change(part) if rng.random() < chance else part
        yield View(kind, _gamma(part, 2 ** rng.uniform(-0.8, 0.8)))


def harmless(image: Image.Image, rng: Rng) -> Image.Image:
    """Return a good picture as another console, scanner or sender might have made it."""
    if rng.random() < 0.5:
        fill = int(rng.choice([0, 0, 0, 255]))
        image = image.rotate(rng.uniform(-10, 10), resample=Image.Resampling.BILINEAR, fillcolor=fill)
    width, height = image.size
    left, upper, right, lower = rng.uniform(-0.06, 0.08, 4)
    image = image.crop((int(left * width), int(upper * height), int((1 - right) * width), int((1 - lower) * height)))
    image = _gamma(image, 2 ** rng.uniform(-0.7, 0.7))
    if rng.random() < 0.4:
        image = Image.blend(image, ImageOps.equalize(image), rng.uniform(0, 0.6))
    sharpness = rng.random()
    if sharpness < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0, 0.003)))
    elif sharpness < 0.6:
        image = image.filter(ImageFilter.UnsharpMask(rng.uniform(1, 4), int(rng.uniform(30, 150)), 0))
    if rng.random() < 0.4:
        values = np.asarray(image, np.float32)
        image = Image.fromarray((values + rng.normal(0, rng.uniform(0, 6), values.shape)).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        _frame(image, rng)
    if rng.random() < 0.4:
        _marker(image, rng)
    return _compressed(image, int(rng.integers(40, 95))) if rng.random() < 0.3 else image


def _limited(image: Image.Image) -> Image.Image:
    scale = _LONGER_SIDE / max(image.size)
    return image if scale >= 1 else image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)


def _upright(image: Image.Image) -> Image.Image:
    return image.transpose(Transpose.ROTATE_90)


def _gamma(image: Image.Image, power: float) -> Image.Image:
    return image.point([round(255 * (value / 255) ** power) for value in range(256)])


def _window(image: Image.Image, rng: Rng, share: float) -> Image.Image:
    """Return a part of `share` of either side, somewhere."""
    width, height = image.size
    left, upper = int(rng.uniform(0, 1 - share) * width), int(rng.uniform(0, 1 - share) * height)
    return image.crop((left, upper, left + int(share * width), upper + int(share * height)))


def _cut(image: Image.Image, rng: Rng) -> Image.Image:
    """Return a picture on which one side of the chest is missing; half of the time its place is black."""
    width, height = image.size
    lost = rng.uniform(0.35, 0.5)
    box = [0, 0, width, height]
    side = int(rng.integers(4))
    length = (width, height)[side % 2]
    box[side] = int(lost * length) if side < 2 else int((1 - lost) * length)
    part = image.crop((box[0], box[1], box[2], box[3]))
    if rng.random() < 0.5:
        return part
    full = Image.new("L", image.size)
    full.paste(part, (box[0], box[1]))
    return full


def _written_over(image: Image.Image, rng: Rng) -> Image.Image:
    image = image.copy()
    draw = ImageDraw.Draw(image)
    width, height = image.size
    for _ in range(int(rng.integers(3, 8))):
        words = "".join(rng.choice(_LETTERS, int(rng.integers(8, 18))))
        place = (width * rng.uniform(0.15, 0.45), height * rng.uniform(0.25, 0.65))
        draw.text(place, words, fill=int(rng.choice([255, 255, 0])), font=_font(height * rng.uniform(0.04, 0.08)))
    return image


def _frame(image: Image.Image, rng: Rng) -> None:
    """Draw a border, or bars at two sides, as senders do that make every picture square."""
    draw, (width, height) = ImageDraw.Draw(image), image.size
    shade, thick = int(rng.choice([0, 0, 128, 255])), int(min(width, height) * rng.uniform(0.01, 0.06))
    bars = [(0, 0, width, thick), (0, height - thick, width, height), (0, 0, thick, height), (width - thick, 0, width, height)]
    for bar in (bars, bars[:2], bars[2:])[int(rng.integers(3))]:
        draw.rectangle(bar, fill=shade)


def _marker(image: Image.Image, rng: Rng) -> None:
    place = (image.width * rng.choice([0.03, 0.85]), image.height * rng.choice([0.03, 0.9]))
    words = str(rng.choice(["R", "L", "AP", "PA ERECT", "AP SUPINE", "17:04"]))
    ImageDraw.Draw(image).text(place, words, fill=255, font=_font(image.height * rng.uniform(0.03, 0.07)))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(10, int(size)))


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")
