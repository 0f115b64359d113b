"""How well gates refuse: patients of another fold, and a source or a kind of thing that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.gate import GOOD
from export.gate_files import MadeGate
from export.gate_views import DRAWN, Strings, Views
from export.metrics import bounded, draws
from export.wrong_views import REASON_OF, REASONS

FOLDS = 3
SEED = 1

Make = Callable[[Views], MadeGate]
Say = Callable[[str], None]
Bools = npt.NDArray[np.bool_]
Row = dict[str, float | int]


@dataclass(frozen=True)
class Verdicts:
    """What gates said of views: refused or not, and as what (a reason code even where not refused)."""

    views: Views
    refused: Bools
    reason: Strings


def judged(made: MadeGate, views: Views) -> Verdicts:
    """Return what a gate says of views."""
    from export.gate import chances_of

    chances = chances_of(made.on_device(), views)
    likeliest = np.array(made.reasons, dtype=np.str_)[1 + chances[:, 1:].argmax(axis=1)]
    return Verdicts(views, chances[:, 0] < made.limit, likeliest)


def in_folds(views: Views, make: Make, say: Say) -> Verdicts:
    """Return verdicts on all views, each by a gate that has learned nothing of that patient."""
    names = np.unique(views.patient)
    fold_of = dict(zip(np.random.default_rng(SEED).permutation(names), np.arange(len(names)) % FOLDS, strict=True))
    fold = np.array([fold_of[name] for name in views.patient])
    parts = []
    for number in range(FOLDS):
        parts.append(judged(make(views.only(fold != number)), views.only(fold == number)))
        say(f"gate of fold {number} measured")
    return Verdicts(
        Views(*(np.concatenate([vars(part.views)[name] for part in parts]) for name in vars(views))),
        np.concatenate([part.refused for part in parts]),
        np.concatenate([part.reason for part in parts]),
    )


def without(views: Views, column: Strings, value: str, make: Make, say: Say) -> Verdicts:
    """Return verdicts on the views of one source, or one kind, by a gate that has seen none of it, nor of its patients."""
    out = column == value
    told = judged(make(views.only(~out & ~np.isin(views.patient, views.patient[out]))), views.only(out))
    say(f"gate without {value} measured")
    return told


def by_kind(verdicts: Verdicts) -> dict[str, Any]:
    """Return kind -> share refused with its interval over patients, and the share of these that got the right reason."""
    rows = {}
    for kind in REASON_OF:
        chosen = verdicts.views.kind == kind
        if chosen.any():
            row: dict[str, Any] = {"refused": share(verdicts.refused[chosen], verdicts.views.patient[chosen])}
            if REASON_OF[kind] != GOOD and verdicts.refused[chosen].any():
                named = verdicts.reason[chosen & verdicts.refused]
                row["right_reason"] = round(float((named == REASON_OF[kind]).mean()), 4)
            rows[kind] = row
    return rows


def by_source(verdicts: Verdicts) -> dict[str, Any]:
    """Return source -> kind -> as `by_kind`; things that are no chest stand under their own kind alone."""
    rows = {}
    for source in sorted(set(verdicts.views.source)):
        chosen = verdicts.views.source == source
        if source not in REASON_OF:
            rows[str(source)] = by_kind(Verdicts(verdicts.views.only(chosen), verdicts.refused[chosen], verdicts.reason[chosen]))
    return rows


def share(flags: Bools, patients: Strings) -> Row:
    """Return a share with its 95% interval, bootstrapped over patients."""
    weights = draws(patients)
    found = bounded(float(flags.mean()), weights @ flags / weights.sum(axis=1), len(flags), len(set(patients)))
    assert found is not None
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(found).items()}


def refused_good(verdicts: Verdicts) -> list[dict[str, str]]:
    """Return the good pictures, as they are, that were refused: file and reason."""
    places = np.flatnonzero(verdicts.refused & (verdicts.views.kind == GOOD))
    rows = [{"file": str(verdicts.views.file[i]), "reason": str(verdicts.reason[i])} for i in places]
    return sorted(rows, key=lambda row: row["file"])


def measure(views: Views, make: Make, say: Say) -> dict[str, Any]:
    """Return the report of gates that `make` makes of some of the views."""
    folds = in_folds(views, make, say)
    sources = [str(source) for source in sorted(set(views.source)) if source not in REASON_OF and source != DRAWN]
    things = [kind for kind in REASON_OF if REASON_OF[kind] == "not_a_chest"]
    return {
        "reasons": list(REASONS),
        "views": {str(kind): int((views.kind == kind).sum()) for kind in sorted(set(views.kind))},
        "folds": by_kind(folds),
        "folds_by_source": by_source(folds),
        "left_out": {source: by_kind(without(views, views.source, source, make, say)) for source in sources},
        "never_seen": {kind: by_kind(without(views, views.kind, kind, make, say))[kind] for kind in things},
        "refused_good": refused_good(folds),
    }


def mean_of(rows: dict[str, Any], kinds: Sequence[str] | None = None) -> float:
    """Return the mean over the wrong kinds of the share refused."""
    chosen = [name for name in rows if REASON_OF[name] != GOOD] if kinds is None else kinds
    return float(np.mean([rows[name]["refused"]["value"] for name in chosen]))
