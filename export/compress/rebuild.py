"""A Keras network made again layer by layer, with some layers changed or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.legacy_keras import keras, tf

Change = Callable[[Any], Any]
"""From a layer to the layer that takes its place, built or not; None leaves it out, its input going to those that follow."""


def rebuilt(model: Any, change: Change) -> Any:
    """Return a new network of the same outputs, under the same names.

    Args:
        model: functional or sequential; each of its layers is used once.
        change: must not return a layer of `model` itself; see `copy_of`.
    """
    fresh: dict[int, Any] = {}
    for nodes in (model._nodes_by_depth[depth] for depth in sorted(model._nodes_by_depth, reverse=True)):
        for node in nodes:
            if node.is_input:
                shape = node.outputs.shape
                fresh[id(node.outputs)] = keras.Input(shape[1:], name=node.layer.name, dtype=node.outputs.dtype)
                continue
            given = [fresh.get(id(value), value) for value in tf.nest.flatten(node.call_args)]
            arguments = tf.nest.pack_sequence_as(node.call_args, given)
            layer = change(node.layer)
            made = arguments[0] if layer is None else layer(*arguments, **node.call_kwargs)
            fresh[id(node.outputs)] = made
    outputs = tf.nest.map_structure(lambda value: fresh[id(value)], model.output)
    return keras.Model(fresh[id(model.input)], outputs, name=model.name)


def copy_of(layer: Any, **changed: Any) -> Any:
    """Return an unbuilt layer of the same kind and name, with some of its configuration changed."""
    return type(layer).from_config({**layer.get_config(), **changed})


def duplicate(model: Any) -> Any:
    """Return a copy of a network with weights of its own."""
    made = rebuilt(model, copy_of)
    for layer in model.layers:
        made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def consumers(model: Any) -> dict[str, list[Any]]:
    """Return the layers that take each layer's output, by its name."""
    found: dict[str, list[Any]] = {node.layer.name: [] for nodes in model._nodes_by_depth.values() for node in nodes}
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            for before in node.parent_nodes:
                found[before.layer.name].append(node.layer)
    return found


def output_layers(model: Any) -> set[str]:
    """Return the names of the layers whose outputs are the network's."""
    return {value.node.layer.name for value in tf.nest.flatten(model.output)}
