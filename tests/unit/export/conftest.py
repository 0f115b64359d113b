"""A small labelled data set of phantoms on disk, in the layout that `export.dataset` reads."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from export.phantom import phantom, random_opacities

_COLUMNS = ["file", "label", "patient", "source", "lung_mask"]
_OPACITIES = {"normal": 0, "pneumonia": 3, "covid19": 8}


def write_set(data: Path, name: str, rows: list[tuple[str, str, str]], *, masks: bool = False) -> None:
    """rows: (label, patient, source)."""
    folder = data / name
    (folder / "images").mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for number, (label, patient, source) in enumerate(rows):
            seed = hash_free_seed(name, number)
            picture = phantom(seed, width=224, height=224, opacity=random_opacities(seed, _OPACITIES.get(label, 0)))
            path = folder / "images" / f"{number:03}.png"
            Image.fromarray(picture).save(path)
            mask = f"images/{number:03}.png" if masks else ""
            writer.writerow(dict(zip(_COLUMNS, [f"images/{path.name}", label, patient, source, mask], strict=True)))


def hash_free_seed(name: str, number: int) -> int:
    return sum(name.encode()) * 1000 + number


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    nih, cohen = "nih-chestxray8", "ieee8023"
    dark = [(("normal", "pneumonia")[i % 2], f"n{i // 2}", nih) for i in range(40)]
    dark += [("covid19", f"c{i}", cohen) for i in range(10)]
    write_set(root, "darkcovid", dark)
    others = [(("covid19", "pneumonia", "normal", "other")[i % 4], f"c{i + 5}", cohen) for i in range(24)]
    write_set(root, "ieee8023", others, masks=True)
    write_set(root, "kermany", [(("normal", "pneumonia")[i % 2], f"k{i}", "kermany") for i in range(12)], masks=True)
    return root
