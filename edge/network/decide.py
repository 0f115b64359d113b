"""From scores to an answer: calibrated probabilities, or "not sure", and where in the picture the evidence lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.network.classify import Scores
from edge.network.typicality import Typicality

HeatSummary = dict[str, float]

UNFAMILIAR = "unfamiliar"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Rule:
    """What turns scores into an answer.

    classes: names in the order of the logits. temperature: divides the logits before the softmax (Guo et al. 2017, "On calibration
    of modern neural networks"). threshold: the device abstains when the highest probability is below it, 0..1. candidate: it also
    does when two classes reach this probability: the conformal set then has two members (Sadinle, Lei and Wasserman 2019,
    "Least ambiguous set-valued classifiers with bounded error levels"); 1 for no such rule. typicality: None where the bundle has
    no measure of it.
    """

    classes: tuple[str, ...]
    temperature: float
    threshold: float
    candidate: float = 1.0
    typicality: Typicality | None = None


@dataclass(frozen=True)
class Decision:
    """One answer. `label` is the likeliest class even when `abstained`; show it only when not. `reasons`: codes of why not."""

    probabilities: dict[str, float]
    label: str
    abstained: bool
    threshold: float
    heat: HeatSummary
    typicality: float | None = None
    reasons: tuple[str, ...] = ()


def decide(scores: Scores, rule: Rule) -> Decision:
    """Return the decision for one picture."""
    probabilities = softmax(scores.logits / rule.temperature)
    best = int(np.argmax(probabilities))
    typicality = rule.typicality.of(scores.traits) if rule.typicality is not None else None
    strange = rule.typicality is not None and typicality is not None and typicality < rule.typicality.limit
    reasons = [UNFAMILIAR] if strange else []
    if int((probabilities >= rule.candidate).sum()) > 1:
        reasons.append(UNDECIDED)
    return Decision(
        probabilities={name: round(float(value), 6) for name, value in zip(rule.classes, probabilities, strict=True)},
        label=rule.classes[best],
        abstained=bool(probabilities[best] < rule.threshold) or bool(reasons),
        threshold=rule.threshold,
        heat=heat_summary(scores.heat[:, :, best]) if scores.heat.size else {},
        typicality=None if typicality is None else round(typicality, 4),
        reasons=tuple(reasons),
    )


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return probabilities; shape (classes,), sum 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())


def heat_summary(heat: npt.NDArray[np.float32]) -> HeatSummary:
    """Return the share of the positive heat in each quarter of the picture; empty when no heat speaks for the class.

    Args:
        heat: shape (rows, columns); the class map of the decided class.

    Four quarters, and beside them the middle half of the width (central, where the hila are) and the rest (peripheral). The sides
    are those of the picture: the patient's right lung is on the image's left.
    """
    positive = np.maximum(heat, 0.0)
    total = float(positive.sum())
    if total <= 0.0:
        return {}
    rows, columns = positive.shape[0] // 2, positive.shape[1] // 2
    inner = slice(positive.shape[1] // 4, positive.shape[1] - positive.shape[1] // 4)
    central = float(positive[:, inner].sum())
    quarters = {
        "image_left_upper": positive[:rows, :columns],
        "image_right_upper": positive[:rows, columns:],
        "image_left_lower": positive[rows:, :columns],
        "image_right_lower": positive[rows:, columns:],
    }
    shares = {name: float(part.sum()) / total for name, part in quarters.items()}
    shares |= {"image_central": central / total, "image_peripheral": 1 - central / total}
    return {name: round(share, 3) for name, share in shares.items()}
