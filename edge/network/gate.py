"""Is this a whole frontal chest radiograph of an adult, the right way up? Asked after the network and before an answer is given.

The scores of a small int8 graph of the picture and a linear function of the network's traits are added: the one sees how the chest
lies in the picture, the other what the picture is made of. A picture is refused when `good` is not probable enough, with the
likeliest of the other reasons. What a DICOM header says is looked at before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.errors import BundleError, Refused
from edge.network.classify import Classifier
from edge.network.decide import softmax
from edge.pixels.headers import Headers
from edge.pixels.network_input import Frame

Floats32 = npt.NDArray[np.float32]

GOOD = "good"


@dataclass(frozen=True)
class Gate:
    """Made by `export.gate`.

    classifier: of the picture; a logit a reason. weights: shape (reasons, traits + 1), of the traits, and the bias. reasons: GOOD,
    then codes of `edge.contract.reasons`. limit: below this probability of GOOD a picture is refused, 0..1.
    """

    classifier: Classifier
    weights: Floats32
    reasons: tuple[str, ...]
    limit: float

    def chances(self, picture: Frame, traits: Floats32) -> npt.NDArray[np.float64]:
        """Return a probability for each of the reasons.

        Args:
            picture: network input, shape (side, side), uint8.
            traits: of the same picture, shape (traits,).
        """
        return softmax(self.classifier.run(picture).logits + self.weights[:, :-1] @ traits + self.weights[:, -1])

    def check(self, picture: Frame, traits: Floats32) -> None:
        """Return if the picture may be answered; see `chances`.

        Raises:
            Refused: the likeliest of the reasons.
        """
        chances = self.chances(picture, traits)
        if chances[0] < self.limit:
            raise Refused(self.reasons[1 + int(np.argmax(chances[1:]))], f"good with a probability of {chances[0]:.4f}")


def read_weights(content: bytes, reasons: int, traits: int) -> Floats32:
    """Return the weights in a file, shape (reasons, traits + 1).

    Raises:
        BundleError: if the content is of another size or not finite.
    """
    if len(content) != reasons * (traits + 1) * 4 or not np.isfinite(weights := np.frombuffer(content, "<f4")).all():
        raise BundleError("The weights of the model's quality gate are not of the expected kind.")
    return weights.reshape(reasons, traits + 1).astype(np.float32)


def check_headers(headers: Headers, minimum_age: int) -> None:
    """Return if nothing in the header speaks against an answer; what it does not say does not.

    Args:
        headers: of the picture.
        minimum_age: of the network, in years.

    Raises:
        Refused: lateral, too_young.
    """
    if headers.view == "LATERAL":
        raise Refused("lateral")
    if headers.age_years is not None and headers.age_years < minimum_age:
        raise Refused("too_young")
