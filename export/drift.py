"""How often the device's watch over drift is wrong, and how soon it is right, with real pictures and through the device's code.

The pictures are of patients from whom the shipped network has learned nothing. A site is a stream of pictures drawn from one kind,
again and again at random; a change is another kind from some picture on. Nothing is chosen on what is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge.commissioning.drift import Drift
from edge.errors import Refused
from edge.network.bundle import Bundle, load_bundle
from edge.pixels.decode import decode_file
from edge.pixels.preprocess import preprocess_image
from export.dataset import Sample, read_dataset
from export.splits import patient_folds

Say = Callable[[str], None]
Change = Callable[[Image.Image], Image.Image]

_CHILDREN = 400
_QUIET_RUNS, _QUIET_LENGTH = 200, 20_000
_RUNS, _PATIENCE = 400, 1000
_BEFORE = (150, 1000)
"""How many pictures of its own a site has had when it changes: just released, and later."""
_SHARES = (1.0, 0.25)
"""Of the pictures that are of the other kind from then on."""
_GAMMAS = (0.5, 0.7, 1.4, 2.0)


@dataclass(frozen=True)
class Kind:
    """typicalities: of the pictures that the gate lets through. refused: how many it does not. patients: behind all of them."""

    typicalities: tuple[float, ...]
    refused: int
    patients: int


def seen(bundle: Bundle, samples: Sequence[Sample], change: Change = lambda image: image) -> Kind:
    """Return what the device measures of pictures. change: of the decoded frame, mode L."""
    values = []
    for sample in samples:
        picture = np.asarray(preprocess_image(change(decode_file(sample.file).image)))
        try:
            typicality = bundle.answer(bundle.scores(picture)).typicality
        except Refused:
            continue
        values.append(1.0 if typicality is None else typicality)
    return Kind(tuple(values), len(samples) - len(values), len({sample.patient for sample in samples}))


def gamma(power: float) -> Change:
    """Return what an export with another curve does: white and black stay, what lies between moves."""
    table = [round(255 * (value / 255) ** power) for value in range(256)]
    return lambda image: image.point(table)


def kinds_of(bundle: Bundle, data: Path, say: Say) -> tuple[dict[str, Kind], dict[str, dict[str, Kind]]]:
    """Return the sites by name, and for each the kinds that it may change into.

    Args:
        bundle: the shipped one, or one that was trained on the same folds.
        data: folder of the data sets that it was made from.
        say: receives progress lines.
    """
    from export.chest import FOLDS, SHIPPED_FOLD
    from export.material import LUNGS_OF, SPLIT_SEED, TRAINED_ON, teaching_children

    labelled = [sample for name in TRAINED_ON for sample in read_dataset(data, name)]
    unseen = [labelled[int(i)] for i in patient_folds(labelled, folds=FOLDS, seed=SPLIT_SEED)[SHIPPED_FOLD].test]
    children = read_dataset(data, LUNGS_OF)
    taught = {child.patient for child in teaching_children(children, 1)}
    strangers = [child for child in children if child.patient not in taught][:: max(len(children) // _CHILDREN, 1)]
    by_source = {source: [sample for sample in unseen if sample.source == source] for source in sorted({s.source for s in unseen})}
    sites = {source: seen(bundle, samples) for source, samples in by_source.items()}
    young = seen(bundle, strangers)
    changes: dict[str, dict[str, Kind]] = {}
    for source, samples in by_source.items():
        changes[source] = {f"{name}": kind for name, kind in sites.items() if name != source} | {"children": young}
        changes[source] |= {f"gamma {power:g}": seen(bundle, samples, gamma(power)) for power in _GAMMAS}
        say(f"{source}: {len(samples)} pictures seen, as they are and with {len(_GAMMAS)} other exposures")
    return sites, changes


def first_alarm(own: Kind, other: Kind, share: float, before: int, length: int, once_in: float, seed: int) -> int | None:
    """Return the first picture, 1 for the first after the change, at which the watch alarms; None for never.

    An alarm before the change is 0 or less. Args: share: of the pictures after the change that are of the other kind.
    """
    rng = np.random.default_rng(seed)
    changed = (np.arange(length) >= before) & (rng.random(length) < share)
    values = np.where(changed, rng.choice(other.typicalities, length), rng.choice(own.typicalities, length))
    watch = Drift(once_in)
    for number, (value, tie) in enumerate(zip(values.tolist(), (1 - rng.random(length)).tolist(), strict=True)):
        if watch.see(value, min(tie, 1 - 1e-12)):
            return number + 1 - before
    return None


def quiet(own: Kind, once_in: float, runs: int, length: int) -> dict[str, Any]:
    """Return how many of `runs` streams without a change alarm within `length` pictures, and the bound of theory."""
    alarms = [first_alarm(own, own, 0.0, 0, length, once_in, seed) is not None for seed in range(runs)]
    return {"runs": runs, "pictures": length, "alarms": sum(alarms), "at_most_expected": runs * length / once_in}


def delays(own: Kind, other: Kind, share: float, before: int, once_in: float, runs: int) -> dict[str, Any]:
    """Return after how many pictures the change is found: of the runs that have not alarmed before it."""
    length = before + _PATIENCE
    found = [first_alarm(own, other, share, before, length, once_in, seed) for seed in range(runs)]
    after = [delay if delay is not None else _PATIENCE + 1 for delay in found if delay is None or delay > 0]
    late = sum(delay > _PATIENCE for delay in after)
    # "inverted_cdf" takes one of the delays; what was not found in time counts as later than all.
    last = after or [_PATIENCE + 1]
    median, most = (float(np.quantile(last, level, method="inverted_cdf")) for level in (0.5, 0.95))
    return {
        "share": share,
        "before": before,
        "runs": runs,
        "alarmed_before": runs - len(after),
        "not_found": late,
        "median": None if median > _PATIENCE else int(median),
        "within_95_percent": None if most > _PATIENCE else int(most),
    }


def measure(folder: Path, data: Path, once_in: float, say: Say, *, scale: float = 1.0) -> dict[str, Any]:
    """Return the figures of `docs/adr/0018`.

    Args:
        folder: of the bundle.
        data: of the data sets that it was made from.
        once_in: see `edge.commissioning.drift.Drift`.
        say: receives progress lines.
        scale: of the numbers of runs; less than 1 for a quick trial.
    """
    runs, quiet_runs = max(round(_RUNS * scale), 2), max(round(_QUIET_RUNS * scale), 2)
    sites, changes = kinds_of(load_bundle(folder), data, say)
    report: dict[str, Any] = {"once_in": once_in, "not_found_after": _PATIENCE, "sites": {}}
    for name, own in sites.items():
        rows = {}
        for other, kind in changes[name].items():
            # Of a kind that the gate refuses nearly always, nothing comes that could be watched.
            rows[other] = _described(kind) | {
                "found": [delays(own, kind, share, before, once_in, runs) for share in _SHARES for before in _BEFORE]
                if kind.typicalities
                else []
            }
            say(f"{name} turns into {other}: measured")
        report["sites"][name] = _described(own) | {"quiet": quiet(own, once_in, quiet_runs, _QUIET_LENGTH), "turns_into": rows}
    return report


def _described(kind: Kind) -> dict[str, Any]:
    return {
        "pictures": len(kind.typicalities),
        "patients": kind.patients,
        "refused": kind.refused,
        "mean_typicality": round(float(np.mean(kind.typicalities)), 4) if kind.typicalities else None,
    }
