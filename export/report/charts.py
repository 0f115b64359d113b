"""The charts of a report as PNG, each once for light and once for dark pages.

Colours are those of Okabe and Ito ("Color universal design", 2008), which people with a colour vision deficiency tell apart. No
chart needs its colours: lines differ in their dashes, bars have names beside them. Letters are large enough for a telephone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from export.history import Epoch
from export.metrics import Estimate
from export.report.compare import Named
from export.report.figures import Figures
from export.report.score import Score
from export.report.words import CONDITIONS, class_name

_DPI = 144
_WIDTH = 6.0
"""Inches. At 360 pixels of a telephone a letter of 13 points is then still 10 pixels high."""
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Chart:
    """One chart. alt: what it shows, for those who do not see it, with its main numbers."""

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class _Theme:
    ground: str
    ink: str
    faint: str
    colours: tuple[str, ...]
    ramp: str


_LIGHT = _Theme("#ffffff", "#1b1f24", "#c9ced6", ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), "Blues")
_DARK = _Theme("#161b22", "#e6e9ee", "#4a525d", ("#56B4E9", "#E69F00", "#2BC99A", "#E59CC4", "#F0E442"), "cividis")

Draw = Callable[[Figure, _Theme], None]


def charts(figures: Figures, histories: Mapping[str, Sequence[Epoch]]) -> Iterator[Chart]:
    """Yield all charts that there are numbers for."""
    main = figures.main.score
    if main.roc:
        yield _roc(main, figures.concern)
    yield _histogram(figures)
    yield _reliability(main)
    yield _confusion(main, figures.classes)
    if figures.controls:
        yield _controls(figures)
    if len(figures.networks) > 1:
        yield _networks(figures.networks, figures.concern)
    for number, (name, history) in enumerate(histories.items()):
        if history:
            yield _curves(name, history, number)


def _make(name: str, title: str, alt: str, height: float, draw: Draw) -> Chart:
    pictures = []
    for theme in (_LIGHT, _DARK):
        style: dict[Any, Any] = {
            "font.family": "DejaVu Sans",
            "font.size": 13,
            "text.color": theme.ink,
            "axes.labelcolor": theme.ink,
            "axes.edgecolor": theme.ink,
            "axes.facecolor": theme.ground,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": theme.ink,
            "ytick.color": theme.ink,
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=theme.colours),
            "lines.linewidth": 2.2,
        }
        with mpl.rc_context(style):
            figure = Figure(figsize=(_WIDTH, height), facecolor=theme.ground, layout="constrained")
            draw(figure, theme)
            out = io.BytesIO()
            # Without the library's version the same numbers give the same bytes.
            figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
            pictures.append(out.getvalue())
    return Chart(name, title, alt, *pictures)


def _roc(score: Score, concern: str) -> Chart:
    def draw(figure: Figure, theme: _Theme) -> None:
        axes = figure.subplots()
        for curve, dash in zip(score.roc, _DASHES * 9, strict=False):
            area = score.of(curve.name).auc
            label = f"{class_name(curve.name)}: {area.value:.2f}" if area else class_name(curve.name)
            axes.plot(curve.false_alarms, curve.found, dash, label=label, zorder=3 if curve.name == concern else 2)
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1.5)
        axes.text(0.62, 0.55, "chance", color=theme.ink, rotation=42, alpha=0.8)
        axes.set(xlabel="false alarms, share", ylabel="found, share", xlim=(-0.01, 1), ylim=(0, 1.01))
        axes.legend(title="area under the curve", loc="lower right")

    areas = ", ".join(f"{class_name(c.name)} {c.auc.value:.2f}" for c in score.classes if c.auc)
    return _make("roc", "Found against false alarms (ROC)", f"ROC curves, each class against the rest. Area: {areas}.", 5.2, draw)


def _histogram(figures: Figures) -> Chart:
    scores, positive = np.array(figures.scores), np.array(figures.positives)
    name = class_name(figures.concern)

    def draw(figure: Figure, theme: _Theme) -> None:
        top, bottom = figure.subplots(2, sharex=True)
        bins = np.linspace(0, 1, 21)
        for axes, chosen, label, colour, hatch in (
            (top, positive, f"pictures with {name}", theme.colours[1], "//"),
            (bottom, ~positive, f"pictures without {name}", theme.colours[0], ""),
        ):
            axes.hist(scores[chosen], bins=bins, color=colour, hatch=hatch, edgecolor=theme.ground, label=label)
            axes.set_ylabel("pictures")
            axes.legend(loc="upper center")
        bottom.set_xlabel(f"probability of {name} that the network gives")

    middle = [float(np.median(scores[part])) if part.any() else float("nan") for part in (positive, ~positive)]
    alt = (
        f"Two histograms of the probability of {name}: its median is {middle[0]:.2f} in pictures with it, {middle[1]:.2f} without."
    )
    return _make("histogram", f"How the network scores pictures with and without {name}", alt, 5.0, draw)


def _reliability(score: Score) -> Chart:
    bins = [one for one in score.calibration.bins if one.pictures]

    def draw(figure: Figure, theme: _Theme) -> None:
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        top.plot([0, 1], [0, 1], color=theme.faint, linewidth=1.5)
        top.text(0.12, 0.2, "as sure as right", rotation=38, alpha=0.8)
        top.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=theme.colours[0], markersize=8)
        top.set(ylabel="share that is right", ylim=(0, 1.03), xlim=(0, 1))
        bottom.bar([(b.low + b.high) / 2 for b in bins], [b.pictures for b in bins], width=0.09, color=theme.colours[0])
        for one in bins:
            bottom.annotate(str(one.pictures), ((one.low + one.high) / 2, one.pictures), ha="center", va="bottom", fontsize=11)
        bottom.set(xlabel="how sure the network says it is", ylabel="pictures", ylim=(0, max(b.pictures for b in bins) * 1.35))

    rows = "; ".join(f"says {b.confidence:.2f}, is right {b.accuracy:.2f} ({b.pictures})" for b in bins)
    return _make("reliability", "Can its percentages be believed? (reliability)", f"Reliability by confidence: {rows}.", 5.6, draw)


def _confusion(score: Score, classes: Sequence[str]) -> Chart:
    table = np.array(score.confusion)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = [class_name(name) for name in classes]

    def draw(figure: Figure, theme: _Theme) -> None:
        axes = figure.subplots()
        axes.imshow(shares, cmap=theme.ramp, vmin=0, vmax=1)
        for row in range(len(names)):
            for column in range(len(names)):
                dark_ink = (shares[row, column] < 0.55) == (theme is _LIGHT)
                colour = "#10151b" if dark_ink else "#ffffff"
                text = f"{table[row, column]}\n{shares[row, column]:.0%}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=15)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="the network says", ylabel="the label says")

    rows = "; ".join(
        f"{names[r]}: " + ", ".join(f"{table[r, c]} called {names[c]}" for c in range(len(names))) for r in range(len(names))
    )
    return _make("confusion", "What is taken for what", f"Confusion matrix of pictures. {rows}.", 4.9, draw)


def _controls(figures: Figures) -> Chart:
    rows: list[tuple[str, Estimate]] = []
    whole = figures.main.score.of(figures.concern).auc
    if whole:
        rows.append((CONDITIONS["whole"], whole))
    rows += [(CONDITIONS[c.condition], c.auc) for c in figures.controls if c.auc and not c.dataset]
    name = class_name(figures.concern)
    alt = "; ".join(f"{label}: {area.value:.2f}" for label, area in rows)
    title = f"What is left of the {name} score when the lungs are hidden"
    return _make(
        "controls",
        title,
        f"Area under the curve of {name}. {alt}. 0.5 is chance.",
        1.2 + 0.75 * len(rows),
        lambda figure, theme: _bars(figure.subplots(), theme, rows, f"area under the curve, {name} (0.5 is chance)", 0.5),
    )


def _networks(networks: Sequence[Named], concern: str) -> Chart:
    names = [network.network for network in networks]
    labels = [n.network if names.count(n.network) == 1 else f"{n.network}, {n.protocol}" for n in networks]
    scores = [network.score for network in networks]
    columns: list[tuple[str, list[Estimate | None], float | None]] = [
        ("accuracy", [score.accuracy for score in scores], None),
        ("mean recall of the classes", [score.macro_recall for score in scores], None),
        (f"area under the curve, {class_name(concern)}", [score.of(concern).auc for score in scores], 0.5),
    ]
    panels = [
        (title, [(name, value) for name, value in zip(labels, values, strict=True) if value], chance)
        for title, values, chance in columns
    ]

    def draw(figure: Figure, theme: _Theme) -> None:
        for axes, (title, rows, chance) in zip(np.ravel(figure.subplots(len(panels), sharex=True)), panels, strict=True):
            _bars(axes, theme, rows, title, chance)

    alt = ". ".join(f"{title}: " + ", ".join(f"{n} {v.value:.2f}" for n, v in rows) for title, rows, _ in panels)
    height = len(panels) * (1.1 + 0.5 * len(networks))
    alike = len({score.pictures for score in scores}) == 1
    title = f"Networks side by side, {'on the same pictures' if alike else 'not all on the same pictures: see the differences'}"
    return _make("networks", title, f"Bars with intervals. {alt}.", height, draw)


def _bars(axes: Any, theme: _Theme, rows: Sequence[tuple[str, Estimate]], title: str, chance: float | None) -> None:
    places = np.arange(len(rows))[::-1]
    values = [value.value for _, value in rows]
    reach = [[value.value - value.low for _, value in rows], [value.high - value.value for _, value in rows]]
    axes.barh(places, values, height=0.55, color=theme.colours[0])
    axes.errorbar(values, places, xerr=np.maximum(reach, 0), fmt="none", ecolor=theme.ink, capsize=4, linewidth=1.6)
    for place, (_, value) in zip(places, rows, strict=True):
        axes.text(0.015, place, f"{value.value:.2f}", va="center", color=theme.ground, fontsize=12, fontweight="bold")
    if chance is not None:
        axes.axvline(chance, color=theme.colours[1], linestyle="--", linewidth=1.8)
    axes.set_yticks(places, [name for name, _ in rows], fontsize=11)
    axes.set(xlim=(0, 1))
    axes.set_xlabel(title)


def _curves(name: str, history: Sequence[Epoch], number: int) -> Chart:
    epochs = [one.epoch for one in history]

    def draw(figure: Figure, theme: _Theme) -> None:
        top, bottom = figure.subplots(2, sharex=True)
        for axes, parts in ((top, ("loss", "val_loss")), (bottom, ("accuracy", "val_accuracy"))):
            for part, dash, label in zip(parts, ("-", "--"), ("training pictures", "validation patients"), strict=True):
                axes.plot(epochs, [getattr(one, part) for one in history], dash, marker="o", markersize=4, label=label)
            axes.set_ylabel(parts[0])
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=2)
        bottom.set_xlabel("epoch")
        bottom.set_ylim(0, 1.03)

    last = history[-1]
    alt = (
        f"Learning curves of {name}, {len(history)} epochs. Last loss {last.loss:.2f}, on validation patients {last.val_loss:.2f}."
    )
    return _make(f"learning-{number}", f"Learning curves: {name}", alt, 5.4, draw)
