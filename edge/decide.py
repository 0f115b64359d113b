"""From scores to an answer: calibrated probabilities, or "not sure", and where in the picture the evidence lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.classify import Scores

HeatSummary = dict[str, float]

NOT_SURE = "not sure: have a radiologist look"
AID = "A research aid; never the only basis of a decision."


@dataclass(frozen=True)
class Decision:
    """One answer. `label` is the likeliest class even when `abstained`; show it only when not."""

    probabilities: dict[str, float]
    label: str
    abstained: bool
    threshold: float
    heat: HeatSummary


def decide(scores: Scores, classes: Sequence[str], *, temperature: float, threshold: float) -> Decision:
    """Return the decision for one picture.

    Args:
        scores: what the network gave.
        classes: names in the order of the logits.
        temperature: divides the logits before the softmax (Guo et al. 2017, "On calibration of modern neural networks").
        threshold: the device abstains when the highest probability is below it, 0..1.
    """
    probabilities = softmax(scores.logits / temperature)
    best = int(np.argmax(probabilities))
    return Decision(
        probabilities={name: round(float(value), 6) for name, value in zip(classes, probabilities, strict=True)},
        label=classes[best],
        abstained=bool(probabilities[best] < threshold),
        threshold=threshold,
        heat=heat_summary(scores.heat[:, :, best]) if scores.heat.size else {},
    )


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return probabilities; shape (classes,), sum 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())


def heat_summary(heat: npt.NDArray[np.float32]) -> HeatSummary:
    """Return the share of the positive heat in each quarter of the picture; empty when no heat speaks for the class.

    Args:
        heat: shape (rows, columns); the class map of the decided class.

    The sides are those of the picture: the patient's right lung is on the image's left.
    """
    positive = np.maximum(heat, 0.0)
    total = float(positive.sum())
    if total <= 0.0:
        return {}
    rows, columns = positive.shape[0] // 2, positive.shape[1] // 2
    quarters = {
        "image_left_upper": positive[:rows, :columns],
        "image_right_upper": positive[:rows, columns:],
        "image_left_lower": positive[rows:, :columns],
        "image_right_lower": positive[rows:, columns:],
    }
    return {name: round(float(part.sum()) / total, 3) for name, part in quarters.items()}
