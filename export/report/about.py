"""The words about a bundle, from its manifest, and the figures that were written down when it was made."""

from __future__ import annotations

from typing import Any

from edge.contract.bundle import Manifest
from export.report.inputs import CardTexts, Span

MUST_NOT = (
    "For a decision about a patient without a person who can read a radiograph.",
    "To rule out or to prove COVID-19: that takes a laboratory test.",
    "For children, lateral views, computed tomography, or a photograph of a screen or film.",
    "At a hospital that it has not been tested at. It may fail there without saying so: see below.",
)
LIMITS = (
    "It knows only the words that it was taught. A tumour, tuberculosis or a broken rib may come out as “normal”.",
    "It may have learned where pictures come from instead of disease: see the controls.",
    "The labels that it is judged by are not certain either: many were taken from written reports by a program.",
    "No study of it in a clinic exists. It is not a medical device.",
)


def card_of(manifest: Manifest) -> CardTexts:
    """Return the model card of a bundle."""
    return CardTexts(
        name=f"{manifest.name} {manifest.version}",
        intended_use=manifest.intended_use,
        must_not=list(MUST_NOT),
        trained_on=manifest.trained_on,
        licence=manifest.licence,
        limits=list(LIMITS),
        facts={
            "Input": f"{manifest.input_side} x {manifest.input_side} gray, preprocessing version {manifest.preprocessing}",
            "Temperature and threshold": f"{manifest.temperature}; not sure below a highest probability of {manifest.threshold}",
            "Weights (SHA-256)": manifest.model_sha256,
        },
    )


def recorded_of(manifest: Manifest) -> dict[str, Span]:
    """Return those metrics of a manifest that have an interval."""
    return {name: found for name, value in manifest.metrics.items() if (found := _span(value)) is not None}


def _span(value: Any) -> Span | None:
    if not isinstance(value, dict) or not {"value", "low", "high"} <= set(value):
        return None
    return Span(value=float(value["value"]), low=float(value["low"]), high=float(value["high"]))
