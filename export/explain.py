"""Where a network looked: its own class maps, the gradient of a score (P3's saliency), or Grad-CAM, and how much of it is lung.

A map shows where evidence for one answer came from. It does not show where disease is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.metrics import Floats

Maps = npt.NDArray[np.float64]
"""Shape (n, rows, columns), of any size; a map covers its whole picture."""
_BATCH = 16
_COARSEST = 4


def class_activation_map(heat: npt.NDArray[np.floating], number: int) -> Floats:
    """Return one class's map of a network whose logits are the means of its maps; shape (rows, columns).

    Zhou et al. 2016, "Learning deep features for discriminative localization". Other classes' maps are not subtracted.

    Args:
        heat: shape (rows, columns, classes), as `edge.network.classify.Scores` has it.
        number: of the class.

    Raises:
        ValueError: if the network gives no maps.
    """
    if heat.size == 0:
        raise ValueError("this network has no class maps; use grad_cam")
    return np.asarray(heat[:, :, number], dtype=np.float64)


def gradient_saliency(model: Any, pictures: npt.NDArray[np.float32], numbers: npt.NDArray[np.int64]) -> Maps:
    """Return how much each pixel moves the logit of a class: |gradient|, the largest over the channels.

    Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks".

    Args:
        model: a Keras model whose output is the logits, or a dictionary with them under `scores`.
        pictures: shape (n, side, side, channels), as the model takes them.
        numbers: shape (n,), of the class for each picture.
    """
    from export.legacy_keras import tf

    parts = []
    for first in range(0, len(pictures), _BATCH):
        given = tf.convert_to_tensor(pictures[first : first + _BATCH])
        chosen = tf.convert_to_tensor(numbers[first : first + _BATCH])
        with tf.GradientTape() as tape:
            tape.watch(given)
            logits = _logits(model(given, training=False))
            score = tf.gather(logits, chosen, axis=1, batch_dims=1)
        parts.append(np.abs(np.asarray(tape.gradient(score, given))).max(axis=-1))
    return np.concatenate(parts).astype(np.float64)


def grad_cam(model: Any, pictures: npt.NDArray[np.float32], numbers: npt.NDArray[np.int64], layer: str | None = None) -> Maps:
    """Return the last feature maps weighted by how much they move the logit, its positive part; shape (n, rows, columns).

    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization".

    Args:
        model: as in `gradient_saliency`; functional or sequential.
        pictures: shape (n, side, side, channels).
        numbers: shape (n,), of the class for each picture.
        layer: name of the layer whose maps are used; None for the last one with maps of at least 4 x 4: coarser ones show nothing.

    Raises:
        ValueError: if no layer has such maps.
    """
    from export.legacy_keras import keras, tf

    inner = keras.Model(model.input, [model.get_layer(layer or _last_maps(model)).output, _logits(model.output)])
    parts = []
    for first in range(0, len(pictures), _BATCH):
        given = tf.convert_to_tensor(pictures[first : first + _BATCH])
        chosen = tf.convert_to_tensor(numbers[first : first + _BATCH])
        with tf.GradientTape() as tape:
            maps, logits = inner(given, training=False)
            tape.watch(maps)
            score = tf.gather(logits, chosen, axis=1, batch_dims=1)
        weights = np.asarray(tape.gradient(score, maps)).mean(axis=(1, 2), keepdims=True)
        parts.append(np.maximum((np.asarray(maps) * weights).sum(axis=-1), 0.0))
    return np.concatenate(parts).astype(np.float64)


def heat_in_lungs(heat: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> float:
    """Return the share of the positive heat that lies inside a mask, 0..1; not a number where nothing is positive.

    The energy of Wang et al. 2020, "Score-CAM", with a mask in the place of a box. Compare it with the mask's share of the
    picture: heat that knows nothing of lungs reaches that.

    Args:
        heat: shape (rows, columns), of any size.
        mask: shape (height, width).
    """
    height, width = mask.shape
    positive = np.maximum(heat, 0.0).astype(np.float32)
    if positive.shape != mask.shape:
        positive = np.asarray(Image.fromarray(positive).resize((width, height), Image.Resampling.BILINEAR))
        positive = np.maximum(positive, 0.0)
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if total > 0 else float("nan")


def _logits(output: Any) -> Any:
    return output["scores"] if isinstance(output, dict) else output


def _last_maps(model: Any) -> str:
    for one in reversed(model.layers):
        shape = one.output_shape
        if isinstance(shape, tuple) and len(shape) == 4 and min(side or _COARSEST for side in shape[1:3]) >= _COARSEST:
            return str(one.name)
    raise ValueError(f"{model.name} has no layer with maps; Grad-CAM needs one")
