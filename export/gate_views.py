"""What the gate sees of good and wrong pictures: each view by the device's own preprocessing and network, then shrunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.errors import ImageError
from edge.network.classify import Classifier
from edge.pixels.decode import decode_file
from edge.pixels.preprocess import INPUT_SIDE, Frame, preprocess_image
from export.dataset import Sample
from export.errors import DataError
from export.phantom import phantom, random_opacities
from export.wrong_views import View, views_of, views_of_no_chest

POOLED = 6
"""Pixels of the network's input, on a side, that become one of the gate's."""
SIDE = INPUT_SIDE // POOLED

DRAWN = "drawn"
NOT_CHEST = "not_chest"
_FIRST_PHANTOM = 50_000
"""Seed; others are those of tests and of the demonstration."""

Small = npt.NDArray[np.uint8]
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Views:
    """One entry a view.

    small: shape (n, SIDE, SIDE), uint8. traits: shape (n, traits), float32. kind: keys of `export.wrong_views.REASON_OF`.
    source: of the picture. patient: the same for all views of a person. file: DATASET/PATH of the picture.
    """

    small: Small
    traits: npt.NDArray[np.float32]
    kind: Strings
    source: Strings
    patient: Strings
    file: Strings

    def only(self, chosen: npt.NDArray[np.bool_]) -> Views:
        """Return the chosen ones."""
        return Views(*(column[chosen] for column in vars(self).values()))


def shrink(picture: Frame) -> Small:
    """Return what the gate's graph makes of a network input first: the mean of each square of POOLED pixels, rounded."""
    sums = picture.reshape(SIDE, POOLED, SIDE, POOLED).sum(axis=(1, 3), dtype=np.uint32)
    return np.asarray((sums + POOLED**2 // 2) // POOLED**2, np.uint8)


@dataclass(frozen=True)
class Subject:
    """One picture and what is known of it. kind: empty for a chest radiograph that is good, else that of `views_of_no_chest`."""

    image: Image.Image
    source: str
    patient: str
    file: str
    kind: str = ""


def radiographs(samples: Iterable[Sample]) -> Iterator[Subject]:
    """Yield radiographs.

    Raises:
        DataError: if one cannot be read.
    """
    for sample in samples:
        try:
            yield Subject(decode_file(sample.file).image, sample.source, sample.patient, sample.key)
        except ImageError as error:
            raise DataError(f"{sample.key} cannot be read ({error}). Copy it again, or remove its row.") from None


def other_things(folder: Path) -> Iterator[Subject]:
    """Yield the pictures of a folder that are no chest radiographs; the kind is the first word of a file's name.

    Raises:
        DataError: if there are none.
    """
    files = sorted(file for file in folder.glob("*.jpg") if file.name.partition("-")[0] in ("ct", "photo"))
    if not files:
        raise DataError(
            f"{folder} holds no pictures named ct-... or photo-... . The gate has to learn what is no chest radiograph."
        )
    for file in files:
        kind = file.name.partition("-")[0]
        yield Subject(decode_file(file).image, kind, file.name, f"{folder.name}/{file.name}", kind)


def phantoms(count: int) -> Iterator[Subject]:
    """Yield drawn radiographs, so that the gate lets demonstrations and golden inputs pass."""
    for number in range(count):
        seed = _FIRST_PHANTOM + number
        image = Image.fromarray(phantom(seed, width=512, height=512, opacity=random_opacities(seed, number % 10)))
        yield Subject(image, DRAWN, f"{DRAWN}-{number}", f"{DRAWN}/{seed}")


def make_views(subjects: Iterable[Subject], classifier: Classifier, seed: int) -> Views:
    """Return all views of all pictures. Those of a picture depend on its place and the seed alone.

    Args:
        subjects: at least one.
        classifier: the network whose traits the gate reads.
        seed: of the changes.
    """
    rows = []
    for number, subject in enumerate(subjects):
        rng = np.random.default_rng((seed, number))
        views = views_of_no_chest(subject.kind, subject.image, rng) if subject.kind else views_of(subject.image, rng)
        rows += [(*seen(view, classifier), view.kind, subject.source, subject.patient, subject.file) for view in views]
    small, traits, *words = zip(*rows, strict=True)
    return Views(np.stack(small), np.stack(traits), *(np.array(column, dtype=np.str_) for column in words))


def seen(view: View, classifier: Classifier) -> tuple[Small, npt.NDArray[np.float32]]:
    """Return the gate's picture and the network's traits of one view."""
    picture = np.asarray(preprocess_image(view.image))
    return shrink(picture), classifier.run(picture).traits
