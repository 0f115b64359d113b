"""`cxr-export gate`: from the data sets and a bundle of `cxr-export chest` to that bundle with a gate, and its measurement."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import CxrError
from edge.network.bundle import Bundle, load_bundle
from export.dataset import read_dataset
from export.errors import ReportError
from export.gate import EPOCHS, HELD_OUT, HIGHEST_LIMIT, REFUSED_OF_KNOWN, make_gate
from export.gate_files import MadeGate, write_gate
from export.gate_measure import SEED, Say, by_kind, by_source, judged, measure, refused_good
from export.gate_strange import strange_things
from export.gate_views import NOT_CHEST, Views, make_views, other_things, phantoms, radiographs
from export.material import LUNGS_OF, TRAINED_ON, teaching_children
from export.report.bench import shipped_split

PHANTOMS = 60

_CHEST_SEED = 1
"""Of `cxr-export chest`, for which children it learns lungs from; others are not learned from here either."""


def gate(folder: Path, data: Path, say: Say, *, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train a gate for the bundle in `folder`, measure it, write both there; return the measurement.

    The gate has not learned from the test part of the bundle, so that what that has not seen stays unseen. The same inputs give the
    same bytes.

    Args:
        folder: of a bundle that `cxr-export chest` has made of `data`.
        data: folder of the data sets.
        say: receives progress lines.
        epochs: fewer for a quick trial.

    Raises:
        DataError: if data sets are missing.
        ReportError: if the bundle cannot be used, or was not made of this data.
    """
    bundle = _opened(folder)
    samples = [sample for name in TRAINED_ON for sample in read_dataset(data, name)]
    unseen = {samples[int(place)].patient for place in shipped_split(folder, samples).test}
    children = teaching_children(read_dataset(data, LUNGS_OF), _CHEST_SEED)
    subjects = chain(radiographs(samples), radiographs(children), other_things(data / NOT_CHEST), phantoms(PHANTOMS))
    views = make_views(subjects, bundle.classifier, SEED)
    say(f"{len(views.kind)} views of {len(set(views.file))} pictures")

    def make(some: Views) -> MadeGate:
        return make_gate(some, SEED, epochs=epochs)

    tested = np.isin(views.patient, sorted(unseen))
    made = make(views.only(~tested))
    shipped = judged(made, views.only(tested))
    say("the shipped gate is made")
    report = {
        "refused_of_known": REFUSED_OF_KNOWN,
        "highest_limit": HIGHEST_LIMIT,
        "held_out": HELD_OUT,
        "epochs": epochs,
        "seed": SEED,
        "limit": made.limit,
        "bytes": len(made.graph) + made.weights.size * 4,
        "model_sha256": bundle.manifest.model_sha256,
        **measure(views, make, say),
        "shipped": by_kind(shipped),
        "shipped_by_source": by_source(shipped),
        "shipped_refused_good": refused_good(shipped),
        "strange": strange_things(bundle.classifier, made.on_device()),
    }
    write_gate(folder, made, report)
    _opened(folder)
    return report


def _opened(folder: Path) -> Bundle:
    try:
        return load_bundle(folder)
    except CxrError as error:
        raise ReportError(str(error)) from None
