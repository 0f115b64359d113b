"""The words that a page uses for names that programs use."""

from __future__ import annotations

from export.metrics import Estimate

CONDITIONS = {
    "whole": "whole picture",
    "lungs_out": "lungs black",
    "centre_out": "middle 61% black",
    "border_only": "border only",
    "shape_only": "shape only",
}

CLASS_NAMES = {"covid19": "COVID-19", "covid": "COVID-19", "lung_opacity": "lung opacity", "non_covid19": "no COVID-19"}

LITTLE = 0.05
"""Above chance by less than this a control counts as no shortcut worth speaking of."""


def class_name(name: str) -> str:
    """Return what people call a class."""
    return CLASS_NAMES.get(name, name.replace("_", " "))


def condition_name(name: str) -> str:
    """Return what people call a condition."""
    return CONDITIONS.get(name, name.replace("_", " "))


def place_name(protocol: str) -> str:
    """Return what is said of a place: its protocol without the word that marks it as elsewhere."""
    return protocol.partition(": ")[2] or protocol


def of_hundred(share: float) -> int:
    """Return a share as a natural frequency."""
    return round(100 * share)


def span(estimate: Estimate | None, *, percent: bool = False) -> str:
    """Return "0.83 (0.77 to 0.89)", or in percent, or that there is nothing to say."""
    if estimate is None:
        return "too few to say"
    if percent:
        return f"{100 * estimate.value:.0f}% ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def verdict(area: Estimate | None) -> str:
    """Return what an area under the curve says about a control: it ought to be chance."""
    if area is None:
        return "too few patients to say"
    if area.low > 0.5 or area.value > 0.5 + LITTLE:
        if area.value >= 0.8:
            return "fails: most of the score is there without lungs"
        return "fails: part of the score comes from elsewhere than the lungs" if area.low > 0.5 else "not shown to be chance"
    return "passes: at chance"


def use_of(area: Estimate | None) -> str:
    """Return what an area under the curve is worth to a person."""
    if area is None:
        return "too few patients to say"
    if area.low <= 0.5:
        return "not shown to be better than a coin"
    for floor, words in ((0.95, "very good"), (0.85, "good"), (0.75, "fair")):
        if area.low >= floor:
            return words
    return "better than a coin, too weak to rely on"
