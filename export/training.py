"""One loop that trains any network of the catalogue by a recipe, and goes on where a kill ended it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from export.batches import Pictures, epoch_batches, steps_of
from export.calibrate import probabilities
from export.checkpoint import Progress, load_checkpoint, save_checkpoint
from export.errors import FetchError, RecipeError, WeightsError
from export.history import Epoch
from export.legacy_keras import keras, tf
from export.networks.catalog import Network
from export.networks.heads import IMAGENET, NO_WEIGHTS, freeze
from export.recipe import RANDOM, Recipe
from export.splits import Indexes
from export.strategy import ONE_DEVICE, Strategy

Say = Callable[[str], None]
Floats = npt.NDArray[np.float64]

_SGD_MOMENTUM = 0.9
_GAIN = 1e-4
"""What counts as better on a plateau; Keras' own."""
_STALE = 0.01
"""Running statistics are measured again while they hold more than this share of what they held before the training."""
_SETTLING = (256, 32)
"""On how many training pictures, and how many at a time."""
_EVALUATED = 32
"""Pictures at a time."""


@dataclass(frozen=True)
class Trained:
    """model: Keras model, logits. history: a row an epoch. started_from: backbones that had weights of others."""

    model: Any
    history: list[Epoch]
    started_from: list[str]


def require_network(recipe: Recipe, network: Network) -> None:
    """Return if the recipe fits the network, as far as can be told without building it.

    Raises:
        RecipeError: if there is no backbone to freeze.
        WeightsError: if weights are for a backbone that it does not have, or their file is not there.
    """
    if recipe.frozen and not network.backbones:
        raise RecipeError(f"{network.name} has no backbone that could be frozen. Remove `frozen` from the recipe.")
    for name, file in recipe.weights.items():
        if name not in network.backbones:
            has = " and ".join(network.backbones) or "none that could start from weights"
            raise WeightsError(f"{network.name} has no backbone {name}; it has {has}.")
        if file not in (RANDOM, str(IMAGENET)) and not Path(file).is_file():
            raise WeightsError(f"There is no file of weights at {file}. Give the path of Keras' file for {name} without its top.")


def build_network(recipe: Recipe, network: Network, side: int, say: Say) -> tuple[Any, list[str]]:
    """Return the network and which of its backbones start from weights of others; says which do not.

    Raises:
        WeightsError: if a file is of another network or shape.
    """
    weights = {name: Path(file) for name, file in recipe.weights.items() if file != RANDOM}
    while True:
        try:
            model = _build(recipe, network, side, weights)
        except FetchError as error:
            say(f"{error}. It starts from random weights; --weights {error.backbone}=FILE gives others.")
            del weights[error.backbone]
            continue
        for name in network.backbones:
            if name not in recipe.weights or recipe.weights[name] == RANDOM:
                say(f"{network.name}: {name} starts from random weights; --weights {name}=FILE gives others.")
        return model, sorted(weights)


def train_network(
    recipe: Recipe,
    network: Network,
    pictures: Pictures,
    train: Indexes,
    validation: Indexes,
    folder: Path,
    *,
    strategy: Strategy = ONE_DEVICE,
    say: Say,
) -> Trained:
    """Train, writing a checkpoint into `folder` after every epoch; an earlier one there is gone on from.

    Args:
        recipe: how.
        network: what.
        pictures: of the side that the network is built for.
        train: which of them it learns from.
        validation: which of them the rate depends on, and the history is told of.
        folder: there already.
        strategy: on which devices.
        say: receives a line an epoch.

    Raises:
        WeightsError: if weights cannot be used.
        RecipeError: if the checkpoint is damaged.
    """
    side, saved = pictures.pixels.shape[1], load_checkpoint(folder)
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    started_from: list[str]
    with strategy.scope():
        if saved:
            model, started_from = _build(recipe, network, side, NO_WEIGHTS), saved[0].started_from
            _set(model.weights, saved[1], folder)
        else:
            model, started_from = build_network(recipe, network, side, say)
    # Statistics cannot be settled on spread variables: a copy on one device is what is measured and kept.
    plain = model if strategy.inner is None else _build(recipe, network, side, NO_WEIGHTS)
    frozen_epochs = recipe.frozen.epochs if recipe.frozen else 0
    progress = saved[0] if saved else Progress(rate=_first_rate(recipe, 0), started_from=started_from)
    steps = steps_of(pictures.targets[train], recipe)
    compiled = False
    for epoch in range(progress.done, recipe.all_epochs):
        began = time.monotonic()
        frozen = epoch < frozen_epochs
        if epoch == frozen_epochs:
            progress = Progress(history=progress.history, rate=_first_rate(recipe, epoch), started_from=started_from)
        if not compiled or epoch == frozen_epochs:
            with strategy.scope():
                _compile(model, recipe, frozen and bool(started_from))
                if saved and not compiled and epoch != frozen_epochs:
                    _set(model.optimizer.variables, saved[2], folder)
            compiled = True
        model.optimizer.learning_rate.assign(progress.rate)
        _reseed(model, recipe.seed, epoch)
        batches = strategy.spread(epoch_batches(pictures, train, recipe, network.channels, epoch))
        told = model.fit(batches, verbose=0, callbacks=[_Bar(epoch, recipe.all_epochs, steps)]).history
        if plain is not model:
            plain.set_weights(model.get_weights())
        since = epoch + 1 - (frozen_epochs if not frozen else 0)
        _settle_if_stale(plain, pictures, train, network.channels, since * steps, recipe.seed)
        val_loss, val_accuracy = _figures(logits_of(plain, pictures.pixels, validation), pictures.targets[validation])
        row = Epoch(
            epoch=epoch + 1,
            frozen=frozen and bool(started_from),
            rate=progress.rate,
            loss=float(told["loss"][0]),
            accuracy=float(told["accuracy"][0]),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=round(time.monotonic() - began, 2),
        )
        progress = _after(progress, row, recipe)
        # All machines have to read them: the statistics of batch normalization are a mean over machines.
        weights, state = model.get_weights(), [variable.numpy() for variable in model.optimizer.variables]
        if strategy.chief:
            save_checkpoint(folder, progress, weights, state)
        say(_line(row, recipe.all_epochs))
    if plain is not model:
        plain.set_weights(model.get_weights())
        since = recipe.epochs if recipe.epochs else recipe.all_epochs
        _settle_if_stale(plain, pictures, train, network.channels, since * steps, recipe.seed)
    return Trained(plain, progress.history, started_from)


def logits_of(model: Any, pixels: npt.NDArray[np.uint8], indexes: Indexes) -> Floats:
    """Return the logits of some pictures, shape (n, classes)."""
    channels, rows = model.input_shape[3], []
    for first in range(0, len(indexes), _EVALUATED):
        # The last batch is filled up with its first picture: TensorFlow traces the network anew for every other size.
        part = np.resize(indexes[first : first + _EVALUATED], _EVALUATED)
        rows.append(model.predict_on_batch(as_input(pixels[part], channels)))
    return np.concatenate(rows)[: len(indexes)].astype(np.float64)


def as_input(pixels: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.float32]:
    """Return (n, side, side) as network inputs, (n, side, side, channels), 0..1."""
    return np.repeat(pixels[..., np.newaxis], channels, axis=3).astype(np.float32) / np.float32(255)


def _build(recipe: Recipe, network: Network, side: int, weights: Any) -> Any:
    # With generators of TensorFlow the state of dropout is known and can be set; the older way keeps it inside the graph.
    keras.backend.experimental.enable_tf_random_generator()
    try:
        return network.build(len(recipe.classes), weights, side)
    finally:
        keras.backend.experimental.disable_tf_random_generator()


def _first_rate(recipe: Recipe, epoch: int) -> float:
    return recipe.frozen.rate if recipe.frozen and epoch < recipe.frozen.epochs else _cycled(recipe, epoch)


def _cycled(recipe: Recipe, epoch: int) -> float:
    """Return the rate of an epoch where it depends on nothing else: on a cycle that of its middle."""
    if recipe.one_cycle is None:
        return recipe.rate
    return recipe.one_cycle.rate(recipe.rate, (epoch - (recipe.all_epochs - recipe.epochs) + 0.5) / recipe.epochs)


def _compile(model: Any, recipe: Recipe, frozen: bool) -> None:
    freeze(model, frozen)
    makers = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=_SGD_MOMENTUM),
    }
    model.compile(
        optimizer=makers[recipe.optimizer](recipe.rate),
        loss=_binary if recipe.loss == "binary" else keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)


def _binary(labels: Any, logits: Any) -> Any:
    """Binary cross-entropy of the sigmoid of the second logit minus the first, the chance of the second class by a softmax."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels[:, 1], logits=logits[:, 1] - logits[:, 0])


def _set(variables: Any, arrays: list[npt.NDArray[Any]], folder: Path) -> None:
    if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
        raise RecipeError(f"{folder} holds the checkpoint of another network. Choose another folder, or remove it.")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _reseed(model: Any, *seed: int) -> None:
    """Make dropout of an epoch a matter of the seed and the epoch alone."""
    numbers = np.random.default_rng(seed)
    for layer in model.layers:
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        if generator is not None:
            generator.reset_from_seed(int(numbers.integers(2**31)))


def _settle_if_stale(model: Any, pictures: Pictures, train: Indexes, channels: int, steps: int, seed: int) -> None:
    """Measure running statistics again, in place, if `steps` were too few for them to forget what they held before.

    MobileNetV2's batch normalization remembers a thousand steps, and a small data set has twenty an epoch: without this its
    validation figures, and whatever depends on them, are of a network that never was.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    stale = [layer for layer in norms if layer.momentum**steps > _STALE]
    if not stale:
        return
    momenta = [layer.momentum for layer in norms]
    _reseed(model, seed, steps)
    count, batch = _SETTLING
    shown = np.random.default_rng((seed, 1)).permutation(train)[:count]
    for number, first in enumerate(range(0, len(shown), batch)):
        if number and first + batch > len(shown):
            break
        for layer in norms:
            layer.momentum = number / (number + 1)  # so that the result is the mean over all batches
        model(as_input(pictures.pixels[shown[first : first + batch]], channels), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _figures(logits: Floats, targets: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return cross-entropy and accuracy. With two classes the binary loss is the same number."""
    chances = probabilities(logits, 1.0)[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(chances, 1e-12)).mean()), float((logits.argmax(axis=1) == targets).mean())


def _after(progress: Progress, row: Epoch, recipe: Recipe) -> Progress:
    """Return the progress with one epoch more, and the next one's rate.

    On a plateau the rate falls when its figure has stood still, as with Keras' ReduceLROnPlateau.
    """
    history = [*progress.history, row]
    rate, best, waited, plateau = progress.rate, progress.best, progress.waited, recipe.plateau
    if recipe.one_cycle is not None and row.epoch >= recipe.all_epochs - recipe.epochs:
        rate = _cycled(recipe, row.epoch)
    if plateau is not None:
        # Higher is better from here on.
        value = row.val_accuracy if plateau.monitor == "val_accuracy" else -row.val_loss
        if best is None or value > best + _GAIN:
            best, waited = value, 0
        else:
            waited += 1
            if waited >= plateau.patience:
                rate, waited = max(rate * plateau.factor, plateau.floor), 0
    return Progress(history=history, rate=rate, best=best, waited=waited, started_from=progress.started_from)


def _line(row: Epoch, epochs: int) -> str:
    return (
        f"epoch {row.epoch:>3}/{epochs}{' frozen' if row.frozen else ''}  rate {row.rate:.2g}  loss {row.loss:.4f}  "
        f"accuracy {row.accuracy:.3f}  held out: loss {row.val_loss:.4f}  accuracy {row.val_accuracy:.3f}  {row.seconds:.0f} s"
    )


class _Bar(keras.callbacks.Callback):  # type: ignore[misc]
    """A progress bar of one epoch, on a terminal; elsewhere nothing."""

    def __init__(self, epoch: int, epochs: int, steps: int) -> None:
        super().__init__()
        self._bar = click.progressbar(length=steps, label=f"epoch {epoch + 1}/{epochs}", file=sys.stderr)
        self._shown = sys.stderr.isatty()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._shown:
            self._bar.update(1)

    def on_train_end(self, logs: Any = None) -> None:
        if self._shown:
            self._bar.render_finish()
            click.echo("\r\033[K", nl=False, err=True)
