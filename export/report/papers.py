"""What the publications printed, as data, and beside it what the same network got here.

P1 to P5 are the sources that the project implements. P5's printed figures contradict its own confusion matrices: their rows sum to
92 and 268 for all three networks, so rows are the truth, and four figures are swapped. They are computed again from the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.metrics import Estimate
from export.report.compare import Named

_GROUPED = "Nothing says that the pictures of a patient were kept on one side."


@dataclass(frozen=True)
class Printed:
    """One row of a publication. figures: name -> share as printed. corrected: name -> share, where the print contradicts itself.

    network: name in the catalogue. needs: what it takes to run the row.
    """

    source: str
    network: str
    classes: int
    protocol: str
    figures: dict[str, float]
    why: str
    needs: str
    corrected: dict[str, float]


def _from_matrix(found: int, missed: int, alarms: int, cleared: int) -> dict[str, float]:
    total = found + missed + alarms + cleared
    values = {
        "accuracy": (found + cleared) / total,
        "sensitivity": found / (found + missed),
        "specificity": cleared / (cleared + alarms),
        "PPV": found / (found + alarms),
        "NPV": cleared / (cleared + missed),
    }
    return {name: round(value, 4) for name, value in values.items()}


def _row(
    source: str,
    network: str,
    classes: int,
    protocol: str,
    why: str,
    needs: str,
    /,
    *,
    fix: dict[str, float] | None = None,
    **printed: float,
) -> Printed:
    return Printed(source, network, classes, protocol, printed, why, needs, fix or {})


_P1 = f"1824 pictures that were augmented before they were split: copies of one picture can be on both sides. {_GROUPED}"
_P2 = f"147 pictures: 10 folds of 14 or 15, one picture is 7 points of a fold. Its text also says 98.08%. {_GROUPED}"
_P3 = f"It says itself that accuracy stays with most of the lung removed, so it has learned something else. {_GROUPED}"
_P4 = f"Covid pictures were multiplied by augmentation; whether before the split is not said. {_GROUPED}"
_P5 = (
    "It says itself that a patient may be on both sides. Printed recall and precision, and specificity and NPV, are swapped; "
    "corrected here from its matrix."
)
_PEER = f"Every covid picture comes from another source than all others. {_GROUPED}"
_LARGE = "hours of “cxr-export crossval” with its recipe on an accelerator"
_OWN = "“cxr-export crossval” with its recipe"
_P3_FIRST = "hold-out of 589"
_RUN_AS = {
    "80/20 hold-out": "holdout",
    "hold-out": "holdout",
    _P3_FIRST: "p3",
    "nested 5-fold": "nested5",
    "5-fold": "fivefold",
    "10-fold": "tenfold",
}
"""What `cxr-export crossval` calls it."""

PRINTED: tuple[Printed, ...] = (
    _row("P1 ResNet50", "p1-resnet50", 2, "80/20 hold-out", _P1, _LARGE, accuracy=0.98, AUC=0.975),
    _row("P1 AlexNet", "p1-alexnet", 2, "80/20 hold-out", _P1, _LARGE, accuracy=0.929),
    _row("P1 VGG19", "p1-vgg19", 2, "80/20 hold-out", _P1, _LARGE, accuracy=0.942),
    _row("P2 ResNet-50", "p2-resnet50", 2, "10-fold", _P2, _LARGE, accuracy=0.9933, sensitivity=1.0, specificity=0.9865, F1=0.9932),
    _row("P3 own CNN, first procedure", "p3", 3, _P3_FIRST, _P3, _OWN, accuracy=0.93),
    _row("P3 own CNN, 5-fold", "p3", 3, "nested 5-fold", _P3, _OWN, accuracy=0.9064, precision=0.92, recall=0.89, F1=0.8988),
    _row("P4 after COVID-Net", "p4-covidnet", 4, "hold-out", _P4, f"a set with lung opacity, and {_OWN}"),
    _row("P4 ResNet101 + ResNet152", "p4-fusion", 4, "hold-out", _P4, f"a set with lung opacity, and {_LARGE}", accuracy=0.961),
    _row("P5 ResNet50 alone", "p5-resnet50", 2, "80/20 hold-out", _P5, _LARGE, accuracy=0.7722),
    _row("P5 ResNet152V2 alone", "p5-resnet152v2", 2, "80/20 hold-out", _P5, _LARGE, accuracy=0.8056),
    _row(
        "P5 both, concatenated",
        "p5-concatenated",
        2,
        "80/20 hold-out",
        _P5,
        _LARGE,
        fix=_from_matrix(86, 6, 20, 248),
        accuracy=0.9281,
        precision=0.9348,
        recall=0.8113,
        F1=0.8687,
        specificity=0.9764,
    ),
    _row("DarkCovidNet (Ozturk et al. 2020), three classes", "darkcovidnet", 3, "5-fold", _PEER, _OWN, accuracy=0.8702),
    _row("DarkCovidNet, two classes", "darkcovidnet", 2, "5-fold", _PEER, _OWN, accuracy=0.9808),
)


@dataclass(frozen=True)
class Against:
    """One printed row and what was got here; `got` is None where it was not run."""

    printed: Printed
    protocol: str
    got: Estimate | None
    pictures: int
    why: str


def against(networks: Sequence[Named]) -> list[Against]:
    """Return every printed row, with the accuracy of the network of that name where it was run.

    By another protocol than the printed one only if it was not run by that one.

    Args:
        networks: float where there is: the publications rounded nothing.
    """
    rows = []
    for printed in PRINTED:
        all_runs = [named for named in networks if named.network == printed.network]
        runs = [named for named in all_runs if named.protocol.split(";")[0] == _RUN_AS[printed.protocol]] or all_runs
        if not runs:
            rows.append(Against(printed, "", None, 0, f"not run here: needs {printed.needs}"))
        for run in runs:
            how = "Here patients are kept apart" if run.grouped else "Here patients are not kept apart either"
            others = (
                "" if len(run.score.classes) == printed.classes else f"; {len(run.score.classes)} classes, not {printed.classes}"
            )
            why = f"{printed.why} {how}, other pictures{others}; {run.protocol}."
            rows.append(Against(printed, run.protocol, run.score.accuracy, run.score.pictures, why))
    return rows
