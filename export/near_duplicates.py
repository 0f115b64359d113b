"""The same exposure saved twice: copies that a split by patient does not see, because their codes differ.

A picture is compared by its detail: at 32 and then at 64 pixels a side, less its surroundings' mean (so that neither exposure nor
the shape that all chests share counts), clipped (so that a marker or a line of text does not outweigh the rest), within a disc (so
that the corners of a turned copy do not count). Likeness is the correlation of two such pictures, -1..1.

Why not a difference hash: chests are too alike for 64 bits. Of the 6101 pictures of the four sets used here, 260,449 pairs of
different patients differ in 4 bits or fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter

from export.dataset import Pixels, Sample
from export.splits import Split

_COARSE_SIDE, _FINE_SIDE = 32, 64
_COARSE_WINDOW, _FINE_WINDOW = 9, 17
"""Pixels of the surroundings whose mean is taken away."""
_CLIP = 2.0
"""Standard deviations."""
COARSE = 0.75
"""Likeness at 32 pixels that makes two pictures worth a look at 64."""
_BLOCK = 512
"""Pictures compared with all others at a time: 6,000 take 12 MB."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two pictures, by their index, the first the lower."""

    first: int
    second: int
    likeness: float


@dataclass(frozen=True)
class View:
    """One way to look at a picture. cut: share of the side that is left out at each border. angle: degrees. flip: left for right.

    right, down: by how much of the side the part that is left is moved.
    """

    cut: float = 0.0
    angle: float = 0.0
    flip: bool = False
    right: float = 0.0
    down: float = 0.0


@dataclass(frozen=True)
class Search:
    """What of each picture is looked for (`base`), in which views of the others, and the likeness from which it is found."""

    base: View
    views: tuple[View, ...]
    likeness: float


COPIED = Search(View(), tuple(View(cut=cut) for cut in (0.0, 0.02, 0.04)), 0.9)
"""Saved again: another size, compression or brightness, trimmed a little. 6,000 pictures: 15 s of one core."""

RECROPPED = Search(
    View(cut=0.125),
    tuple(
        View(cut=cut, right=right / 100, down=down / 100)
        for cut in (0.17, 0.125, 0.08)
        for right in range(-10, 11, 5)
        for down in range(-10, 11, 5)
    ),
    0.85,
)
"""Cropped at will, as publications do with what they take from elsewhere. 1,200 pictures: 20 s of one core, 6,000: 3 minutes."""

AUGMENTED = Search(
    View(),
    tuple(View(cut=cut, angle=angle, flip=flip) for flip in (False, True) for cut in (0.0, 0.06) for angle in range(-20, 21, 5))
    + tuple(View(angle=angle, flip=flip) for flip in (False, True) for angle in (90, 180, 270)),
    0.85,
)
"""Turned, flipped or enlarged by data augmentation."""


def near_duplicates(pixels: Pixels, searches: Sequence[Search] = (COPIED,)) -> list[Pair]:
    """Return the pairs of pictures that are one exposure, the likest first. What is found and missed: `docs/data.md`.

    Args:
        pixels: shape (n, side, side), uint8, network inputs.
        searches: the ways to look for copies; the time goes with the number of their views.
    """
    best: dict[tuple[int, int], float] = {}
    for search in searches:
        sought = _details(pixels, search.base)
        for view in search.views:
            seen = sought if view == search.base else _details(pixels, view)
            for firsts, seconds in _candidates(seen[0], sought[0]):
                likes = np.einsum("ij,ij->i", seen[1][firsts], sought[1][seconds])
                for first, second, like in zip(firsts, seconds, likes, strict=True):
                    key = (min(int(first), int(second)), max(int(first), int(second)))
                    if like >= search.likeness and like > best.get(key, 0.0):
                        best[key] = float(like)
    pairs = [Pair(*key, likeness=round(like, 3)) for key, like in best.items()]
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def across_patients(samples: Sequence[Sample], pixels: Pixels, searches: Sequence[Search] = (COPIED,)) -> list[Pair]:
    """Return the near duplicates whose patient codes differ."""
    return [pair for pair in near_duplicates(pixels, searches) if samples[pair.first].patient != samples[pair.second].patient]


def pairs_across(split: Split, samples: Sequence[Sample], pixels: Pixels, searches: Sequence[Search] = (COPIED,)) -> list[Pair]:
    """Return the near duplicates that lie on two sides of a split: training, validation, test.

    Raises:
        ValueError: if samples and pixels differ in number.
    """
    if len(samples) != len(pixels):
        raise ValueError(f"{len(samples)} samples and {len(pixels)} pictures")
    return parted(split, near_duplicates(pixels, searches), len(samples))


def parted(split: Split, pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return those of the pairs that lie on two sides of a split of `count` pictures."""
    side = np.full(count, -1)
    for number, part in enumerate((split.train, split.validation, split.test)):
        side[part] = number
    return [pair for pair in pairs if -1 not in (side[pair.first], side[pair.second]) and side[pair.first] != side[pair.second]]


def tied(samples: Sequence[Sample], pairs: Sequence[Pair]) -> list[Sample]:
    """Return the samples, with one code for all patients that share an exposure: a split by patient then keeps them whole."""
    first: dict[str, int] = {}
    same = [Pair(first.setdefault(sample.patient, index), index, 1.0) for index, sample in enumerate(samples)]
    roots = clusters(len(samples), [*(pair for pair in same if pair.first != pair.second), *pairs])
    return [replace(sample, patient=samples[root].patient) for sample, root in zip(samples, roots, strict=True)]


def clusters(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return for each of `count` pictures the lowest index that it is tied to by pairs, over any number of steps."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pair in pairs:
        first, second = sorted((root(pair.first), root(pair.second)))
        parent[second] = first
    return [root(index) for index in range(count)]


def _candidates(seen: Floats, plain: Floats) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the indexes of different pictures that are alike at the coarse size."""
    for start in range(0, len(seen), _BLOCK):
        firsts, seconds = np.nonzero(seen[start : start + _BLOCK] @ plain.T >= COARSE)
        firsts += start
        others = firsts != seconds
        if seen is plain:
            others = firsts < seconds
        firsts, seconds = firsts[others], seconds[others]
        for part in range(0, len(firsts), _BLOCK):
            yield firsts[part : part + _BLOCK], seconds[part : part + _BLOCK]


def _details(pixels: Pixels, view: View) -> tuple[Floats, Floats]:
    """Return unit vectors at both sizes; shapes (n, 1024) and (n, 4096)."""
    fine = np.stack([np.asarray(_seen(Image.fromarray(picture), view), dtype=np.float32) for picture in pixels])
    blocks = fine.reshape(len(fine), _COARSE_SIDE, 2, _COARSE_SIDE, 2)
    coarse: Floats = blocks.mean(axis=(2, 4), dtype=np.float32)
    return _unit(coarse, _COARSE_WINDOW), _unit(fine, _FINE_WINDOW)


def _seen(image: Image.Image, view: View) -> Image.Image:
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if view.angle:
        image = image.rotate(view.angle, Image.Resampling.BILINEAR)
    side, margin = image.width, image.width * view.cut
    # A part that would reach over the border is moved back to it.
    left = min(max(margin + view.right * side, 0.0), 2 * margin)
    upper = min(max(margin + view.down * side, 0.0), 2 * margin)
    box = (left, upper, left + side - 2 * margin, upper + side - 2 * margin)
    return image.resize((_FINE_SIDE, _FINE_SIDE), Image.Resampling.BOX, box=box)


def _unit(pictures: Floats, window: int) -> Floats:
    side = pictures.shape[1]
    detail = pictures - uniform_filter(pictures, size=(0, window, window), mode="nearest")
    across = (np.arange(side) - (side - 1) / 2) / (side / 2)
    inside = detail[:, across[:, None] ** 2 + across[None, :] ** 2 <= 1]
    inside -= inside.mean(axis=1, keepdims=True)
    spread = inside.std(axis=1, keepdims=True) + 1e-6
    inside = inside.clip(-_CLIP * spread, _CLIP * spread)
    unit: Floats = (inside / (np.linalg.norm(inside, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return unit
