"""What a layout is, and what several of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.dataset import Sample
from export.errors import DataError

Labels = Mapping[str, str]
"""From a folder's name to a label, for folders whose name does not say it. An empty label leaves the folder out."""

FOLDER_LABELS: Labels = {
    "normal": "normal",
    "nofinding": "normal",
    "nofindings": "normal",
    "healthy": "normal",
    "covid": "covid19",
    "covid19": "covid19",
    "noncovid": "non_covid19",
    "noncovid19": "non_covid19",
    "pneumonia": "pneumonia",
    "viralpneumonia": "pneumonia",
    "bacterialpneumonia": "pneumonia",
    "lungopacity": "lung_opacity",
}
"""Letters and digits of a folder's name, in lower case, and its label."""

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".bmp", ".gif", ".webp"})
"""The last three cannot be decoded: they are listed all the same, so that they are named and not passed over."""


@dataclass(frozen=True)
class Layout:
    """One way in which labelled X-rays lie in folders.

    name: for `--layout`. title: the set and who publishes it. patients: how pictures of one person are known.
    recognises: whether a folder looks like it. read: every labelled picture in it; raises DataError if its tables cannot be used.
    """

    name: str
    title: str
    patients: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Labels], list[Sample]]


def plain(name: str) -> str:
    """Return the letters and digits of a name in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files that lie in a folder itself, in order of their names; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and not path.name.startswith("."))


def folders_below(folder: Path, depth: int = 3) -> list[Path]:
    """Return the folders below one, in order, down to `depth` levels; without hidden ones and what macOS packs beside files."""
    if depth == 0 or not folder.is_dir():
        return []
    own = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return [found for path in own for found in (path, *folders_below(path, depth - 1))]


def alone(dataset: str, folder: Path, file: Path) -> str:
    """Return the code of a picture whose publisher names no patient: the picture itself."""
    return f"{dataset}:{file.relative_to(folder).as_posix()}"


def read_text(path: Path) -> str:
    """Return the text of a publisher's table.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Get the set again from its publisher.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text. Get the set again from its publisher.") from None
