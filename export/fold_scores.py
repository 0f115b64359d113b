"""The tables of the publications: P2's five metrics of each fold, P3's weighted ones, confusion matrices by fold and summed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from export.metrics import Floats, accuracy

_COLUMNS = ("sensitivity", "specificity", "precision", "f1", "accuracy")
_WEIGHTED = ("weighted_precision", "weighted_recall", "weighted_f1")


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """All 0..1. A share of nothing, such as the precision where nobody was called positive, is 0.

    sensitivity, specificity, precision, f1: of the positive class against the rest. accuracy: over all classes. weighted_*: means
    over the classes, each weighted by its pictures (P3's, scikit-learn's `weighted` average). confusion: counts, the rows are the
    truth.
    """

    name: str
    pictures: int
    sensitivity: float
    specificity: float
    precision: float
    f1: float
    accuracy: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    confusion: list[list[int]]


def scores_of(name: str, table: Floats, positive: int) -> Scores:
    """Return the figures of one confusion table, shape (classes, classes), rows are the truth."""
    hits, truth, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    recall, precision = _share(hits, truth), _share(hits, called)
    f1 = _share(2 * hits, truth + called)
    total = float(table.sum())
    rest = total - truth[positive]
    clear = rest - (called[positive] - hits[positive])
    share = truth / max(total, 1)
    return Scores(
        name=name,
        pictures=int(total),
        sensitivity=float(recall[positive]),
        specificity=float(clear / rest) if rest else 0.0,
        precision=float(precision[positive]),
        f1=float(f1[positive]),
        accuracy=accuracy(table) if total else 0.0,
        weighted_precision=float(precision @ share),
        weighted_recall=float(recall @ share),
        weighted_f1=float(f1 @ share),
        confusion=table.astype(int).tolist(),
    )


def score_table(rows: Sequence[Scores], classes: Sequence[str], positive: int) -> str:
    """Return the folds and their summed ("overlapped") confusion matrix as text."""
    head = "  ".join(f"{name:>11}" for name in (*_COLUMNS, "w.precision", "w.recall", "w.f1"))
    lines = [f"{classes[positive]} against the rest; accuracy and weighted (w.) means over all classes", f"{'':<10}{head}"]
    for row in rows:
        figures = "  ".join(f"{getattr(row, name):>11.4f}" for name in (*_COLUMNS, *_WEIGHTED))
        lines.append(f"{row.name:<10}{figures}")
    width = max(len(name) for name in classes) + 2
    lines.append("summed confusion matrix, rows are the truth")
    lines.append(" " * width + "".join(f"{name:>{width}}" for name in classes))
    lines += [
        f"{name:<{width}}" + "".join(f"{count:>{width}}" for count in counts)
        for name, counts in zip(classes, rows[-1].confusion, strict=True)
    ]
    return "\n".join(lines)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
