"""Reading TOML. Python 3.10 has no reader; there the device brings one, in its wheels and in its virtual environment."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

from .errors import Refused

_HERE = Path(__file__).resolve().parents[1]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        Refused: if it cannot be read or is not TOML.
    """
    reader = _reader()
    try:
        read: dict[str, Any] = reader.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}).") from None
    except (reader.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not TOML: {error}.") from None
    return read


def _reader() -> Any:
    with contextlib.suppress(ImportError):
        return importlib.import_module("tomllib")
    brought = [*_HERE.glob("wheels/tomli-*.whl"), *_HERE.glob("lib/python3.*/site-packages")]
    sys.path += map(str, brought)
    return importlib.import_module("tomli")
