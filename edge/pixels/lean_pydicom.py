"""pydicom without what it would load at once because it is installed: 15 MB and 50 ms that most of its users never need."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_NEVER = ("gdcm", "jpeg_ls", "requests", "tqdm")
"""Two decoders, which `edge.pixels.dicom_stored` loads for pictures that need them; and what fetches test files from afar."""


@contextlib.contextmanager
def lean_pydicom(*more: str) -> Iterator[None]:
    """While pydicom is imported for the first time, let it find none of these modules, nor those named in addition."""
    hidden = [] if "pydicom" in sys.modules else [name for name in (*_NEVER, *more) if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
