"""The reference page of the quality gate, written from gate.json of a bundle."""

from __future__ import annotations

from typing import Any

from edge.network.gate import GOOD
from export.wrong_views import REASON_OF

_WHAT = {
    "good": "good, as it is",
    "harmless": "good, harmlessly changed",
    "ct": "CT slice",
    "photo": "photograph",
    "rot90": "turned by 90 degrees to the left",
    "rot270": "turned by 90 degrees to the right",
    "rot180": "upside down",
    "inverted": "black and white exchanged",
    "crop": "a part of 35 to 60% of either side",
    "cut": "35 to 50% missing on one side",
    "blur": "blurred",
    "dark": "far too dark",
    "text": "writing over the lungs",
}
"""Kind of view -> what it is."""


def quality_page(report: dict[str, Any]) -> str:
    """Return docs/reference/quality.md.

    Args:
        report: gate.json of a bundle, as `export.make_gate.gate` returns it.
    """
    sources = list(report["folds_by_source"])
    return "\n".join(
        [
            "<!-- Written by `cxr-export gate` from gate.json. Do not edit: change export/gate_page.py and run it again. -->",
            "# The quality gate",
            "",
            "What is no frontal chest radiograph, or lies wrongly, or cannot be read, is refused with a reason, not answered.",
            "A small int8 network of the picture, shrunk to 32 x 32, and a linear function of the network's traits",
            f"({report['bytes']:,} bytes together) give each reason a probability. Where that of `good` is below",
            f"{report['limit']:.4f}, the device refuses with the likeliest of the other reasons. Below that limit fall at most",
            f"{_percent(report['refused_of_known'])} of the good pictures of patients of whom nothing else was learned, and it is",
            f"{report['highest_limit']} at most.",
            "",
            "All figures are of the int8 file through the device's own code, on patients from whom that gate has learned nothing,",
            "not even its limit. In brackets: 95% interval, bootstrapped over patients. Wrong pictures are made of good ones by",
            "`export/wrong_views.py`; CT slices and photographs are as they came, and cut, turned and lit otherwise.",
            "**Lateral views are not among them**: there are none in the data. Refused is what a DICOM header calls lateral: in "
            "ViewPosition, in the code of the view, by the direction of its rows, or in the name of protocol or series "
            "(`edge/pixels/view_position.py` says how).",
            "",
            "Before the gate simple rules refuse what is in colour, too small, too long, blank, or burnt out to white in its "
            "middle (`edge/pixels/quality.py`). **What nothing here looks for:** poor inspiration; too much or too little exposure "
            "that leaves shades; a turn by less than 90 degrees, of which the gate has learned nothing; which part of the body the "
            "header names, since consoles often leave a default there.",
            "",
            "Made by `cxr-export gate edge/models/chest --data DIR`, after `cxr-export chest`, for the network "
            f"{report['model_sha256'][:12]}.",
            "",
            "## Share refused, by patients of another fold",
            "",
            f"| picture | reason | all | {' | '.join(sources)} | right reason |",
            "|---" * (len(sources) + 4) + "|",
            *(_fold_row(kind, report, sources) for kind in report["folds"]),
            "",
            "## Share refused of a source that the gate has never seen",
            "",
            "Neither its training nor the choice of its limit knew the source. Of a new hospital more good pictures are refused",
            "than of a known one. These rows were looked at while the training and the highest limit were being chosen.",
            "",
            f"| picture | {' | '.join(report['left_out'])} |",
            "|---" * (len(report["left_out"]) + 1) + "|",
            *(
                f"| {_WHAT[kind]} | {' | '.join(_span(row[kind]['refused']) for row in report['left_out'].values())} |"
                for kind in next(iter(report["left_out"].values()))
            ),
            "",
            "## The shipped gate, on the pictures that the shipped network has not seen",
            "",
            "| picture | refused | views | patients |",
            "|---|---|---|---|",
            *(_row(kind, row["refused"]) for kind, row in report["shipped"].items()),
            "",
            "## Things of a kind that the gate has not seen",
            "",
            "| picture | refused | views | pictures |",
            "|---|---|---|---|",
            *(_row(kind, row["refused"]) for kind, row in report["never_seen"].items()),
            "",
            "By the shipped gate, and by the rules for colour, size and blank pictures before it; the modality of the test files",
            "of pydicom was not looked at for this:",
            "",
            "| picture | pictures | refused | of these by the gate |",
            "|---|---|---|---|",
            *(
                f"| {kind} | {row['pictures']} | {row['refused']} | {row['by_gate']} |"
                for kind, row in sorted(report["strange"].items())
            ),
            "",
            "Which good pictures are refused stands in `gate.json` of the bundle (`refused_good`, `shipped_refused_good`).",
            "",
        ]
    )


def gate_figures(report: dict[str, Any]) -> list[str]:
    """Return the sentences of README and model card; one a line."""
    folds, left = report["folds"], report["left_out"]
    wrong = {kind: row["refused"]["value"] for kind, row in folds.items() if REASON_OF[kind] != GOOD}
    least = min(wrong, key=lambda kind: wrong[kind])
    unseen = {name: row[GOOD]["refused"]["value"] for name, row in left.items()}
    worst = max(unseen, key=lambda name: unseen[name])
    return [
        f"A quality gate refuses {_percent(sum(wrong.values()) / len(wrong))} of pictures that are wrong in ways that it has",
        f"learned (least: {_WHAT[least]}, {_percent(wrong[least])}) and {_percent(folds[GOOD]['refused']['value'])} of good ones;",
        f"of sources that it has never seen it refuses up to {_percent(unseen[worst])} of the good ones ({worst}).",
    ]


def _fold_row(kind: str, report: dict[str, Any], sources: list[str]) -> str:
    row = report["folds"][kind]
    cells = [report["folds_by_source"][source].get(kind) for source in sources]
    each = " | ".join("-" if cell is None else f"{cell['refused']['value']:.3f}" for cell in cells)
    right = "-" if "right_reason" not in row else f"{row['right_reason']:.3f}"
    return f"| {_WHAT[kind]} | `{REASON_OF[kind]}` | {_span(row['refused'])} | {each} | {right} |"


def _row(kind: str, row: dict[str, Any]) -> str:
    return f"| {_WHAT[kind]} | {_span(row)} | {row['pictures']} | {row['patients']} |"


def _span(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
