"""Stages that train: far too briefly for good figures, long enough that the comparison and its charts are of real trainings."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from export.batches import Pictures
from export.calibrate import fit_temperature, fit_threshold
from export.compress.formats import Runner, convert
from export.compress.representative import representative_by_patient
from export.compress.table import Exam, Variant, measure
from export.dataset import CLASSES, Pixels, load_pixels, targets
from export.explain import Maps, grad_cam, gradient_saliency
from export.metrics import Floats
from export.networks.catalog import find
from export.networks.ours import BACKBONE, WEIGHTS
from export.predictions import Precision, Predictions
from export.recipe import Augmentation, Recipe, load_recipe, with_overrides
from export.report.bench import HELD_OUT, Bench, Gathered, predictions_of
from export.report.inputs import HeatMap
from export.report.stages.shipped import explained, pick
from export.training import as_input, logits_of, train_network

OURS, P3 = "ours, briefly", "p3"
SALIENCY, GRAD_CAM = "gradient saliency", "Grad-CAM"
SIDE = 96
OURS_EPOCHS, P3_EPOCHS = 10, 6
_REPRESENTATIVE = 64


def ours_briefly(bench: Bench, gathered: Gathered) -> None:
    """Train the shipped network's layout by a plain recipe on small pictures; float32 and int8 of the same weights."""
    lent = bench.data / WEIGHTS
    recipe = Recipe(
        network="ours",
        classes=list(CLASSES),
        side=SIDE,
        epochs=OURS_EPOCHS,
        batch=32,
        optimizer="adamw",
        rate=2e-4,  # ten times as much closes the lung map at once, and nothing is learned any more
        augmentation=Augmentation(rotation=8, zoom=0.1, width_shift=0.05, height_shift=0.05),
        balance="oversample",
        weights={BACKBONE: str(lent)} if lent.is_file() else {},
    )
    model, pixels, exact = _train(bench, gathered, OURS, recipe)
    split, given = bench.split, pixels[..., np.newaxis]
    shown = split.train[representative_by_patient(bench.chosen(split.train), _REPRESENTATIVE, recipe.seed)]
    both: tuple[Precision, ...] = ("float32", "int8")
    forms = [Variant(precision, precision, 0.0, convert(model, precision, given[shown]), model) for precision in both]
    runner = Runner(forms[-1].graph)
    logits, held = runner.logits(given[split.test]), runner.logits(given[split.validation])
    gathered.predictions.append(_judged(OURS, bench, logits, held, "int8", recipe))
    exam = Exam(given[split.test], exact.truth(), exact.patients())
    gathered.compression.append(measure(OURS, forms, exam, len(CLASSES), trained=True))
    _explain(bench, gathered, OURS, SALIENCY, gradient_saliency(model, *_asked(model, bench, pixels, exact)))


def p3_briefly(bench: Bench, gathered: Gathered) -> None:
    """Train P3's own network by its recipe, but on smaller pictures and for fewer epochs."""
    recipe = with_overrides(load_recipe("p3"), epochs=P3_EPOCHS, side=SIDE)
    model, pixels, exact = _train(bench, gathered, P3, recipe)
    _explain(bench, gathered, P3, GRAD_CAM, grad_cam(model, *_asked(model, bench, pixels, exact)))


def _train(bench: Bench, gathered: Gathered, name: str, recipe: Recipe) -> tuple[Any, Pixels, Predictions]:
    """Train on the bundle's training part; return the network, all pictures at its side, and what it says of the test part."""
    pixels = load_pixels(bench.samples, recipe.side or find(recipe.network).side)
    pictures = Pictures(pixels, targets(bench.samples), len(CLASSES))
    split = bench.split
    with TemporaryDirectory() as folder:
        trained = train_network(recipe, find(recipe.network), pictures, split.train, split.validation, Path(folder), say=bench.say)
    gathered.histories[name] = trained.history
    logits, held = logits_of(trained.model, pixels, split.test), logits_of(trained.model, pixels, split.validation)
    gathered.predictions.append(_judged(name, bench, logits, held, "float32", recipe))
    return trained.model, pixels, gathered.predictions[-1]


def _judged(network: str, bench: Bench, logits: Floats, held: Floats, precision: Precision, recipe: Recipe) -> Predictions:
    """Temperature and threshold come from the validation patients."""
    temperature = fit_temperature(held, targets(bench.chosen(bench.split.validation)))
    return predictions_of(
        network,
        bench.chosen(bench.split.test),
        logits,
        precision=precision,
        temperature=temperature,
        threshold=fit_threshold(held, temperature),
        protocol=f"{HELD_OUT}; {recipe.side} pixels, {recipe.all_epochs} epochs only",
    )


def _asked(model: Any, bench: Bench, pixels: Pixels, found: Predictions) -> tuple[Any, Any]:
    """Return the test pictures as network inputs, and for each the class that the network gives it."""
    given = as_input(pixels[bench.split.test], int(model.input_shape[3]))
    return given, np.asarray(found.scores().argmax(axis=1), dtype=np.int64)


def _explain(bench: Bench, gathered: Gathered, network: str, method: str, maps: Maps) -> None:
    gathered.explained += explained(network, method, bench.chosen(bench.split.test), list(maps))
    _lay_over(gathered, network, method, maps)


def _lay_over(gathered: Gathered, network: str, method: str, maps: Floats) -> None:
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
