"""`cxr-export bundle`: a finished training as a bundle that a device verifies and runs.

The device gives one gray channel of INPUT_SIDE pixels. A network of three equal channels gets them inside the graph; one of another
size has to be trained at INPUT_SIDE (`--side`). Temperature and thresholds are fitted to the patients whom the training held out.
They were looked at after every epoch, so the figures that travel with the bundle are named as what they are: optimistic. A network
of our layout also shows where it saw something and tells what is unlike its training; of the others only the logits are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.network.typicality import Typicality
from edge.pixels.network_input import INPUT_SIDE
from export.adapt_data import FEWEST
from export.begin import gather, held_out_split, read_begun
from export.bundle import Words, write_files
from export.calibrate import MISCOVERAGE, fit_thresholds
from export.compress.command import load_network
from export.compress.formats import convert, keras_logits
from export.compress.representative import REPRESENTATIVE, representative_by_patient
from export.dataset import Sample, load_pixels, patients, targets
from export.errors import DataError, RecipeError
from export.evaluate import agreement, figure
from export.legacy_keras import keras
from export.metrics import accuracy_interval
from export.model import UNFAMILIAR, Seen, run
from export.networks.ours import with_maps
from export.onnx import to_onnx
from export.outcome import read_result
from export.requirements import require_empty
from export.typicality import fit_typicality

OURS = "ours"
_SAME = 0.98
"""With a smaller share of pictures of the same class in int8 and float, the person is told."""


@dataclass(frozen=True)
class Fitted:
    """See `export.bundle.Calibrated`."""

    graph: bytes
    temperature: float
    candidate: float
    sensitivity: dict[str, dict[str, float]]
    typicality: Typicality | None


def gray(model: Any) -> Any:
    """Return a network that takes one gray channel, (n, side, side, 1), where `model` takes three equal ones."""
    side, channels = int(model.input_shape[1]), int(model.input_shape[3])
    if channels == 1:
        return model
    picture = keras.Input((side, side, 1), name="picture")
    scores = model(keras.layers.Concatenate(name="channels")([picture] * channels))
    return keras.Model(picture, keras.layers.Activation("linear", name="scores")(scores), name=model.name)


def bundle_training(
    folder: Path,
    data: Path,
    sets: Sequence[str],
    out: Path,
    *,
    name: str,
    version: str,
    licence: str,
    fewest: int = FEWEST,
    say: Callable[[str], None],
) -> None:
    """Write the bundle into `out` and its ONNX file beside it.

    Args:
        folder: of a finished `cxr-export train`.
        data: folder with a folder for each set, as in the training.
        sets: their names, as in the training.
        out: folder to write; nothing may be in it.
        name: of the bundle.
        version: of the bundle.
        licence: one line, of the weights: whoever gave the pictures may set terms.
        fewest: patients of each class that are asked for among those held out.
        say: receives progress lines.

    Raises:
        RecipeError: if the folder holds no finished training, or the network cannot take what the device gives.
        DataError: if the pictures are others than the training's, or too few were held out.
        WeightsError: if the weights cannot be read.
    """
    begun = read_begun(folder)
    if begun is None or read_result(folder) is None:
        raise RecipeError(f"{folder} holds no finished training. Run `cxr-export train` first; it goes on where it stopped.")
    require_empty(out, "no file of another bundle may be among those of this")
    keras.backend.clear_session()  # Keras counts layers without a name, and the count gets into the file
    model, _ = load_network(str(folder))
    side = int(model.input_shape[1])
    if side != INPUT_SIDE:
        raise RecipeError(
            f"The network takes pictures of {side} pixels, the device gives {INPUT_SIDE}. Train it with --side {INPUT_SIDE}."
        )
    recipe = begun.recipe
    _, samples = gather(data, sets, recipe)
    split = held_out_split(folder, begun, samples)
    held = [samples[int(i)] for i in split.validation]
    _require(held, recipe.classes, fewest)
    learned = [samples[int(i)] for i in split.train]
    network = with_maps(model) if recipe.network == OURS else gray(model)
    shown = load_pixels([learned[i] for i in representative_by_patient(learned, REPRESENTATIVE, recipe.seed)])
    graph = convert(network, "int8", shown[..., np.newaxis])
    pixels, truth = load_pixels(held), targets(held, recipe.classes)
    seen = run(graph, pixels)
    logits = seen.logits
    exact = keras_logits(network, pixels[..., np.newaxis])
    found = fit_thresholds(logits, truth, recipe.classes, MISCOVERAGE)
    typicality = _typicality(graph, learned, held, seen) if recipe.network == OURS else None
    agree = agreement(exact, logits)
    same = float(agree["same_class"])
    accuracy = figure(accuracy_interval(truth, logits.argmax(axis=1), len(recipe.classes), patients(held)))
    report = {
        "classes": recipe.classes,
        "network": recipe.network,
        "held_out": {"accuracy": accuracy, "float_against_int8": agree},
        "pictures_sha256": begun.pictures,
        "sets": list(sets),
    }
    words = Words(
        name=name,
        version=version,
        classes=recipe.classes,
        miscoverage=MISCOVERAGE,
        trained_on=[f"{len(learned)} pictures of {len(set(patients(learned)))} patients of {', '.join(sets)}"],
        licence=licence,
        licence_text="",
        intended_use=_intended_use(recipe.classes),
        metrics={"held_out_accuracy_optimistic": accuracy},
        card=card(name, version, report, len(learned)),
        report=report,
    )
    write_files(out, Fitted(graph, found.temperature, found.candidate, found.sensitivity, typicality), words)
    beside = out.parent / f"{out.name}.onnx"
    beside.write_bytes(to_onnx(network))
    say(f"wrote {out} and {beside}: {len(graph):,} bytes, int8 names the class of float for {same:.1%} of {len(held)} pictures")
    if same < _SAME:
        say("That is too few: eight bits cost this network answers. `cxr-export compress` shows what other ways of rounding cost.")


def _typicality(graph: bytes, learned: Sequence[Sample], held: Sequence[Sample], seen: Seen) -> Typicality:
    """Return what is usual among the learned pictures, by how far the held-out ones lie."""
    traits = run(graph, load_pixels(learned)).traits
    kinds = np.unique([sample.source for sample in learned], return_inverse=True)[1]
    return fit_typicality(traits, kinds, seen.traits, UNFAMILIAR)


def _require(held: Sequence[Sample], classes: Sequence[str], fewest: int) -> None:
    for label in classes:
        people = len({sample.patient for sample in held if sample.label == label})
        if people < fewest:
            raise DataError(
                f"The training held out {people} patients of the class {label}; thresholds need at least {fewest}. "
                "Train with a larger `validation` in the recipe, or with more patients."
            )


def _intended_use(classes: Sequence[str]) -> str:
    return (
        "Research and teaching aid for frontal chest radiographs. Not a medical device; never the only basis of a decision. "
        f"It says {', '.join(classes[:-1])} or {classes[-1]}, or that it is not sure."
    )


_WITHOUT_MAPS = (
    "- It cannot tell that a kind of image is new to it: it has no measure of what it has learned. On pictures of another",
    "  hospital it may be confident and wrong.",
    "- It shows no heat map of its own.",
)
_WITH_MAPS = (
    f"- It says of pictures less typical than {UNFAMILIAR:.0%} of those that its training held out that they are new to it.",
    "  How many of another hospital's pictures that catches was not measured for this training: try it on pictures of yours.",
    "- It shows where it saw evidence for its answer, not where disease is.",
)


def card(name: str, version: str, report: dict[str, Any], learned: int) -> str:
    """Return MODEL_CARD.md."""
    row = report["held_out"]["accuracy"]
    return "\n".join(
        [
            "<!-- Written by `cxr-export bundle` from report.json. -->",
            f"# Model card: {name} {version}",
            "",
            _intended_use(report["classes"]),
            "",
            f"Network {report['network']} of `cxr-export networks`, trained on {learned} pictures of {', '.join(report['sets'])}.",
            "",
            *(_WITH_MAPS if report["network"] == OURS else _WITHOUT_MAPS),
            f"- Accuracy on {row['pictures']} pictures of {row['patients']} patients that the training held out:",
            f"  {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}).",
            "  They were looked at after every epoch, and the thresholds come from them: the figure is optimistic.",
            "  `cxr-export crossval` and `evaluate` give honest ones.",
            f"- int8 names the class of float for {report['held_out']['float_against_int8']['same_class']:.1%} of them.",
            "",
        ]
    )
