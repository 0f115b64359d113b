"""`cxr-export compress`, from its arguments to its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.contract.bundle import MANIFEST_NAME
from export.begin import held_out_split, read_begun
from export.compress.centring import centred_if_possible
from export.compress.distill import Distiller
from export.compress.pruning import Kernels
from export.compress.representative import representative_by_patient
from export.compress.rows import Table
from export.compress.table import Exam, Say, measure, variants
from export.dataset import CLASSES, load_pixels, patients, targets
from export.errors import ExportError, WeightsError
from export.layouts.registry import read_folder
from export.legacy_keras import keras
from export.networks import borrowed  # noqa: F401 - its own layers have to be known before a file of them is read
from export.networks.catalog import CATALOG, find
from export.outcome import WEIGHTS
from export.protocols import read_plan, replay_plan
from export.reopen import reopened_bundle
from export.requirements import require_trainable
from export.splits import patient_folds


def compress(
    network: str,
    data: Path,
    sets: Sequence[str],
    *,
    weights: Path | None = None,
    epochs: int = 4,
    rate: float = 3e-4,
    kernels: Kernels = "pointwise",
    representative: int = 100,
    folds: int = 5,
    splits: Path | None = None,
    seed: int = 7,
    limit: int | None = None,
    rounds: int = 60,
    say: Say = lambda _: None,
) -> Table:
    """Return the table of one network.

    Args:
        network: a bundle of our network, a folder of `cxr-export train`, a file that Keras has saved (.keras, .h5), or a name of
            the catalogue.
        data: folder of the labelled X-rays.
        sets: which of its data sets.
        weights: for a name of the catalogue: file of the weights; without, they are random.
        epochs: of each fine-tuning.
        rate: highest learning rate.
        kernels: what is pruned.
        representative: how many pictures the ranges are measured on; one a patient.
        folds: the first of so many parts by patient is what is tested on, the rest is fine-tuned on. After a training of a folder
            what it held out is tested on instead.
        splits: recorded by `cxr-export chest` or `crossval`; the last of them takes the place of folds and seed. It is the one that
            the shipped network has not seen the test part of.
        seed: of the parts. The file's network must not have learned from the tested part: give the seed and folds of its training.
        limit: at most so many training pictures, for a quick look.
        rounds: of timing.
        say: receives progress lines.

    Raises:
        ExportError: if the data, the network or its weights cannot be used.
    """
    begun = read_begun(Path(network))
    classes = begun.recipe.classes if begun else list(CLASSES)
    samples = [sample for name in sets for sample in read_folder(data / name, classes)]
    require_trainable(samples, classes, folds)
    if begun:
        held_out = held_out_split(Path(network), begun, samples)
        learned, tested = held_out.train, held_out.validation
    elif splits is not None:
        split = replay_plan(read_plan(splits), samples, classes).splits[-1].split
        learned, tested = np.concatenate([split.train, split.validation]), split.test
    else:
        split = patient_folds(samples, folds=folds, seed=seed)[0]
        learned, tested = split.train, split.test
    model, trained = load_network(network, weights)
    side, channels = int(model.input_shape[1]), int(model.input_shape[3])
    pixels = np.repeat(load_pixels(samples, side)[..., np.newaxis], channels, axis=3)
    train = learned[:limit]
    ranges = representative_by_patient([samples[int(i)] for i in train], representative, seed)
    chosen = [samples[int(i)] for i in tested]
    say(f"{len(train)} pictures to train on, {len(ranges)} of them for the ranges, {len(chosen)} to test on")
    tuner = Distiller(centred_if_possible(model), pixels[train], epochs=epochs, rate=rate, seed=seed)
    made = variants(model, pixels[train][ranges], tuner, kernels=kernels, say=say)
    exam = Exam(pixels[tested], targets(chosen, classes), patients(chosen))
    return measure(Path(network).stem, made, exam, len(classes), trained=trained, rounds=rounds)


def load_network(network: str, weights: Path | None = None) -> tuple[Any, bool]:
    """Return a network by its name, from a file or from a folder of `cxr-export train`, and whether its weights are given ones.

    Raises:
        WeightsError: if a file cannot be read, or is of a network that does not fit.
        ExportError: if there is neither such a name nor such a file.
    """
    if any(known.name == network for known in CATALOG):
        keras.utils.set_random_seed(0)
        model = find(network).build(len(CLASSES))
        if weights is not None:
            _load(model, weights, network)
        return model, weights is not None
    if (Path(network) / MANIFEST_NAME).is_file():
        model = reopened_bundle(Path(network))
        model.trainable = True  # its eyes come out still, and fine-tuning would leave them damaged as pruning made them
        return model, True
    begun = read_begun(Path(network))
    if begun:
        recipe = begun.recipe
        # Of lent weights our own network folds the normalization in; only with them has it the layers that were trained.
        lent = {backbone: Path(file) for backbone, file in recipe.weights.items() if Path(file).is_file()}
        model = find(recipe.network).build(len(recipe.classes), lent, recipe.side)
        _load(model, weights or Path(network) / WEIGHTS, recipe.network)
        return model, True
    if not Path(network).is_file():
        raise ExportError(f"There is no network and no file {network!r}. `cxr-export networks` lists the names.")
    try:
        model = keras.models.load_model(network, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise WeightsError(f"{network} is not a network that Keras saved: {_first_line(error)}") from None
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise WeightsError(f"{network} takes pictures of shape {shape}; a fixed size is needed.")
    outputs = model.output if isinstance(model.output, dict) else {"scores": model.output}
    if "scores" not in outputs or outputs["scores"].shape[-1] != len(CLASSES):
        raise WeightsError(f"{network} does not give scores of the {len(CLASSES)} classes {', '.join(CLASSES)}.")
    return model, True


def _load(model: Any, weights: Path, name: str) -> None:
    try:
        model.load_weights(str(weights))
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(f"{weights} does not hold weights of {name}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
