"""What labelled pictures and folders have to be before any work starts. Each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.dataset import Sample, require_classes
from export.errors import DataError
from export.splits import require_patients


def require_trainable(samples: Sequence[Sample], classes: Sequence[str], folds: int = 1) -> None:
    """Return if there are pictures of every class and of enough patients.

    Args:
        samples: of all data sets that are trained on.
        classes: that the network is to tell apart.
        folds: parts that are tested one after the other; 1 for a hold-out.

    Raises:
        DataError: if a class is empty, all pictures are of one patient, or a class has too few patients.
    """
    require_classes(samples, classes)
    require_people(samples)
    require_patients([sample for sample in samples if sample.label in classes], folds)


def require_people(samples: Sequence[Sample]) -> None:
    """Return if there is more than one patient.

    Raises:
        DataError: if not.
    """
    people = {sample.patient for sample in samples}
    if len(people) < 2:
        raise DataError(
            f"All {len(samples)} pictures are of {'one patient' if people else 'nobody'}. "
            "A network is tested on people that it has not seen: add patients, or check the column patient."
        )


def require_bundle_classes(classes: Sequence[str], bundle: Sequence[str]) -> None:
    """Return if labels are among a bundle's classes.

    Args:
        classes: of the data.
        bundle: of the bundle, in the order of its outputs.

    Raises:
        DataError: naming those that the bundle does not have.
    """
    strange = [name for name in dict.fromkeys(classes) if name not in bundle]
    if strange:
        raise DataError(
            f"The data has the class {', '.join(strange)}, and the bundle knows {', '.join(bundle)}. "
            "Leave these pictures out, or train a network with such classes."
        )


def require_empty(folder: Path, why: str) -> None:
    """Return if nothing is in a folder, or there is none yet.

    Raises:
        DataError: if something is.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not an empty folder. Name a new one: {why}.")
