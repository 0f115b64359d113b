"""What an adapted bundle says of itself: its report, its model card, and how it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from export.adapt_data import Hospital, Mode
from export.calibrate import HOTTEST

DONE: dict[Mode, str] = {"recalibrate": "recalibrated", "fine-tune": "fine-tuned"}
PARENT_CARD = "PARENT_MODEL_CARD.md"
_LONGEST = 32
"""Letters of a version."""


def version_of(parent: str, mode: Mode, inputs: Sequence[str]) -> str:
    """Return a version that says from which it comes, how, and, in eight digits of a SHA-256, of which inputs."""
    mark = f"+{DONE[mode]}.{hashlib.sha256(' '.join(inputs).encode()).hexdigest()[:8]}"
    return f"{parent.partition('+')[0][: _LONGEST - len(mark)]}{mark}"


def counts_of(hospital: Hospital, classes: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return part -> class, or `all` -> pictures and patients."""
    result = {}
    for name, part in hospital.parts.items():
        rows = {"all": {"pictures": len(part.samples), "patients": len(set(part.patients))}}
        for label in classes:
            mine = part.patients[part.labels == label]
            rows[label] = {"pictures": len(mine), "patients": len(set(mine))}
        result[name] = rows
    return result


def count_lines(counts: dict[str, Any]) -> list[str]:
    """Return a line a part."""
    return [
        f"{name}: {rows['all']['pictures']} pictures of {rows['all']['patients']} patients ("
        + ", ".join(f"{label} {row['pictures']} of {row['patients']}" for label, row in rows.items() if label != "all")
        + ")"
        for name, rows in counts.items()
    ]


def licence_of(text: str, mode: Mode, hospital: Hospital) -> str:
    """Return the licence of the parent, with what the hospital's pictures add to it."""
    what = "Its weights were trained further on" if mode == "fine-tune" else "Its thresholds were fitted to"
    added = f"""
This bundle was adapted. {what} pictures of {hospital.name}.
They are not in this folder. Whoever owns them may set terms of their own.
"""
    return f"{text}{added}" if text else ""


def adapted_card(report: dict[str, Any], name: str) -> str:
    """Return MODEL_CARD.md of an adapted bundle.

    Args:
        report: of `export.adapt.adapt`.
        name: of the bundle.
    """
    facts = report["adapted"]
    parent, data, fitted = facts["parent"], facts["data"], facts["fitted"]
    mode = facts["mode"]
    lines = [
        "<!-- Written by `cxr-export adapt` from report.json. -->",
        f"# Model card: {name} {report['version']}",
        "",
        report["intended_use"],
        "",
        f"This bundle was {mode} from {parent['name']} {parent['version']} on labelled pictures of {data['name']}.",
        f"Everything that the card of that bundle, `{PARENT_CARD}`, says of its training, its limits and its shortcuts holds for",
        "this one too. Its figures do not: they are of other pictures.",
        "",
        f"- That bundle's manifest: SHA-256 {parent['manifest_sha256']}.",
        f"- Its model: SHA-256 {parent['model_sha256']}.",
        "",
        "## What was done",
        "",
        "The network is the same to the byte; what turns its scores into answers was fitted anew."
        if mode == DONE["recalibrate"]
        else _tuning(facts["fine_tuning"]),
        "",
        *(f"- {line}" for line in count_lines(data["parts"])),
        f"- Pictures (SHA-256 over files and labels): {data['pictures_sha256']}.",
        *(f"- {remark}" for remark in remarks_of(facts)),
        "",
        "| | before | after |",
        "|---|---|---|",
        *(f"| {name} | {row['before']} | {row['after']} |" for name, row in fitted.items()),
        "",
        "## Before and after, on test patients",
        "",
        "The test patients were used for nothing else. In brackets: 95% interval, bootstrapped over patients; the difference in",
        "pairs. Whether the network had seen any of them before it came here, this bundle cannot know.",
        "",
        "| figure | before | after | after minus before |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_span(row['before'])} | {_span(row['after'])} | {_span(row['difference'])} |"
            for name, row in facts["test"].items()
        ),
        "",
        facts["verdict"],
        "",
    ]
    return "\n".join(lines)


def remarks_of(facts: dict[str, Any]) -> list[str]:
    """Return sentences on what the pictures cannot show; `facts` as in the report."""
    data, names = facts["data"], " or ".join(facts["without"])
    remarks = [f"The device refuses {count} pictures ({reason}); they are in no part." for reason, count in data["refused"].items()]
    if not data["patients_known"]:
        remarks.append(
            "Patients are not known for all pictures: those of one person may be in two parts, and the figures too good."
        )
    if data["children"]:
        remarks.append(f"{data['children']} pictures are of children. Look whether the intended use of the bundle takes them in.")
    if names and facts["mode"] == DONE["fine-tune"]:
        remarks.append(f"No picture of {names}: it would be unlearned unseen, so this bundle has no such answer any more.")
    elif names:
        remarks.append(f"No picture of {names}: how well the network finds that here is not known.")
    if facts.get("gate") == "dropped":
        remarks.append(
            "Its quality gate is gone, since the network sees otherwise now: wrong pictures are no longer refused as such."
        )
    if facts["fitted"]["temperature"]["after"] >= HOTTEST:
        remarks.append(
            "No temperature fits: the scores say nothing of these classes here. Fine-tune, or do not use the network here."
        )
    return remarks


def metrics_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what travels in the manifest: the test figures after the adaptation, and where the bundle comes from."""
    after = {f"adapted_test: {name}": row["after"] for name, row in facts["test"].items()}
    return {**after, "adapted_from": facts["parent"], "adapted": facts["mode"], "adapted_verdict": facts["verdict"]}


def _tuning(facts: dict[str, Any]) -> str:
    tried = ", ".join(f"{name}: {loss}" for name, loss in facts["losses"].items())
    kept = (
        "no training did better than the old weights, so they stayed" if facts["pull"] is None else f"{facts['pull']:g} was chosen"
    )
    return (
        "The last convolution of the network (the signs of each class) was trained further, held back by the weights that "
        f"it had. How strongly, was tried on training patients left out in turn (pull: loss; {tried}); {kept}. Then the network "
        "was quantized again, and what turns its scores into answers was fitted anew on other patients."
    )


def _span(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
