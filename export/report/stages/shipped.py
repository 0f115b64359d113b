"""Stages that only score the bundle: on patients of its own sets that it has not seen, and where it does not belong."""

from __future__ import annotations

import numpy as np

from edge.network.bundle import Bundle
from edge.network.classify import Scores
from edge.network.decide import softmax
from export.compress.table import Exam, Variant, measure
from export.dataset import CLASSES, Pixels, Sample, load_lungs, read_dataset
from export.errors import DataError
from export.explain import class_activation_map, heat_in_lungs
from export.metrics import Floats, bounded, draws
from export.predictions import Predictions
from export.report.bench import HELD_OUT, SETS, Bench, Gathered
from export.report.external import EXTERNAL, behind_gate, look, score_bundle
from export.report.inputs import Explained, HeatMap, SamplePicture, Span
from export.report.pictures import png
from export.splits import patient_folds

_EACH = 2
"""Samples of each outcome."""
_SAMPLE_SEED = 5
CAM = "class activation map"
CHILDREN = "kermany"
_CHILD_FOLDS, _CHILD_SEED = 5, 7


def shipped(bench: Bench, gathered: Gathered) -> None:
    """Score the bundle on the test patients of its fold, under all conditions; note what it has learned from; pick samples."""
    test, learned = bench.chosen(bench.split.test), bench.chosen(np.concatenate([bench.split.train, bench.split.validation]))
    seen = look(test, bench.bundle.manifest.input_side)
    found = score_bundle(bench.bundle, seen, protocol=HELD_OUT)
    gathered.predictions += found
    _refuse(gathered, seen.refused)
    gathered.notes.append(
        f"The network was trained and tuned on {len(learned)} pictures of {len({s.patient for s in learned})} patients of "
        f"{' and '.join(SETS)}. None of these is in any figure. The main figures are of the other {len(test)} pictures, of "
        f"{len({s.patient for s in test})} patients. From the masks of some children of {CHILDREN} it also "
        "knows what lungs look like, not what a disease does; and pictures of other diseases have taught it that they are not "
        "covid19, so how it answers such pictures is in no figure here."
    )
    scores = [bench.bundle.classifier.run(picture) for picture in seen.pixels]
    graph = (bench.folder / bench.bundle.manifest.model_file).read_bytes()
    name = found[0].network
    exam = Exam(seen.pixels[..., np.newaxis], found[0].truth(), found[0].patients())
    file = Variant("int8, as shipped", "int8", 0.0, graph, None)
    gathered.compression.append(measure(name, [file], exam, len(CLASSES), trained=True))
    heats = [class_activation_map(one.heat, int(one.logits.argmax())) if one.heat.size else np.zeros((1, 1)) for one in scores]
    if all(one.heat.size for one in scores):
        gathered.explained += explained(name, CAM, seen.samples, heats)
    for place in pick(found[0]):
        gathered.samples.append(_sample(bench.bundle, seen.samples[place], seen.pixels[place], scores[place], heats[place], name))


def children(bench: Bench, gathered: Gathered) -> None:
    """Score children: from some it knows what lungs look like, from none what a disease does; it is not meant for them."""
    if not (bench.data / CHILDREN).is_dir():
        gathered.notes.append(f"The set {CHILDREN} was not there; what the network does with children was not measured.")
        return
    samples = read_dataset(bench.data, CHILDREN)
    unseen = patient_folds(samples, folds=_CHILD_FOLDS, seed=_CHILD_SEED)[0].test
    seen = look([samples[int(place)] for place in unseen], bench.bundle.manifest.input_side)
    _refuse(gathered, seen.refused)
    gathered.predictions += score_bundle(bench.bundle, seen, protocol=f"{EXTERNAL}: children, whom it is not meant for")[:1]


def no_chests(bench: Bench, gathered: Gathered) -> None:
    """Show the device what is no chest radiograph at all; it should refuse, or at least not answer."""
    folder = bench.data / "not_chest"
    if not folder.is_dir():
        gathered.notes.append("No pictures of other things than chests were there; whether it refuses them was not measured.")
        return
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".png"))
    things = [Sample(file, file.name.split("-")[0], file.name, folder.name, folder.name) for file in files]
    try:
        seen = behind_gate(bench.bundle, look(things, bench.bundle.manifest.input_side))
    except DataError:
        gathered.notes.append("The device refused every picture that is no chest radiograph; its gate has learned from such.")
        return
    turned_away = len(things) - len(seen.samples)
    # The shipped gate was shown these very pictures as wrong ones, so this is no measure of what it does with others.
    learned = (
        " Its gate has learned from these very pictures; how it does with others is in its own report." if bench.bundle.gate else ""
    )
    gathered.notes.append(f"Of {len(things)} pictures of no chest radiograph at all the device refused {turned_away}.{learned}")
    _refuse(gathered, seen.refused)
    if seen.samples:
        gathered.predictions += score_bundle(bench.bundle, seen, protocol=f"{EXTERNAL}: no chest radiographs, let through")[:1]


def explained(network: str, method: str, samples: list[Sample], heats: list[Floats]) -> list[Explained]:
    """Return the mean share of heat inside the lungs over the pictures that have a mask; nothing where there are none."""
    masked = [place for place, sample in enumerate(samples) if sample.lung_mask is not None]
    if not masked:
        return []
    chosen = [samples[place] for place in masked]
    lungs = load_lungs(chosen)
    values = np.array([heat_in_lungs(heats[place], mask) for place, mask in zip(masked, lungs, strict=True)])
    known = np.isfinite(values)
    if not known.any():
        return []
    people = np.array([sample.patient for sample in chosen])[known]
    weights = draws(people)
    drawn = weights @ values[known] / weights.sum(axis=1)
    found = bounded(float(values[known].mean()), drawn, int(known.sum()), len(set(people)))
    assert found is not None
    return [
        Explained(
            network=network,
            method=method,
            heat_in_lungs=Span(value=found.value, low=found.low, high=found.high),
            lung_area=float(lungs[known].mean()),
            pictures=found.pictures,
            patients=found.patients,
        )
    ]


def pick(predictions: Predictions, each: int = _EACH) -> list[int]:
    """Return the places of `each` right, wrong and abstained pictures, drawn by chance, so that nobody chose them."""
    logits, truth = predictions.scores(), predictions.truth()
    chances = np.stack([softmax(row / t) for row, t in zip(logits, predictions.temperature, strict=True)])
    answered = np.array(predictions.answered or chances.max(axis=1) >= np.array(predictions.threshold), dtype=np.bool_)
    right = logits.argmax(axis=1) == truth
    rng = np.random.default_rng(_SAMPLE_SEED)
    parts = (answered & right, answered & ~right, ~answered)
    return [int(place) for part in parts for place in rng.permutation(np.flatnonzero(part))[:each]]


def _sample(bundle: Bundle, sample: Sample, pixels: Pixels, scores: Scores, heat: Floats, network: str) -> SamplePicture:
    manifest = bundle.manifest
    chances = softmax(scores.logits / manifest.temperature)
    return SamplePicture(
        picture=png(pixels),
        dataset=sample.dataset,
        label=sample.label,
        answer=manifest.classes[int(chances.argmax())],
        abstained=bundle.answer(scores).abstained,
        probabilities={name: round(float(chance), 4) for name, chance in zip(manifest.classes, chances, strict=True)},
        heat=[HeatMap(network=network, method=CAM, values=heat.round(4).tolist())] if scores.heat.size else [],
    )


def _refuse(gathered: Gathered, refused: dict[str, int]) -> None:
    for reason, count in refused.items():
        gathered.refused[reason] = gathered.refused.get(reason, 0) + count
