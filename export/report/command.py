"""What `cxr-export evaluate` does: reads the parts, scores a bundle elsewhere if asked to, writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.errors import CxrError
from edge.network.bundle import Bundle, load_bundle
from edge.network.manifest import SHIPPED
from export.compress.rows import Table
from export.errors import ReportError
from export.history import Epoch
from export.predictions import Predictions, read_predictions
from export.report.about import card_of, recorded_of
from export.report.external import EXTERNAL, look, read_all_labels, score_bundle
from export.report.figures import Figures
from export.report.inputs import CardTexts, Explained, SamplePicture, read_part
from export.report.page import Parts, write_report
from export.report.provenance import made


def evaluate(
    files: Sequence[Path],
    out: Path,
    *,
    histories: Sequence[Path] = (),
    compression: Sequence[Path] = (),
    explained: Path | None = None,
    samples: Path | None = None,
    card: Path | None = None,
    bundle: Path | None = None,
    external: Path | None = None,
    subject: str | None = None,
    arguments: Sequence[str] = (),
) -> Figures:
    """Write a report; see `cxr-export evaluate --help`.

    Raises:
        ReportError: if there is nothing to report on, or a file is of another kind.
        DataError: if the pictures of `external` cannot be used.
    """
    predictions = [one for file in files for one in read_predictions(file)]
    refused: dict[str, int] = {}
    notes: list[str] = []
    loaded = opened(bundle or SHIPPED) if bundle or external else None
    if external is not None and loaded is not None:
        mine, refused = _elsewhere(loaded, external, subject or _only_network(predictions, loaded))
        predictions += mine
        notes.append(
            f"{external.name}: scored by the device's own code with the bundle's own thresholds; nothing was tuned on it. Whether "
            "the network has seen any of these patients before, only those who know both sets can say."
        )
    texts = read_part(card, CardTexts, "whoever made the network") if card else None
    parts = Parts(
        card=texts or (card_of(loaded.manifest) if loaded else None),
        histories={_trained(file): read_part(file, list[Epoch], "`cxr-export train`") for file in histories},
        compression=[read_part(file, Table, "`cxr-export compress`") for file in compression],
        explained=read_part(explained, list[Explained], "`cxr-export report`") if explained else [],
        samples=read_part(samples, list[SamplePicture], "`cxr-export report`") if samples else [],
        refused=refused,
        recorded=recorded_of(loaded.manifest) if loaded else {},
        notes=[*(texts.notes if texts else ()), *notes],
    )
    given = [*files, *histories, *compression, *(file for file in (explained, samples, card) if file)]
    return write_report(out, predictions, parts, made("cxr-export", arguments, given), subject)


def opened(folder: Path) -> Bundle:
    """Return a verified bundle.

    Raises:
        ReportError: if it cannot be used.
    """
    try:
        return load_bundle(folder)
    except CxrError as error:
        raise ReportError(str(error)) from None


def _trained(file: Path) -> str:
    """Return what a history is called: a training's is OUT/history.json, and OUT says which training it was."""
    return file.resolve().parent.name if file.stem == "history" else file.stem.removeprefix("history ")


def _only_network(predictions: Sequence[Predictions], bundle: Bundle) -> str:
    """Return the network whose int8 predictions were given, if there is just one that the bundle can be; else the bundle's name."""
    manifest = bundle.manifest
    names = {one.network for one in predictions if one.classes == manifest.classes and one.precision == "int8"}
    return names.pop() if len(names) == 1 else f"{manifest.name} {manifest.version}"


def _elsewhere(bundle: Bundle, external: Path, network: str) -> tuple[list[Predictions], dict[str, int]]:
    """Score the bundle on a labelled folder, under the name of its other predictions."""
    samples = read_all_labels(external)
    classes = bundle.manifest.classes
    if not any(sample.label in classes for sample in samples):
        labels = ", ".join(dict.fromkeys(sample.label for sample in samples)) or "nothing"
        raise ReportError(f"The bundle knows {', '.join(classes)}; the pictures in {external} are labelled {labels}.")
    seen = look(samples, bundle.manifest.input_side)
    return score_bundle(bundle, seen, protocol=EXTERNAL, network=network), seen.refused
