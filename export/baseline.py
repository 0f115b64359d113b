"""What a network must beat, and what must fail: a linear model on 64x64 pixels, and classifiers that see only the shape."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.pixels.preprocess import preprocess
from export.dataset import Pixels

LINEAR_SIDE = 64
LINEAR_C = 1e-4
"""Inverse strength of the L2 penalty."""


def linear_scores(train: Pixels, targets: npt.NDArray[np.int64], test: Pixels) -> npt.NDArray[np.float64]:
    """Fit multinomial logistic regression on standardised 64x64 pixels; return scores of `test`, shape (n, classes)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=LINEAR_C, max_iter=500))
    return np.asarray(model.fit(_small(train), targets).decision_function(_small(test)), dtype=np.float64)


def shape_only_inputs(shapes: list[tuple[int, int]]) -> Pixels:
    """Return the network inputs of flat gray pictures with these (height, width); what the shape of a file tells a network."""
    return np.stack([preprocess(np.full(shape, 128, dtype=np.uint8)) for shape in shapes])


def _small(pixels: Pixels) -> npt.NDArray[np.float64]:
    side = (LINEAR_SIDE, LINEAR_SIDE)
    small = [np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BOX)) for picture in pixels]
    return np.stack(small).reshape(len(pixels), -1) / 255.0
