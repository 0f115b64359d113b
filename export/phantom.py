"""Synthetic chest radiographs ("phantoms"), drawn from a seed: for demonstrations, tests and golden inputs.

A phantom belongs to nobody. It is drawn as a map of X-ray attenuation (thicker or denser tissue attenuates more) and shown
bone white, as the network expects. It looks like a chest to a person; it is no simulation of physics and trains no shipped network.
Positions are fractions of the picture: x from 0 (image left) to 1, y from 0 (top) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Plane = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

_DRAWN = 512
"""Pixels on a side of the attenuation map; it is resized to what is asked, so a seed gives the same anatomy at any size."""


@dataclass(frozen=True)
class Opacity:
    """A soft shadow inside the lungs.

    Attributes:
        x, y: centre, as fractions of the picture.
        radius: fraction of the picture's side, 0.02 to 0.3 is plausible.
        density: added attenuation at the centre; 0.3 is faint, 1.0 is as dense as the heart.
    """

    x: float
    y: float
    radius: float
    density: float


@dataclass(frozen=True)
class _Body:
    """The measures of one drawn patient, all as fractions of the picture's side."""

    centre: float
    width: float
    lung_top: float
    diaphragm: float
    heart: float
    rib_slope: float
    tilt: float


def phantom(seed: int, *, width: int = 1024, height: int = 1024, opacity: tuple[Opacity, ...] = ()) -> Frame:
    """Draw one frontal chest phantom.

    Args:
        seed: same seed, same size and same opacities give the same bytes.
        width: pixels, at least 16.
        height: pixels, at least 16; the anatomy is not squashed: a picture that is not square is cut out of a square one.
        opacity: shadows to add to the lungs.

    Returns:
        Shape (height, width), uint8, bone white.

    Raises:
        ValueError: if a side is shorter than 16 pixels.
    """
    if min(width, height) < 16:
        raise ValueError(f"a phantom has at least 16 pixels on a side, not {width} x {height}")
    rng = np.random.default_rng(seed)
    body = _body(rng)
    film = _film(body, rng, opacity)
    side = max(width, height)
    picture = np.asarray(Image.fromarray(film).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    left, upper = (side - width) // 2, (side - height) // 2
    picture = picture[upper : upper + height, left : left + width]
    grain = rng.normal(0.0, 1.0, picture.shape).astype(np.float32)
    exposed = picture + grain * (0.012 + 0.012 * picture)
    return np.asarray(np.clip(exposed * 235.0 + 8.0, 0, 255), dtype=np.uint8)


def random_opacities(seed: int, count: int) -> tuple[Opacity, ...]:
    """Return `count` opacities at random places of both lungs."""
    rng = np.random.default_rng(seed)
    return tuple(
        Opacity(
            x=float(0.5 + rng.choice((-1, 1)) * rng.uniform(0.14, 0.25)),
            y=float(rng.uniform(0.35, 0.66)),
            radius=float(rng.uniform(0.04, 0.11)),
            density=float(rng.uniform(0.35, 0.9)),
        )
        for _ in range(count)
    )


def _body(rng: np.random.Generator) -> _Body:
    return _Body(
        centre=float(0.5 + rng.uniform(-0.02, 0.02)),
        width=float(rng.uniform(0.36, 0.41)),
        lung_top=float(rng.uniform(0.13, 0.18)),
        diaphragm=float(rng.uniform(0.70, 0.78)),
        heart=float(rng.uniform(0.12, 0.17)),
        rib_slope=float(rng.uniform(0.10, 0.18)),
        tilt=float(rng.uniform(-2.5, 2.5)),
    )


def _film(body: _Body, rng: np.random.Generator, opacity: tuple[Opacity, ...]) -> Plane:
    """Return the exposed film, shape (side, side), 0 = air to 1 = bone over soft tissue."""
    torso = _soft(_torso_outline(body), 5)
    lungs = _soft(_lung_outline(body, -1), 4) + _soft(_lung_outline(body, 1), 4)
    lungs = np.clip(lungs, 0, 1)
    y, x = np.mgrid[0:_DRAWN, 0:_DRAWN].astype(np.float32) / _DRAWN
    thickness = np.sqrt(np.clip(1.0 - ((x - body.centre) / (body.width * 1.32)) ** 2, 0.0, 1.0))
    plane = torso * (0.20 + 0.40 * thickness + 0.25 * np.clip(y - 0.6, 0, 1))
    plane -= lungs * (0.40 + 0.12 * (0.6 - y)) * thickness
    plane += _heart(body, x, y) * 0.27
    plane += _hila(body, x, y, rng) * lungs
    plane += _ribs(body) * torso * (0.035 + 0.055 * lungs)
    plane += _spine(body, x, y) * torso
    plane += _soft(_clavicles(body), 2) * torso * 0.10
    for one in opacity:
        blob = np.exp(-(((x - one.x) ** 2 + (y - one.y) ** 2) / (2 * one.radius**2)))
        plane += lungs * blob * one.density * 0.36 * (0.75 + 0.5 * _texture(rng, 24))
    plane += (_texture(rng, 40) - 0.5) * 0.05 * torso + (_texture(rng, 6) - 0.5) * 0.05 * torso
    film = 1.28 * (1.0 - np.exp(-1.55 * np.clip(plane, 0.0, None)))  # a film saturates: dense over dense is not twice as white
    margin = _DRAWN // 32  # what the rotation turns in from outside is cut away
    tilted = Image.fromarray(film.astype(np.float32)).rotate(body.tilt, Image.Resampling.BICUBIC)
    return np.asarray(tilted, dtype=np.float32)[margin:-margin, margin:-margin].clip(0.0, 1.0)


def _canvas(points: list[tuple[float, float]]) -> Image.Image:
    picture = Image.new("L", (_DRAWN, _DRAWN))
    ImageDraw.Draw(picture).polygon([(px * _DRAWN, py * _DRAWN) for px, py in points], fill=255)
    return picture


def _soft(picture: Image.Image, blur: float) -> Plane:
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) / 255.0


def _torso_outline(body: _Body) -> Image.Image:
    """Neck, shoulders with the upper arms, and flanks."""
    c, w = body.centre, body.width
    half = [(0.085, 0.0), (0.10, 0.07), (0.30, 0.13), (0.47, 0.20), (0.51, 0.44)]
    half += [(w + 0.05, 0.37), (w + 0.03, 0.62), (w + 0.055, 1.0)]
    return _canvas([(c + dx, dy) for dx, dy in half] + [(c - dx, dy) for dx, dy in reversed(half)])


def _lung_outline(body: _Body, side: int) -> Image.Image:
    """One lung; `side` is -1 for the image left (the patient's right lung), which stands a little lower at the bottom for +1."""
    c, w, top = body.centre, body.width, body.lung_top
    low = body.diaphragm - (0.03 if side < 0 else 0.0)
    angle = np.linspace(0.0, 1.0, 24)
    outer = [(c + side * (0.07 + (w - 0.08) * np.sin(t * np.pi / 2) ** 0.75), top + (low + 0.07 - top) * t**1.5) for t in angle]
    dome = [(c + side * (w - 0.01 - (w - 0.07) * t), low + 0.07 - 0.09 * np.sin(t * np.pi / 2) ** 0.8) for t in angle]
    inner = [(c + side * (0.06 + 0.012 * np.sin(t * np.pi)), low - 0.02 - (low - 0.02 - top) * t) for t in angle]
    return _canvas([(float(px), float(py)) for px, py in outer + dome + inner])


def _heart(body: _Body, x: Plane, y: Plane) -> Plane:
    """A tilted ellipse, most of it on the image right (the patient's left), and the great vessels above."""
    dx, dy = x - (body.centre + 0.055), y - (body.diaphragm - 0.13)
    u, v = dx * 0.86 + dy * 0.5, dy * 0.86 - dx * 0.5
    inside = np.minimum((u / (body.heart * 1.18)) ** 2 + (v / (body.heart * 0.92)) ** 2, 6.0)
    vessels = np.minimum(((x - body.centre - 0.012) / 0.055) ** 2 + ((y - body.lung_top - 0.20) / 0.2) ** 2, 6.0)
    return np.asarray(1 / (1 + np.exp((inside - 1) * 9)) + 0.6 / (1 + np.exp((vessels - 1) * 6)), dtype=np.float32).clip(0, 1)


def _hila(body: _Body, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Vessels that leave the hila and thin out towards the edge of the lungs."""
    picture = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        for _ in range(26):
            px, py = body.centre + side * 0.07, float(rng.uniform(0.40, 0.52))
            heading, thick = float(rng.uniform(-1.25, 1.25)), float(rng.uniform(3.0, 6.0))
            while thick > 0.9:
                qx, qy = px + side * 0.022 * np.cos(heading), py + 0.022 * np.sin(heading)
                ends = [(px * _DRAWN, py * _DRAWN), (qx * _DRAWN, qy * _DRAWN)]
                draw.line(ends, fill=int(60 + 22 * thick), width=int(thick + 0.5))
                px, py, thick = float(qx), float(qy), thick * 0.86
                heading += float(rng.normal(0, 0.22))
    glow = np.exp(-(((np.abs(x - body.centre) - 0.10) / 0.055) ** 2 + ((y - 0.46) / 0.085) ** 2))
    return np.asarray(_soft(picture, 1.6) * 0.16 + glow * 0.10, dtype=np.float32)


def _ribs(body: _Body) -> Plane:
    """Nine pairs: the rear part falls slowly from the spine, the front part turns back steeply towards the middle."""
    picture = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(picture)
    for number in range(9):
        start = body.lung_top - 0.025 + number * 0.066
        reach = body.width * min(1.0, 0.52 + 0.14 * number)
        for side in (-1, 1):
            along = np.linspace(0, 1, 20)
            rear = [(0.03 + (reach - 0.03) * t, start - 0.03 * np.sin(t * np.pi) + body.rib_slope * t**1.6) for t in along]
            front = [(reach * (1 - 0.62 * t), start + body.rib_slope + 0.14 * t) for t in along]
            for line, fill, thick in ((rear, 230, 11), (front, 120, 10)):
                points = [((body.centre + side * px) * _DRAWN, py * _DRAWN) for px, py in line]
                draw.line(points, fill=fill, width=thick, joint="curve")
    edge = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.3)), dtype=np.float32)
    core = np.asarray(picture.filter(ImageFilter.GaussianBlur(5.0)), dtype=np.float32)
    return np.clip((edge * 1.35 - core * 0.45) / 255.0, 0, 1)


def _spine(body: _Body, x: Plane, y: Plane) -> Plane:
    """The vertebral column with its discs, and the dark windpipe in front of it."""
    column = 1 / (1 + np.exp((np.abs(x - body.centre) - 0.042) * 160))
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * y / 0.062)
    windpipe = np.exp(-(((x - body.centre) / 0.019) ** 2)) / (1 + np.exp((y - body.lung_top - 0.15) * 40))
    return np.asarray(column * (0.13 + 0.035 * discs) - 0.14 * windpipe, dtype=np.float32)


def _clavicles(body: _Body) -> Image.Image:
    picture = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        line = [(0.04 + 0.33 * t, body.lung_top + 0.055 - 0.075 * t + 0.03 * np.sin(t * 2 * np.pi)) for t in np.linspace(0, 1, 16)]
        draw.line([((body.centre + side * px) * _DRAWN, py * _DRAWN) for px, py in line], fill=230, width=13, joint="curve")
    return picture


def _texture(rng: np.random.Generator, cells: int) -> Plane:
    """Smooth random values in 0..1 with `cells` bumps along a side."""
    coarse = rng.uniform(0.0, 1.0, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((_DRAWN, _DRAWN), Image.Resampling.BICUBIC), dtype=np.float32).clip(0, 1)
