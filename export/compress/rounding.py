"""Int8 weights whose rounding errors cancel, instead of each weight going to its nearest step.

The nearest step is the best for one weight and not for their sum: values after a ReLU are all positive, so the errors of a kernel
add up to a shift that is the same in every picture, and the logits lean towards one class. Here the weights of a kernel are rounded
one after another, and those that are still to come take over the error, as far as the inputs they meet allow (Frantar et al. 2022,
"GPTQ"; the step is Hassibi and Stork's of 1993, "Optimal brain surgeon"). What is left of the mean of each channel goes into its
bias (Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction"), together with what the rounding
of the values in between does to it. No training, no labels.

The converter takes a kernel's largest magnitude for 127 steps, channel by channel. The largest weight stays what it is here, all
others are whole steps of it: the converter finds them on its grid and changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.compress.folding import folded
from export.compress.formats import Pictures
from export.compress.rebuild import consumers, output_layers
from export.legacy_keras import keras, tf

layers = keras.layers

Matrix = npt.NDArray[np.float64]

_STEPS = 127
_DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it: some inputs are always zero."""
_MOST_INPUTS = 4608
"""Kernels with more weights a channel are rounded to the nearest: the work grows with the cube."""
_BATCH = 16
_ROUNDED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def rounded(model: Any, representative: Pictures) -> Any:
    """Return a network without batch normalization whose weights lie on the grid of its int8 file, for any converter to take.

    Zeros stay zeros. Layers are done from the first to the last, each with the inputs that the rounded ones before it give as int8.

    Args:
        model: Keras model of a fixed input size; it is not changed.
        representative: shape (n, side, side, channels), uint8; of the training part. All values inside the network are held for
            them at once in places: some 100 are enough and fit.
    """
    made = folded(model)
    given = tf.constant(representative / np.float32(255))
    # Value of the network -> (as it would be without rounding, as it is with it).
    values: dict[int, tuple[Any, Any]] = {id(made.input): (given, given)}
    uses: dict[int, int] = {}
    nodes = [n for depth in sorted(made._nodes_by_depth, reverse=True) for n in made._nodes_by_depth[depth] if not n.is_input]
    for node in nodes:
        for value in tf.nest.flatten(node.call_args):
            uses[id(value)] = uses.get(id(value), 0) + 1
    inside = _not_stored(made)
    for node in nodes:
        exact, rough = (_arguments(node, values, which) for which in (0, 1))
        expected = _run(node, exact)
        if isinstance(node.layer, _ROUNDED) and node.layer.use_bias:
            _round_layer(node.layer, rough[0], expected)
        found = _run(node, rough)
        values[id(node.outputs)] = (expected, _in_steps(found) if node.layer.name not in inside else found)
        for value in tf.nest.flatten(node.call_args):
            uses[id(value)] -= 1
            if uses[id(value)] == 0:
                values.pop(id(value), None)
    return made


def _not_stored(model: Any) -> set[str]:
    """Return the layers whose values are never rounded themselves: their activation is a layer, and done together with them."""
    ends = output_layers(model)
    return {
        name
        for name, after in consumers(model).items()
        if name not in ends and len(after) == 1 and isinstance(after[0], (layers.ReLU, layers.Activation))
    }


def _in_steps(values: Any) -> Any:
    """Return values as int8 gives them back, of the range that they take themselves."""
    low, high = min(float(tf.reduce_min(values)), 0.0), max(float(tf.reduce_max(values)), 0.0)
    return tf.quantization.fake_quant_with_min_max_args(values, low, high) if high > low else values


def on_grid(kernel: Matrix, moments: Matrix | None) -> Matrix:
    """Return a kernel in whole steps of its largest magnitude / 127, for each column.

    Args:
        kernel: shape (inputs, outputs).
        moments: shape (inputs, inputs), mean products of the inputs; None rounds to the nearest.
    """
    top = np.abs(kernel).max(axis=0)
    step = np.where(top > 0, top, 1.0) / _STEPS
    fixed = np.abs(kernel).argmax(axis=0)
    if moments is None:
        return np.asarray(np.rint(kernel / step) * step)
    damped = moments + _DAMPING * max(float(np.trace(moments)) / len(moments), 1e-12) * np.eye(len(moments))
    order = np.argsort(-np.diag(damped), kind="stable")  # what matters most first, while others can still make up for it
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    work, zero = kernel[order].copy(), kernel[order] == 0
    result = np.zeros_like(work)
    for row, place in enumerate(order):
        steps = np.rint(work[row] / step).clip(-_STEPS, _STEPS)
        steps = np.where(fixed == place, np.sign(kernel[place]) * _STEPS, np.where(zero[row], 0.0, steps))
        result[row] = steps * step
        error = (work[row] - result[row]) / upper[row, row]
        work[row + 1 :] -= upper[row, row + 1 :, np.newaxis] * error
    back = np.empty_like(result)
    back[order] = result
    return back


def _round_layer(layer: Any, given: Any, expected: Any) -> None:
    """Round a layer's kernel and shift its bias so that each channel keeps its mean before the activation."""
    kernel, bias = (value.astype(np.float64) for value in layer.get_weights())
    if isinstance(layer, layers.DepthwiseConv2D):
        better = _depthwise(layer, kernel, given)
    else:
        flat = kernel.reshape(-1, kernel.shape[-1])
        moments = _moments(layer, given) if len(flat) <= _MOST_INPUTS else None
        better = on_grid(flat, moments).reshape(kernel.shape)
    if layer.activation is keras.activations.linear:
        layer.set_weights([better, bias])
        shift = _mean(expected) - _mean(_run_layer(layer, given))
    else:
        # Behind an activation the mean of its input is what a linear copy gives.
        shift = -_linear_mean(layer, better - kernel, given)
    layer.set_weights([better, bias + shift])


def _depthwise(layer: Any, kernel: Matrix, given: Any) -> Matrix:
    better = kernel.copy()
    height, width, channels, several = kernel.shape
    patches = _patches(layer, given, kernel.shape[:2])  # (n, inputs of the kernel, channels)
    for channel in range(channels):
        x = np.asarray(patches[..., channel], dtype=np.float64)
        flat = kernel[:, :, channel, :].reshape(height * width, several)
        better[:, :, channel, :] = on_grid(flat, x.T @ x / len(x)).reshape(height, width, several)
    return better


def _moments(layer: Any, given: Any) -> Matrix:
    if isinstance(layer, layers.Dense):
        x = np.asarray(given, dtype=np.float64).reshape(-1, given.shape[-1])
        return np.asarray(x.T @ x / len(x))
    total, count = np.zeros(()), 0
    for first in range(0, len(given), _BATCH):
        patches = _patches(layer, given[first : first + _BATCH], layer.kernel_size)
        x = np.asarray(patches).reshape(len(patches), -1)
        total, count = total + (x.T @ x).astype(np.float64), count + len(x)
    return np.asarray(total / count)


def _patches(layer: Any, given: Any, size: Any) -> Any:
    """Return what a kernel meets at each place: shape (places, height * width of the kernel, channels)."""
    channels = given.shape[-1]
    if tuple(size) == (1, 1):
        sparse = given[:, :: layer.strides[0], :: layer.strides[1]]
        return np.asarray(sparse).reshape(-1, 1, channels)
    sizes, strides, rates = ([1, *values, 1] for values in (size, layer.strides, layer.dilation_rate))
    found = tf.image.extract_patches(given, sizes, strides, rates, layer.padding.upper())
    return np.asarray(found).reshape(-1, size[0] * size[1], channels)


def _run_layer(layer: Any, given: Any) -> Any:
    return tf.concat([layer(given[i : i + _BATCH], training=False) for i in range(0, len(given), _BATCH)], axis=0)


def _linear_mean(layer: Any, kernel: Matrix, given: Any) -> npt.NDArray[np.float64]:
    old, activation = layer.get_weights(), layer.activation
    layer.activation = keras.activations.linear
    layer.set_weights([kernel, np.zeros_like(old[1])])
    mean = _mean(_run_layer(layer, given))
    layer.activation = activation
    return mean


def _mean(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(tf.reduce_mean(values, axis=list(range(values.shape.rank - 1))), dtype=np.float64)


def _arguments(node: Any, values: dict[int, tuple[Any, Any]], which: int) -> Any:
    found = [values[id(value)][which] if id(value) in values else value for value in tf.nest.flatten(node.call_args)]
    return tf.nest.pack_sequence_as(node.call_args, found)


def _run(node: Any, arguments: Any) -> Any:
    kwargs = {**node.call_kwargs, "training": False} if "training" in node.call_kwargs else node.call_kwargs
    return node.layer(*arguments, **kwargs)
