"""How usual a picture is among those that the network has learned: a network outside what it knows is confident and wrong.

The traits of a picture (means of early feature maps, the third output of the int8 graph) are compared with those of training
pictures: the Mahalanobis distance (Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples"), turned
into the share of known pictures, none of which it was taken of, that lie at least as far (after the conformal p-value of Vovk,
Gammerman and Shafer 2005, "Algorithmic learning in a random world"): about a share p of pictures of the known kind have a
typicality below p.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.errors import BundleError

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Typicality:
    """Made by `export.typicality`.

    mean: shape (traits,). whitening: shape (traits, traits); the distance is the length of whitening @ (traits - mean).
    distances: of pictures that were left out, ascending. limit: below this typicality the device does not answer, 0..1.
    """

    mean: Floats32
    whitening: Floats32
    distances: tuple[float, ...]
    limit: float

    def distance(self, traits: Floats32) -> float:
        """Return the Mahalanobis distance of traits, shape (traits,)."""
        return float(np.linalg.norm(self.whitening @ (traits - self.mean)))

    def of(self, traits: Floats32) -> float:
        """Return the typicality of traits, shape (traits,): 1 / (n + 1) for the strangest, 1 for the most usual."""
        beyond = len(self.distances) - bisect_left(self.distances, self.distance(traits))
        return (beyond + 1) / (len(self.distances) + 1)

    def to_bytes(self) -> bytes:
        """Return mean and whitening as little-endian float32."""
        return np.concatenate([self.mean[np.newaxis], self.whitening]).astype("<f4").tobytes()


def read_typicality(content: bytes, distances: Sequence[float], limit: float) -> Typicality:
    """Return what `Typicality.to_bytes` wrote.

    Raises:
        BundleError: if the content is not a mean and a square matrix.
    """
    values = np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)
    traits = round(((1 + 4 * len(values)) ** 0.5 - 1) / 2)
    if traits < 1 or traits * (traits + 1) * 4 != len(content) or not np.isfinite(values).all():
        raise BundleError("The model's file of what it has learned (typicality) is not of the expected kind.")
    table = values.reshape(traits + 1, traits)
    return Typicality(table[0], table[1:], tuple(distances), limit)
