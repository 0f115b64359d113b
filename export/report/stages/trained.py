"""Stages that train: far too briefly for good figures, long enough that the comparison and its charts are of real trainings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from export.calibrate import fit_temperature, fit_threshold
from export.dataset import CLASSES, Pixels, load_pixels, targets
from export.explain import grad_cam, gradient_saliency
from export.legacy_keras import keras, tf
from export.metrics import Floats
from export.model import float_logits, int8_logits, training_set
from export.networks.ours import Plan, build
from export.networks.p3 import build_p3
from export.predictions import Predictions
from export.quantize import fixed_size, quantize
from export.report.bench import HELD_OUT, Bench, Gathered, predictions_of
from export.report.inputs import Epoch, HeatMap
from export.report.stages.forms import form_of
from export.report.stages.shipped import explained, pick
from export.train import Phase, Recipe, fit, settle_statistics

OURS, P3 = "ours, briefly", "p3"
SALIENCY, GRAD_CAM = "gradient saliency", "Grad-CAM"
OURS_EPOCHS, P3_EPOCHS, P3_SIDE = 10, 6, 96
_REPRESENTATIVE = 64
_BATCH = 32


class _Diary(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes down each epoch, with the loss on validation patients."""

    def __init__(self, pictures: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.pictures, self.truth = pictures, truth
        self.rows: list[Epoch] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        told = logs or {}
        logits = np.asarray(self.model.predict(self.pictures, batch_size=_BATCH, verbose=0), dtype=np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        rate = self.model.optimizer.learning_rate
        self.rows.append(
            Epoch(
                epoch=epoch + 1,
                loss=float(told["loss"]),
                accuracy=float(told["accuracy"]) if "accuracy" in told else None,
                val_loss=float(-np.log(chances[np.arange(len(self.truth)), self.truth] + 1e-12).mean()),
                val_accuracy=float((logits.argmax(axis=1) == self.truth).mean()),
                rate=float(rate.numpy() if hasattr(rate, "numpy") else rate(self.model.optimizer.iterations)),
            )
        )


def ours_briefly(bench: Bench, gathered: Gathered) -> None:
    """Train the shipped network's layout from random weights, at half the side; float32 and int8 of the same weights."""
    keras.backend.clear_session()
    recipe = replace(Recipe(), phases=(Phase(2, OURS_EPOCHS, 2e-3),))
    keras.utils.set_random_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    split, plan = bench.split, Plan()
    data = training_set(bench.pixels, bench.samples, split.train)
    truth = targets(bench.chosen(split.validation))
    network = build(len(CLASSES), None, plan)
    half = _floats(bench.pixels[split.validation][:, ::2, ::2])
    diary = _Diary(half[..., np.newaxis], truth)
    for phase in recipe.phases:
        fit(keras.Model(network.input, network.output["scores"]), data, phase, recipe, rng, (diary,))
    settle_statistics(network, data.pixels, rng)
    fixed = fixed_size(network, len(CLASSES), plan)
    graph = quantize(fixed, data.pixels[rng.permutation(len(data.pixels))[:_REPRESENTATIVE]])
    test, samples = bench.pixels[split.test], bench.chosen(split.test)
    protocol = f"{HELD_OUT}; {OURS_EPOCHS} epochs only"
    exact, small = (
        _judged(OURS, bench, logits, held, precision, protocol)
        for precision, logits, held in (
            ("float32", float_logits(fixed, test), float_logits(fixed, bench.pixels[split.validation])),
            ("int8", int8_logits(graph, test), int8_logits(graph, bench.pixels[split.validation])),
        )
    )
    gathered.predictions += [exact, small]
    gathered.histories[OURS] = diary.rows
    same = float((exact.scores().argmax(axis=1) == small.scores().argmax(axis=1)).mean())
    gathered.compression.append(form_of(_float_graph(fixed), test, exact))
    gathered.compression.append(form_of(graph, test, small, same))
    given = _floats(test)[..., np.newaxis]
    said = np.asarray(exact.scores().argmax(axis=1), dtype=np.int64)
    saliency = gradient_saliency(fixed, given, said)
    gathered.explained += explained(OURS, SALIENCY, samples, list(saliency))
    _lay_over(bench, gathered, OURS, SALIENCY, saliency)


def p3_briefly(bench: Bench, gathered: Gathered) -> None:
    """Train P3's own network on smaller pictures than it was published for."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    split = bench.split
    pixels = load_pixels(bench.samples, P3_SIDE)
    model = build_p3(len(CLASSES), P3_SIDE)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # after some 150 steps Keras' 0.99 would still remember the untrained network
    model.compile(
        keras.optimizers.RMSprop(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    given, held = _coloured(pixels[split.train]), _coloured(pixels[split.validation])
    diary = _Diary(held, targets(bench.chosen(split.validation)))
    model.fit(
        given, targets(bench.chosen(split.train)), batch_size=_BATCH, epochs=P3_EPOCHS, verbose=0, callbacks=[diary], shuffle=True
    )
    test = _coloured(pixels[split.test])
    logits, kept = (np.asarray(model.predict(part, batch_size=_BATCH, verbose=0), dtype=np.float64) for part in (test, held))
    protocol = f"{HELD_OUT}; {P3_SIDE} pixels, {P3_EPOCHS} epochs only"
    gathered.predictions.append(_judged(P3, bench, logits, kept, "float32", protocol))
    gathered.histories[P3] = diary.rows
    maps = grad_cam(model, test, np.asarray(logits.argmax(axis=1), dtype=np.int64))
    gathered.explained += explained(P3, GRAD_CAM, bench.chosen(split.test), list(maps))
    _lay_over(bench, gathered, P3, GRAD_CAM, maps)


def _judged(network: str, bench: Bench, logits: Floats, held: Floats, precision: Any, protocol: str) -> Predictions:
    """Temperature and threshold come from the validation patients."""
    temperature = fit_temperature(held, targets(bench.chosen(bench.split.validation)))
    return predictions_of(
        network,
        bench.chosen(bench.split.test),
        logits,
        precision=precision,
        temperature=temperature,
        threshold=fit_threshold(held, temperature),
        protocol=protocol,
    )


def _lay_over(bench: Bench, gathered: Gathered, network: str, method: str, maps: Floats) -> None:
    """Add this network's heat to the samples that the first stage has picked: it took them from the same test pictures."""
    for number, place in enumerate(pick(gathered.predictions[0])[: len(gathered.samples)]):
        sample = gathered.samples[number]
        heat = HeatMap(network=network, method=method, values=_thinned(maps[place]).round(4).tolist())
        gathered.samples[number] = msgspec.structs.replace(sample, heat=[*sample.heat, heat])


def _thinned(heat: Floats, side: int = 48) -> Floats:
    """Average squares, so that a page stays small and single pixels of a saliency do not drown in it; scaled to at most 1."""
    step = max(heat.shape[0] // side, 1)
    rows, columns = heat.shape[0] // step, heat.shape[1] // step
    small = heat[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3))
    top = float(small.max())
    return np.asarray(small / top if top > 0 else small)


def _floats(pixels: Pixels) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(255)


def _coloured(pixels: Pixels) -> npt.NDArray[np.float32]:
    return np.repeat(_floats(pixels)[..., np.newaxis], 3, axis=3)


def _float_graph(model: Any) -> bytes:
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
