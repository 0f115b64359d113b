"""Logits whose mean over the classes is zero: the same probabilities in a smaller range, so with finer int8 steps.

The softmax does not see what all logits have in common. Taken out of the last layer, it no longer widens the range that 256 steps
have to cover, and fewer pictures end in a tie that the order of the classes decides.
"""

from __future__ import annotations

from typing import Any

from export.compress.formats import scores_of
from export.compress.rebuild import duplicate
from export.errors import ConversionError
from export.legacy_keras import keras

layers = keras.layers

_BETWEEN = (layers.Activation, layers.Dropout, layers.Flatten, layers.GlobalAveragePooling2D, layers.Reshape)


def centred_if_possible(model: Any) -> Any:
    """Return `centred(model)`, or the model itself where its logits cannot be centred."""
    try:
        return centred(model)
    except ConversionError:
        return model


def centred(model: Any) -> Any:
    """Return a copy of `model` whose logits are each less by their mean.

    Where the logits are the means of class maps, the maps are changed likewise: they show what speaks for a class rather than for
    the others.

    Args:
        model: Keras model whose logits come out of one convolution or dense layer, averaged at most.

    Raises:
        ConversionError: if they come from elsewhere.
    """
    made = duplicate(model)
    node = scores_of(made.output).node
    while isinstance(node.layer, _BETWEEN) and len(node.parent_nodes) == 1:
        if isinstance(node.layer, layers.Activation) and node.layer.activation is not keras.activations.linear:
            break
        node = node.parent_nodes[0]
    layer = node.layer
    if type(layer) not in (layers.Conv2D, layers.Dense) or layer.activation is not keras.activations.linear:
        raise ConversionError(f"The logits of {model.name} come out of a {type(layer).__name__}, which cannot be centred.")
    layer.set_weights([value - value.mean(axis=-1, keepdims=True) for value in layer.get_weights()])
    return made
