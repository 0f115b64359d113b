"""What tensorflow-model-optimization is told about each layer for quantization-aware training.

Its own rules (of 0.8.1) do not fit a network whose normalization has been folded away. A convolution that a ReLU follows, with no
normalization between, is left without rounding, its kernel too, and so loses its zeros; and a depthwise kernel gets one step for
all channels, which after folding differ by orders of magnitude. So each layer is told here what the int8 file will do.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from export.legacy_keras import keras, tf

layers = keras.layers


def annotated(layer: Any, followers: list[Any], *, keep_zeros: bool) -> Any | None:
    """Return a layer wrapped for tfmot; None for one that it cannot round.

    Args:
        layer: of a network without normalization.
        followers: the layers that take its output; before a ReLU values are not rounded, as the file computes both in one.
        keep_zeros: of its kernel.
    """
    import tensorflow_model_optimization as tfmot  # imports TensorFlow, with the setting of export.legacy_keras

    annotate = tfmot.quantization.keras.quantize_annotate_layer
    fused = len(followers) == 1 and isinstance(followers[0], layers.ReLU)
    kinds = _kinds()
    if type(layer) is layers.DepthwiseConv2D:
        return annotate(layer, kinds["KernelConfig"]("depthwise_kernel", not fused, False, True))
    if type(layer) in (layers.Conv2D, layers.Dense):
        return annotate(layer, kinds["KernelConfig"]("kernel", not fused, keep_zeros, type(layer) is layers.Conv2D))
    if isinstance(layer, layers.Add) and fused:
        return annotate(layer, kinds["NoOpQuantizeConfig"]())
    return annotate(layer) if kinds["Default8BitQuantizeRegistry"]().supports(layer) else None


def applied(model: Any) -> Any:
    """Return the network of annotated layers with the rounding in it."""
    import tensorflow_model_optimization as tfmot

    tools, kinds = tfmot.quantization.keras, _kinds()
    with tools.quantize_scope(kinds):
        return tools.quantize_apply(model, kinds["Scheme"]())


@cache
def _kinds() -> dict[str, Any]:
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
        prune_preserve_quantize_registry as preserving,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs,
        default_8bit_quantize_registry,
        default_8bit_quantize_scheme,
        default_8bit_quantizers,
        default_8bit_transforms,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import model_transformer

    class DepthwiseWeights(default_8bit_quantizers.Default8BitConvWeightsQuantizer):  # type: ignore[misc]
        """Moves the channels to the last axis, where the rounding looks for them, and back."""

        def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
            height, width, channels, several = tensor_shape
            return super().build(tf.TensorShape([height, width, several, channels]), name, layer)

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            height, width, channels, several = inputs.shape
            turned = tf.reshape(inputs, [height, width, several, channels])
            return tf.reshape(super().__call__(turned, training, weights, **kwargs), inputs.shape)

    class KernelConfig(default_8bit_quantize_registry.Default8BitQuantizeConfig):  # type: ignore[misc]
        """Rounds a kernel, channel by channel or whole, and the values behind the activation or not."""

        def __init__(self, kernel: str, values: bool, keep_zeros: bool, by_channel: bool) -> None:
            super().__init__([kernel], ["activation"] if values else [], False)
            self._config = {"kernel": kernel, "values": values, "keep_zeros": keep_zeros, "by_channel": by_channel}
            if kernel == "depthwise_kernel":
                self.weight_quantizer = DepthwiseWeights()
            elif by_channel and keep_zeros:
                self.weight_quantizer = preserving.PrunePreserveDefault8BitConvWeightsQuantizer()
            elif by_channel:
                self.weight_quantizer = default_8bit_quantizers.Default8BitConvWeightsQuantizer()
            elif keep_zeros:
                self.weight_quantizer = preserving.PrunePreserveDefault8BitWeightsQuantizer()

        def get_config(self) -> dict[str, Any]:
            return self._config

    class Layout:
        """Rounds the input, and leaves all else as it was annotated."""

        def apply(self, model: Any, layer_quantize_map: dict[str, Any]) -> Any:
            transforms = [default_8bit_transforms.InputLayerQuantize()]
            return model_transformer.ModelTransformer(model, transforms, set(layer_quantize_map), layer_quantize_map).transform()

    class Scheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):  # type: ignore[misc]
        def get_layout_transformer(self) -> Any:
            return Layout()

    known = (
        DepthwiseWeights,
        KernelConfig,
        Scheme,
        default_8bit_quantize_configs.NoOpQuantizeConfig,
        default_8bit_quantize_registry.Default8BitQuantizeRegistry,
    )
    return {kind.__name__: kind for kind in known}
