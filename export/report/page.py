"""One self-contained page, its charts as PNG, and every number on it as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from export.compress.rows import Table
from export.history import Epoch
from export.predictions import Predictions
from export.report.charts import Chart, charts
from export.report.figures import Figures, figures
from export.report.headline import plain_words, warnings
from export.report.inputs import CardTexts, Explained, SamplePicture, Span
from export.report.papers import against
from export.report.pictures import Shown, show
from export.report.score import ENOUGH
from export.report.words import class_name, condition_name, of_hundred, place_name, span, use_of, verdict

PAGE_NAME = "report.html"
FIGURES_NAME = "figures.json"


@dataclass(frozen=True)
class Parts:
    """What stands beside predictions; what is empty is left out of the page with a sentence that says so.

    histories, compression: by network. refused: reason code -> pictures that the device would not look at. recorded: figures that
    were written down when the network was made and are not computed anew. notes: sentences that the reader must see, such as which
    pictures the network was trained on.
    """

    card: CardTexts | None = None
    histories: dict[str, list[Epoch]] = field(default_factory=dict)
    compression: list[Table] = field(default_factory=list)
    explained: list[Explained] = field(default_factory=list)
    samples: list[SamplePicture] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, Span] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """How a page was made, so that it can be made again. inputs: name of a file -> its SHA-256."""

    command: str
    seed: int
    versions: dict[str, str]
    inputs: dict[str, str]


def write_report(out: Path, predictions: Iterable[Predictions], parts: Parts, made: Made, subject: str | None = None) -> Figures:
    """Write the page, its charts and its figures into the folder `out`, which is made.

    Raises:
        ReportError: if there is nothing to report on.
    """
    found = figures(list(predictions), subject)
    papers = against(found.as_published)
    drawn = list(charts(found, parts.histories))
    shown = [show(sample, number) for number, sample in enumerate(parts.samples)]
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.png"):
        stale.unlink()
    for chart in drawn:
        (out / f"{chart.name}.png").write_bytes(chart.light)
        (out / f"{chart.name}-dark.png").write_bytes(chart.dark)
    for sample in shown:
        for name, content in sample.files.items():
            (out / name).write_bytes(content)
    numbers = {
        "figures": found,
        "papers": papers,
        "histories": parts.histories,
        "compression": parts.compression,
        "explained": parts.explained,
        "recorded": parts.recorded,
        "refused": parts.refused,
        "samples": [{"outcome": one.outcome, "dataset": one.dataset, "sentence": one.sentence} for one in shown],
        "card": parts.card,
        "notes": parts.notes,
        "made": made,
    }
    (out / FIGURES_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(numbers), indent=1) + b"\n")
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            f=found,
            main=found.main.score,
            words=plain_words(found),
            warnings=warnings(found),
            papers=papers,
            charts={chart.name: chart for chart in drawn},
            learning=[chart for chart in drawn if chart.name.startswith("learning-")],
            parts=parts,
            shown=shown,
            made=made,
            enough=ENOUGH,
        )
    )
    (out / PAGE_NAME).write_text(text, encoding="utf-8")
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("export.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"span": span, "class_name": class_name, "of_hundred": of_hundred, "png": _data_uri, "picture": _picture}
    environment.filters |= {"condition": condition_name, "verdict": verdict, "use": use_of, "place": place_name}
    environment.globals["style"] = _style
    return environment


def _style() -> Markup:
    # The style sheet is the project's own and holds no text of others.
    return Markup((Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8"))  # noqa: S704


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _picture(chart: Chart | None) -> Any:
    """Return the chart in the reader's colours, on paper the light one; nothing where there were no numbers for it."""
    if chart is None:
        return ""
    dark, light = _data_uri(chart.dark), _data_uri(chart.light)
    return Markup(
        '<figure><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{}"><img src="{}" alt="{}"></picture>'
        "<figcaption>{}</figcaption></figure>"
    ).format(dark, light, chart.alt, chart.title)


__all__ = ["FIGURES_NAME", "PAGE_NAME", "Made", "Parts", "Shown", "write_report"]
